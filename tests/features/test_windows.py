"""How many windows there are, and what of a recording is in them."""

import numpy as np
import pytest

from ds_jax.features import windows


def covered(count, total, length, step):
    heard = np.zeros(total, bool)
    for index in range(count):
        assert index * step < total  # no window is empty
        heard[index * step : index * step + length] = True
    return heard


def test_seconds_become_samples():
    assert windows.in_samples(3.0, 0.0, 16_000) == (48_000, 48_000)
    assert windows.in_samples(0.5, 0.2, 22_050) == (11_025, 4_410)
    assert windows.in_samples(1e-9, 1e-9, 8_000) == (1, 1)


def test_deepspectrum_takes_one_for_every_whole_hop():
    assert [windows.count(total, 10) for total in (1, 9, 10, 19, 20, 59)] == [1, 1, 1, 1, 2, 5]


@pytest.mark.parametrize(("length", "step"), [(10, 10), (10, 3), (7, 4), (3, 10), (1, 1)])
def test_to_the_end_there_is_one_more_only_where_something_would_be_missed(length, step):
    for total in range(1, 60):
        usual, found = windows.count(total, step), windows.count_to_end(total, length, step)
        missed = not covered(usual, total, length, step)[usual * step - step :].all()
        more = missed and usual * step < total
        assert found == usual + more
        heard = covered(found, total, length, step)
        if step <= length:
            assert heard.all()
