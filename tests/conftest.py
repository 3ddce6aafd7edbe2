"""What all tests share: a strict JAX and a narrow VGG16."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import pytest
import tiny
from absl import flags

from ds_jax import cross_validation, devices, vgg, weights

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


@pytest.fixture(scope="module")
def run(tmp_path_factory, narrow):
    """A finished run of three folds of speakers on the tiny corpus."""
    workdir = tmp_path_factory.mktemp("run")
    config = tiny.config()
    config.corpus = "tiny"
    config.folds.protocol, config.folds.count = "speakers", 3
    config.model.freeze, config.train.epochs = "block4", 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "load", lambda path, full: tiny.pretrained())
        cross_validation.run(config, tiny.corpus(21), workdir)
    return workdir
