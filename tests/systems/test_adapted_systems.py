"""Models that know speakers by their own recordings: in a run, elsewhere, and after enrolment."""

import dataclasses
import re
import shutil

import jax
import numpy as np
import pytest
import soundfile
import tiny

import ds_jax
from configs import base
from ds_jax.commands import ensemble, evaluate, predict, train
from ds_jax.data import enrolment
from ds_jax.evaluation import predictions, summary
from ds_jax.features import extract
from ds_jax.systems import base as systems

pytestmark = pytest.mark.usefixtures("tiny_weights")
RATE = 16_000
QUICK = ("svc", "ffnn", "ds_am_statistics")
SYSTEMS = [name for name, system in systems.SYSTEMS.items() if system.adapts]
every_system = pytest.mark.parametrize(
    "system", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in SYSTEMS]
)


def make(system):
    config, corpus = tiny.make(system)
    config.adapt = "speaker"
    if system == "lstm":
        config.features = "mfcc_frames"
        frames = np.random.default_rng(0).normal(2, 3, (42, 5, 12)).astype(np.float32)
        frames[::2, 3:] = np.nan
        corpus = dataclasses.replace(corpus, inputs=frames)
    if system == "ds_am_statistics":
        config.train.epochs = 1
    return config, corpus


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A function from the name of a system to its run, trained when first asked for."""
    made = {}

    def run(system):
        if system not in made:
            made[system] = tmp_path_factory.mktemp(system)
            with tiny.narrow_vgg16(), tiny.given_weights():
                assert train.run(*make(system), made[system])
        return made[system]

    return run


def shares(workdir):
    read = [predictions.read(path) for path in sorted(workdir.rglob("fold_*/predictions.csv"))]
    return predictions.concatenate(read)


@every_system
def test_an_enrolment_of_the_tested_speaker_gives_what_the_cross_validation_gave(runs, system):
    """Each fold tests one speaker, whose recordings in batches are an enrolment."""
    _, corpus = make(system)
    for directory in sorted(runs(system).glob("fold_*"))[:2]:
        tested = predictions.read(directory / "predictions.csv")
        rows = corpus.rows_of(tested.utterances)
        assert len({corpus.utterances[row].speaker for row in rows}) == 1
        of_system = systems.implementation(systems.load_config([directory / "checkpoints"]))
        measure = of_system.load_measure([directory / "checkpoints"])
        parts = [measure(corpus.inputs[some], 8)() for some in (rows[:8], rows[8:])]
        enrolled = jax.tree.map(lambda *parts: np.concatenate(parts), *parts)
        start = of_system.load_ensemble([directory / "checkpoints"], enrolled)
        found = start(corpus.inputs[rows], 16)().probabilities
        np.testing.assert_allclose(found, tested.probabilities, atol=2e-5)
        start = of_system.load_ensemble([directory / "checkpoints"], parts[0])
        assert np.abs(start(corpus.inputs[rows], 16)().probabilities - found).max() > 1e-7


@every_system
def test_models_predict_from_disk_as_they_did_when_fitted(runs, system, tmp_path):
    workdir, first = shutil.copytree(runs(system), tmp_path / "run"), shares(runs(system))
    result = evaluate.run(workdir, make(system)[1])
    again = predictions.read(workdir / "evaluations" / "tiny" / "predictions.csv")
    order = np.argsort(first.utterances)
    np.testing.assert_allclose(first.probabilities[order], again.probabilities, atol=1e-12)
    assert result.adapt == summary.read(workdir / "report.json").adapt == "speaker"
    assert 'id="enrolment"' in (workdir / "report.html").read_text("utf-8")


def test_a_voice_that_adds_and_multiplies_changes_no_answer(runs, tmp_path):
    """On another corpus too, whose speakers are standardised by their recordings there."""
    config, corpus = make("svc")
    speaker = np.arange(42)[:, None] % 3
    moved = (corpus.inputs * (1 + speaker) + 10 * speaker).astype(np.float32)
    moved = dataclasses.replace(corpus, inputs=moved)
    assert train.run(config, moved, tmp_path / "run")
    found, wanted = shares(tmp_path / "run"), shares(runs("svc"))
    np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=1e-4)
    answers = []
    for name, other in (("first", corpus), ("second", moved)):
        evaluate.run(tmp_path / "run", dataclasses.replace(other, name=name))
        path = tmp_path / "run" / "evaluations" / name / "predictions.csv"
        answers.append(predictions.read(path).probabilities)
    np.testing.assert_allclose(*answers, atol=1e-4)


def test_no_label_of_a_test_is_looked_at(runs, tmp_path):
    config, corpus = make("svc")
    tested = predictions.read(runs("svc") / "fold_00" / "predictions.csv")
    utterances = [
        dataclasses.replace(u, label="JOY") if u.name in tested.utterances else u
        for u in corpus.utterances
    ]
    shutil.copy(runs("svc") / "folds.json", tmp_path)
    shutil.copy(runs("svc") / "config.json", tmp_path)
    other = dataclasses.replace(corpus, utterances=tuple(utterances))
    assert not train.run(config, other, tmp_path, [0])
    found = predictions.read(tmp_path / "fold_00" / "predictions.csv")
    np.testing.assert_array_equal(found.probabilities, tested.probabilities)
    assert (found.labels != tested.labels).any()


def test_a_corpus_of_unknown_speakers_is_refused_before_any_work(tmp_path):
    config, corpus = make("svc")
    unknown = [dataclasses.replace(u, speaker="unknown") for u in corpus.utterances]
    corpus = dataclasses.replace(corpus, utterances=tuple(unknown))
    with pytest.raises(ValueError, match="several people"):
        train.run(config, corpus, tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_corpus_needs_its_speakers_too(runs, tmp_path):
    _, corpus = make("svc")
    few = [dataclasses.replace(u, speaker=f"s{i % 6}") for i, u in enumerate(corpus.utterances)]
    other = dataclasses.replace(corpus, name="other", utterances=tuple(few))
    with pytest.raises(ValueError, match="other has 7 recordings of the speaker"):
        evaluate.run(shutil.copytree(runs("svc"), tmp_path / "run"), other)


@pytest.fixture(scope="module")
def voice(tmp_path_factory):
    """Recordings of somebody new."""
    folder = tmp_path_factory.mktemp("voice")
    for number in range(12):
        time, rng = np.arange(RATE // 2) / RATE, np.random.default_rng(number)
        wave = 0.3 * np.sin(2 * np.pi * (200 + 30 * number) * time) + rng.normal(0, 0.05, RATE // 2)
        soundfile.write(folder / f"{number:02}.wav", wave, RATE)
    return folder


@pytest.mark.parametrize(
    "system", ["svc", pytest.param("ds_am_statistics", marks=pytest.mark.slow)]
)
def test_somebody_new_is_enrolled_in_python_and_on_the_command_line(runs, voice, capsys, system):
    model = ds_jax.load(runs(system), enrol=voice)
    records = model.predict([voice / "03.wav", voice / "07.wav"])
    found = np.asarray([[record[name] for name in model.classes] for record in records])
    predict.run(runs(system), [voice / "03.wav", voice / "07.wav"], "csv", enrol=[voice])
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert [[float(cell) for cell in line.split(",")[4:]] for line in lines] == found.tolist()
    samples, _ = soundfile.read(voice / "07.wav")
    np.testing.assert_allclose(model(samples, RATE), found[1], atol=1e-5)
    other = ds_jax.load(runs(system), enrol=sorted(voice.glob("*.wav"))[:10])
    assert 1e-9 < np.abs(other(samples, RATE) - found[1]).max() < 0.5
    assert model.card["adapt"] == "speaker"


def test_an_enrolment_of_features_is_their_mean_and_deviation(runs, voice):
    """As an independent scaler has them."""
    model = ds_jax.load(runs("svc") / "fold_00", enrol=voice)
    settings = extract.settings(model.config)
    inputs = np.stack([extract.read(p, settings)[1][0] for p in sorted(voice.glob("*.wav"))])
    scaled = (inputs - inputs.mean(axis=0, dtype=float)) / inputs.std(axis=0, dtype=float)
    folder = runs("svc") / "fold_00" / "checkpoints"
    plain = systems.implementation(model.config).load_ensemble([folder])
    wanted = plain(np.clip(scaled, -6, 6).astype(np.float32), 12)().probabilities
    records = model.predict(voice)
    found = [[record[name] for name in model.classes] for record in records]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_members_of_an_ensemble_are_enrolled_each(voice, tmp_path):
    config = tiny.config()
    config.corpus, config.folds.protocol, config.folds.count = "tiny", "speakers", 3
    members = {name: make(system)[0] for name, system in (("a", "svc"), ("b", "mlr"))}
    base.use_ensemble(config, **members, trees=tiny.make("ridge")[0])
    assert systems.check(config) is None
    assert {member.adapt for member in config.members.values()} == {"none"}  # as the ensemble
    config.adapt = "speaker"
    config.members.trees.features = "wu"
    systems.check(config)

    def load(member, name):
        inputs = make("svc")[1]
        if member.features == "wu":
            inputs = dataclasses.replace(inputs, inputs=inputs.inputs[:, :46])
        return inputs

    assert ensemble.run(config, load, tmp_path)
    assert summary.read(tmp_path / "report.json").adapt == "speaker"
    samples, _ = soundfile.read(voice / "07.wav")
    alone = [
        ds_jax.load(tmp_path / "members" / name, enrol=voice)(samples, RATE)
        for name in config.members
    ]
    found = ds_jax.load(tmp_path, enrol=voice)(samples, RATE)
    np.testing.assert_allclose(found, np.mean(alone, axis=0), rtol=1e-5)
    with pytest.raises(ValueError, match="--enrol=FOLDER"):
        ds_jax.load(tmp_path)


def test_an_enrolment_is_given_where_it_is_needed_and_nowhere_else(
    runs, finished_runs, voice, capsys
):
    for load in (ds_jax.load, lambda run: predict.run(run, [voice])):
        with pytest.raises(ValueError, match=r"10 recordings or more .*--enrol=FOLDER"):
            load(runs("svc"))
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="adapt='none'"):
        predict.run(finished_runs("svc"), [voice], enrol=[voice])
    with pytest.raises(ValueError, match="adapt='none'"):
        ds_jax.load(finished_runs("svc"), enrol=voice)


def test_an_enrolment_of_few_or_of_unusable_recordings_is_refused(runs, voice, tmp_path):
    few = sorted(voice.glob("*.wav"))[: enrolment.LEAST - 1]
    with pytest.raises(ValueError, match="has 9 recordings and needs 10"):
        ds_jax.load(runs("svc"), enrol=few + few)
    shutil.copytree(voice, tmp_path / "voice")
    (tmp_path / "voice" / "bad.wav").write_text("no audio")
    with pytest.raises(ValueError, match=r"enrolment: .*bad\.wav"):
        ds_jax.load(runs("svc"), enrol=tmp_path / "voice")
    with pytest.raises(ValueError, match="no such file"):
        ds_jax.load(runs("svc"), enrol=re.sub("voice", "nowhere", str(voice)))
