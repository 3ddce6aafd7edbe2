"""What all tests share: a strict JAX, a small VGG16 and finished runs."""

import functools
import shutil

import pytest
import strict  # noqa: F401
import tiny

from ds_jax.commands import train
from ds_jax.models import pretrained


@pytest.fixture(scope="module")
def narrow():
    """VGG16 with one convolution a block, a few channels wide."""
    with tiny.narrow_vgg16():
        yield


@pytest.fixture
def tiny_weights(narrow, monkeypatch):
    """Pretrained weights of the narrow VGG16 in place of a file's or a download's."""
    monkeypatch.setattr(pretrained, "load", lambda *_, **__: tiny.pretrained())


@pytest.fixture(scope="session")
def finished_runs(tmp_path_factory):
    """A function from the name of a system to a finished run of it, trained when first asked for.

    The run is the workdir of `tiny.make`'s config and corpus. It belongs to all tests: copy it to
    change it.
    """

    @functools.cache
    def finished(system: str):
        workdir = tmp_path_factory.mktemp(system)
        with tiny.narrow_vgg16(), tiny.given_weights():
            assert train.run(*tiny.make(system), workdir)
        return workdir

    return finished


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """A finished run of `tiny.run_config` on a corpus of 21 utterances; copy it to change it."""
    workdir = tmp_path_factory.mktemp("finished")
    with tiny.narrow_vgg16(), tiny.given_weights():
        assert train.run(tiny.run_config(), tiny.corpus(21), workdir)
    return workdir


@pytest.fixture(scope="module")
def run(finished_run, tmp_path_factory, narrow):
    """The finished run, copied for the tests of a module."""
    return shutil.copytree(finished_run, tmp_path_factory.mktemp("run") / "run")


@pytest.fixture
def run_copy(finished_run, tmp_path, narrow):
    """The finished run, copied for one test to spoil."""
    return shutil.copytree(finished_run, tmp_path / "run")


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory):
    """Random weights of the real VGG16's shapes, in the Keras file's layout."""
    return tiny.write_weights(tmp_path_factory.mktemp("weights") / "vgg16.h5")
