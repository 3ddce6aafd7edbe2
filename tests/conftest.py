"""What all tests share: a strict JAX and a narrow VGG16."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import h5py
import jax
import numpy as np
import pytest
import tiny
from absl import flags

from ds_jax.commands import train
from ds_jax.models import pretrained, vgg16
from ds_jax.runtime import processes

processes.start()
flags.FLAGS.mark_as_parsed()  # grain reads them
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module")
def narrow():
    """VGG16 as deep as the real one and a few channels wide."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vgg16, "BLOCKS", tiny.BLOCKS)
        patch.setattr(vgg16, "UNITS", tiny.UNITS)
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
        patch.setattr(pretrained, "load", lambda backbone, path, full: tiny.pretrained())
        train.run(config, tiny.corpus(21), workdir)
    return workdir


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory):
    """Random weights of the real VGG16's shapes, in the Keras file's layout."""
    path = tmp_path_factory.mktemp("weights") / "vgg16.h5"
    rng, channels = np.random.default_rng(0), 3
    with h5py.File(path, "w") as file:
        for block, (width, count) in enumerate(vgg16.BLOCKS, start=1):
            for index in range(1, count + 1):
                name = f"block{block}_conv{index}"
                kernel = rng.standard_normal((3, 3, channels, width), np.float32)
                group = file.create_group(name)
                group[f"{name}_W_1:0"] = kernel * np.sqrt(2 / (9 * channels))
                group[f"{name}_b_1:0"] = np.zeros(width, np.float32)
                channels = width
    return path
