"""What all tests share: a strict JAX and a narrow VGG16."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import pytest
import tiny
from absl import flags

from ds_jax import devices, vgg

devices.start()
flags.FLAGS.mark_as_parsed()  # grain reads them
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module")
def narrow():
    """VGG16 as deep as the real one and a few channels wide."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vgg, "BLOCKS", tiny.BLOCKS)
        patch.setattr(vgg, "UNITS", tiny.UNITS)
        yield
