"""Variants of a recording differ from it in one thing, by as much as they say."""

import numpy as np
import pytest

from ds_jax.features import variants
from ds_jax.runtime.errors import ConfigError

RATE = 16_000


def tone(pitch, seconds=1.0):
    return (0.3 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * RATE)) / RATE)).astype("f4")


def pitch_of(samples):
    """The strongest frequency in Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return spectrum.argmax() * RATE / len(samples)


@pytest.mark.parametrize(
    ("variant", "pitch", "seconds"),
    [
        ("", 440, 1.0),
        ("speed=0.8", 352, 1.25),
        ("speed=1.25", 550, 0.8),
        ("pitch=12", 880, 1.0),
        ("pitch=-5", 440 * 2 ** (-5 / 12), 1.0),
        ("noise=20", 440, 1.0),
    ],
)
def test_speed_and_pitch_are_what_they_say(variant, pitch, seconds):
    varied = variants.vary(tone(440), RATE, variant)
    assert varied.dtype == np.float32
    assert len(varied) == pytest.approx(seconds * RATE, abs=2)
    assert pitch_of(varied) == pytest.approx(pitch, abs=3)


@pytest.mark.parametrize("snr", [-5, 10, 30])
def test_noise_lies_as_far_below_as_it_says_and_is_the_same_again(snr):
    samples = 0.1 * tone(440)
    varied = variants.vary(samples, RATE, f"noise={snr}")
    ratio = np.mean(np.square(samples)) / np.mean(np.square(varied - samples))
    assert 10 * np.log10(ratio) == pytest.approx(snr, abs=0.3)
    np.testing.assert_array_equal(varied, variants.vary(samples, RATE, f"noise={snr}"))


@pytest.mark.parametrize("variant", ["speed=1.5", "pitch=3", "noise=0"])
@pytest.mark.parametrize("count", [1, 20, 700])
def test_the_shortest_recordings_have_variants(variant, count):
    varied = variants.vary(np.ones(count, np.float32), RATE, variant)
    assert len(varied)
    assert np.isfinite(varied).all()
    assert np.abs(varied).max() <= 1


@pytest.mark.parametrize(
    "variant", ["speed", "speed=", "speed=fast", "speed=3", "pitch=nan", "echo=1", "noise=1e9"]
)
def test_an_impossible_variant_is_named(variant):
    with pytest.raises(ConfigError) as refused:
        variants.parse(variant)
    assert (refused.value.field, refused.value.value) == ("variants", variant)
