"""Speech is found between silence."""

import numpy as np
import pytest
from signals import padded

from ds_jax.features import silence
from ds_jax.features.silence import find_speech


@pytest.mark.parametrize(
    ("before", "speech", "after", "found"),
    [
        (1.0, 0.5, 2.0, (0.9, 1.6)),
        (0.05, 0.5, 0.05, (0.0, 0.6)),
        (0.0, 0.5, 0.0, (0.0, 0.5)),
        (0.0, 0.01, 0.0, (0.0, 0.01)),
    ],
)
@pytest.mark.parametrize("block", [16_000 * 9, 777, 1])
def test_speech_is_found_with_a_margin(before, speech, after, found, block):
    samples = padded(before, speech, after)
    blocks = [samples[start : start + block] for start in range(0, len(samples), block)]
    first, stop = find_speech(iter(blocks), 16_000, 40.0)
    np.testing.assert_allclose((first / 16_000, stop / 16_000), found, atol=silence.FRAME)
    assert find_speech(iter(blocks), 16_000, 0.0) == (0, len(samples))
    assert find_speech(iter(blocks), 16_000, 100.0) == (0, len(samples))
