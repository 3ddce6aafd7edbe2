"""DS-AM's second form with rows that have their speaker's scaling: on any devices.

Also the program of its trials: python test_adapted_training.py FOLDER WAY, with the devices in the
environment.
"""

import dataclasses
import itertools
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from refusals import refused_field

from ds_jax.data import enrolment
from ds_jax.data.folds import Fold
from ds_jax.models.backbones import BACKBONES
from ds_jax.systems import base as systems
from ds_jax.training import loop, parallel, step
from ds_jax.training.checkpoints import MODEL
from ds_jax.training.fold import FoldState
from ds_jax.training.parallel import ONE_MODEL

pytestmark = pytest.mark.usefixtures("narrow")
HEADS = {"block3_pool": 8, "block4_pool": 16}  # pixels of a column
UTTERANCES = tiny.corpus(16).utterances
FOLDS = {
    number: Fold(tiny.fold(range(14), range(0), range(0)).train, (), (f"u{14 + number % 2}",))
    for number in range(3)
}


def create(corpus=None):
    config, _ = tiny.make("ds_am_statistics")
    config.adapt = "speaker"
    return tiny.setup(config, corpus or tiny.timelines(tiny.corpus(16)))


@pytest.fixture(scope="module")
def setup(narrow):
    return create()


def outcome(setup, workdir, folds=FOLDS):
    trained = dict(loop.train_folds(setup, folds, workdir))
    return np.concatenate([trained[number].probabilities for number in sorted(trained)])


@pytest.fixture(scope="module")
def undisturbed(setup, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    return outcome(setup, workdir), workdir


def test_rows_have_the_mean_and_the_deviation_of_their_speaker(setup):
    corpus, made = setup.corpus, setup.inputs.corpus
    maps = jax.tree.map(np.asarray, step.take(made, np.arange(16)))
    for (rows, _), (name, pixels) in itertools.product(
        enrolment.rows_of_speakers(corpus), HEADS.items()
    ):
        columns = [maps[name][row][:, : maps["widths"][row] // pixels] for row in rows]
        values = np.concatenate([part.reshape(-1, part.shape[-1]) for part in columns])
        found = setup.inputs.beside[f"standardise_{name}"]
        deviation = np.where(values.std(axis=0) > 1e-6, values.std(axis=0), 1)
        for row in rows:
            np.testing.assert_allclose(found["mean"][row], values.mean(axis=0), 1e-4, 1e-5)
            np.testing.assert_allclose(found["deviation"][row], deviation, rtol=1e-3)


def test_a_model_keeps_no_scaling_of_its_training(setup, tmp_path):
    fold = FoldState(setup.config, setup.corpus, 0, FOLDS[0], tmp_path, shared=True)
    kept = setup.first_state(ONE_MODEL, fold).batch_stats
    fold.close()
    for name in HEADS:
        assert not kept[f"standardise_{name}"]["mean"].any()
        assert (kept[f"standardise_{name}"]["deviation"] == 1).all()


def changed(corpus):
    """The corpus with another picture of its last utterance."""
    inputs = corpus.inputs.copy()
    inputs[15] = np.maximum(1, 255 - inputs[15]) * (inputs[15] > 0)
    return dataclasses.replace(corpus, inputs=inputs)


def test_a_recording_changes_the_scaling_of_its_speaker_alone(setup):
    found, wanted = (each.inputs.beside for each in (create(changed(setup.corpus)), setup))
    own = np.asarray([u.speaker == setup.corpus.utterances[15].speaker for u in UTTERANCES])
    for name, scaling in wanted.items():
        for kind, values in scaling.items():
            differs = (np.asarray(found[name][kind]) != np.asarray(values)).any(axis=1)
            np.testing.assert_array_equal(differs, own)


def test_pictures_of_speakers_scalings_are_not_mixed():
    config, _ = tiny.make("ds_am_statistics")
    config.adapt, config.train.mixup = "speaker", 0.2
    assert refused_field(systems.check, config) == "train.mixup"


@pytest.mark.slow
def test_strangers_change_no_model(setup, undisturbed, tmp_path):
    """Another picture of a speaker who does not train; of one who does, it changes the model."""
    utterances = [*UTTERANCES[:15], dataclasses.replace(UTTERANCES[15], speaker="stranger")]
    strange = dataclasses.replace(setup.corpus, utterances=tuple(utterances))
    models = [(undisturbed[1] / "fold_01" / "checkpoints" / MODEL).read_bytes()]
    for number, corpus in enumerate((strange, changed(strange), changed(setup.corpus))):
        outcome(create(corpus), tmp_path / str(number), {1: FOLDS[1]})
        models.append((tmp_path / str(number) / "fold_01" / "checkpoints" / MODEL).read_bytes())
    before, stranger, changed_stranger, changed_own = models
    assert stranger == changed_stranger != before
    assert changed_own != before


@pytest.mark.parametrize("memory", ["pictures", "none"])
def test_chunks_hold_what_belongs_to_their_rows(setup, monkeypatch, memory):
    """Where pictures alone fit, and where they are streamed."""
    answers = iter([False, memory == "pictures"])  # what the frozen blocks give; pictures
    monkeypatch.setattr(parallel, "fits", lambda size: next(answers))
    other = create(dataclasses.replace(setup.corpus))
    assert other.inputs.streamed == (memory == "none")
    batch = np.asarray([5, 14, 0], np.int32)
    (chunk,) = other.inputs.chunks(ONE_MODEL, [[batch]], 1, 3)
    found, rows = jax.tree.map(lambda x: x[0] if other.inputs.streamed else x, chunk[0]), chunk[2]
    assert {*found} == {"pictures", *setup.inputs.beside}
    for name, scaling in setup.inputs.beside.items():
        for kind, values in scaling.items():
            of_batch = np.asarray(found[name][kind])[rows[0, 0]]
            np.testing.assert_allclose(of_batch, np.asarray(values)[batch], 1e-3, 1e-4)
    pictures = np.asarray(step.take(found["pictures"], rows[0, 0]))
    wanted = setup.corpus.inputs[batch]
    np.testing.assert_array_equal(pictures[..., : wanted.shape[2]], wanted)
    assert not pictures[..., wanted.shape[2] :].any()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["folds", "batch"])
def test_any_devices_train_the_same_models(undisturbed, tmp_path, way):
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}:{root / 'tests'}", "JAX_PLATFORMS": "cpu"}
    environment["JAX_NUM_CPU_DEVICES"] = "3"
    subprocess.run([sys.executable, __file__, tmp_path, way], env=environment, check=True)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), undisturbed[0], atol=1e-5)


if __name__ == "__main__":
    folder, way = Path(sys.argv[1]), sys.argv[2]
    BACKBONES["vgg16"] = tiny.NARROW
    trial = create()
    trial.config.parallel = way
    assert jax.device_count() == 3
    np.save(folder / "found.npy", outcome(trial, folder))
