"""Feature maps that many layers are tested on."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def x(rng):
    """Feature maps whose channels differ in mean and spread, float32 [16, 3, 2, 5]."""
    noise = rng.normal(size=(16, 3, 2, 5))
    return (noise * [1, 2, 0.1, 5, 1] + [0, 3, -1, 10, 100]).astype(np.float32)
