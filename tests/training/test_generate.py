"""Generated pictures: they look like their class, and training rows alone make them."""

import dataclasses
import itertools
import re
import shutil

import numpy as np
import pytest
import tiny
from refusals import refused_field

from ds_jax.commands import evaluate, train
from ds_jax.data import generated
from ds_jax.data.extension import with_variants
from ds_jax.data.folds import Fold
from ds_jax.evaluation import summary
from ds_jax.features import spectrogram
from ds_jax.models.generator import FRAMES, Generator
from ds_jax.runtime import processes, shutdown
from ds_jax.runtime.shutdown import Interrupted
from ds_jax.runtime.workdir import GENERATED
from ds_jax.systems import base as systems
from ds_jax.training import generate, loop, parallel
from ds_jax.training.checkpoints import MODEL
from ds_jax.training.input_pipeline import Inputs

pytestmark = pytest.mark.usefixtures("narrow")

LABELS = ("ANGER", "DISGUST")
TRAIN, TEST = range(14), range(14, 16)
FOLD = Fold(tiny.fold(TRAIN, range(0), TEST).train, (), tiny.fold(TRAIN, range(0), TEST).test)
WHERE = ("fold_01", GENERATED), ("fold_01", "checkpoints", MODEL)


def shrink(patch):
    """Makes generators of few channels, and lets them learn from few pictures."""
    patch.setattr(generate, "Generator", lambda bands, classes: Generator(bands, classes, (32, 32)))
    patch.setattr(generate, "LEAST", 2)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    shrink(monkeypatch)


def die(*arguments):
    raise KeyboardInterrupt


def pictures(count, seed=0):
    """Timelines of several widths that are bright above in the first class, below in the other."""
    rng, labels = np.random.default_rng(seed), np.arange(count) % 2
    inputs = np.zeros((count, 32, 150), np.uint8)
    for picture, label, width in zip(inputs, labels, rng.integers(64, 150, count), strict=True):
        picture[:, :width] = rng.integers(40, 80, (32, width))
        picture[16 * label : 16 * label + 16, :width] += 120
    return inputs, labels


def config(**fields):
    made, _ = tiny.make("ds_am_statistics")
    made.train.epochs = 1
    made.update_from_flattened_dict({"generate.share": 0.5, "generate.steps": 3} | fields)
    return made


def corpus(seed=0):
    """Each of two classes has eight of 16 utterances."""
    made = tiny.timelines(tiny.corpus(16), seed)
    labelled = [
        dataclasses.replace(utterance, label=LABELS[number % 2])
        for number, utterance in enumerate(made.utterances)
    ]
    return dataclasses.replace(made, utterances=tuple(labelled))


@pytest.fixture(scope="module")
def setup(narrow):
    return tiny.setup(config(), corpus())


def outcome(setup, workdir, fold=FOLD):
    """What must be the same: what is predicted, and the bytes of the pictures and of the model."""
    predicted = dict(generate.train_folds(setup, {1: fold}, workdir))[1]
    return predicted.probabilities.tobytes(), *[workdir.joinpath(*w).read_bytes() for w in WHERE]


@pytest.fixture(scope="module")
def undisturbed(setup, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        return outcome(setup, workdir), workdir


@pytest.fixture(scope="module")
def fitted():
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        return generate.fit(*pictures(24), 2, 120, np.random.default_rng(0))


def rows_of(pictures):
    """The mean of each band of each picture, without its padding: float [n, 32]."""
    return np.stack([spectrogram.unpadded(picture).mean(axis=1) for picture in pictures])


def test_drawn_pictures_have_the_bands_of_their_class(fitted):
    inputs, labels = pictures(24)
    drawn = generate.draw(fitted, labels, np.full(24, 100), np.random.default_rng(1))
    wanted = np.stack([rows_of(inputs)[labels == label].mean(axis=0) for label in (0, 1)])
    apart = np.abs(rows_of(drawn)[:, None] - wanted[None]).mean(axis=2)  # from either class
    assert (apart.argmin(axis=1) == labels).all()
    assert apart[np.arange(24), labels].mean() < 20  # grey levels; the classes are 120 apart
    assert np.mean(fitted.losses[-20:]) < 0.7 * np.mean(fitted.losses[:5])


def test_the_class_alone_moves_the_bright_bands(fitted):
    drawn = [
        generate.draw(fitted, np.full(4, label), np.full(4, 90), np.random.default_rng(3))
        for label in (0, 1)
    ]
    above, below = (rows_of(each)[:, :16].mean() - rows_of(each)[:, 16:].mean() for each in drawn)
    assert above > 60
    assert below < -60


def test_drawn_pictures_are_timelines_of_the_wanted_widths(fitted):
    widths = np.asarray([64, 100, FRAMES, 400])
    drawn = generate.draw(fitted, np.zeros(4, int), widths, np.random.default_rng(0))
    assert drawn.shape == (4, 32, FRAMES)
    assert drawn.dtype == np.uint8
    assert spectrogram.widths(drawn).tolist() == [64, 100, FRAMES, FRAMES]
    for picture, width in zip(drawn, widths, strict=True):
        assert (picture[:, :width] > 0).all()
        assert not picture[:, width:].any()
    narrow = generate.draw(fitted, np.zeros(2, int), widths[:2], np.random.default_rng(0))
    assert narrow.shape == (2, 32, 100)


def test_columns_after_the_end_change_nothing():
    """A timeline teaches the same whatever is behind its end, and however wide the padding."""
    inputs, labels = pictures(8)
    wide = np.pad(inputs, [(0, 0), (0, 0), (0, 70)])
    losses = [
        generate.fit(each, labels, 2, 3, np.random.default_rng(0)).losses for each in (inputs, wide)
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(("share", "count"), [(1e-3, 1), (0.5, 15), (1.0, 30), (2.5, 75)])
def test_classes_have_their_shares(share, count):
    labels = np.repeat([0, 3, 5], [16, 10, 4])
    chosen = generate.choose(labels, share, np.random.default_rng(0))
    assert len(chosen) == count
    found = np.bincount(labels[chosen], minlength=6)
    np.testing.assert_allclose(found, share * np.bincount(labels, minlength=6), atol=1)
    times = np.bincount(chosen, minlength=30)
    assert times.max() - times.min() <= 1


def test_generated_pictures_are_rows_of_the_training_split_alone(undisturbed):
    _, workdir = undisturbed
    made = generated.show(workdir / "fold_01" / GENERATED)
    joined = generated.join(corpus(), made)
    assert len(made.names) == joined.extra == 7
    assert {*made.names} <= {*FOLD.train}
    new = joined.training_rows(FOLD.train)[14:]
    assert new.tolist() == [*range(16, 23)]
    for row, picture, name in zip(new, made.pictures, made.names, strict=True):
        owner = joined.utterances[joined.owners[row]]
        assert (owner.name, owner.label) == (name, joined.classes[joined.labels[row]])
        np.testing.assert_array_equal(joined.inputs[row][:, : picture.shape[1]], picture)
    for names in (FOLD.test, FOLD.train):
        assert joined.rows_of(names).max() < 16
    assert joined.training_rows(FOLD.test).tolist() == [14, 15]


def test_variants_and_generated_pictures_stand_side_by_side(undisturbed):
    both = with_variants(corpus(), [corpus(seed=1)])
    joined = generated.join(both, generated.show(undisturbed[1] / "fold_01" / GENERATED))
    assert joined.extra == 16 + 7
    assert joined.rows_of(FOLD.test).tolist() == [14, 15]
    assert len(joined.training_rows(FOLD.train)) == 14 + 14 + 7


def test_test_recordings_reach_no_generator(undisturbed, tmp_path):
    """With others in their place the pictures and the model are the same; a training row counts."""
    inputs = corpus().inputs
    poisoned, changed = inputs.copy(), inputs.copy()
    for row in TEST:
        poisoned[row][inputs[row] > 0] = 255
    changed[0][inputs[0] > 0] = 255
    (_, *wanted), _ = undisturbed
    for number, each in enumerate((poisoned, changed)):
        other = tiny.setup(config(), dataclasses.replace(corpus(), inputs=each))
        _, *found = outcome(other, tmp_path / str(number))
        assert [a == b for a, b in zip(found, wanted, strict=True)] == [each is poisoned] * 2


def test_training_again_gives_the_same_bytes_and_another_seed_others(setup, undisturbed, tmp_path):
    assert outcome(setup, tmp_path / "again") == undisturbed[0]
    seeded = dataclasses.replace(setup, config=config(**{"seeds.generation": 1}))
    assert outcome(seeded, tmp_path / "other")[1] != undisturbed[0][1]


@pytest.mark.parametrize("moment", ["drawing", "training", "damage"])
def test_a_run_that_was_stopped_ends_with_the_same_bytes(setup, undisturbed, tmp_path, moment):
    if moment == "damage":
        path = tmp_path.joinpath(*WHERE[0])
        path.parent.mkdir()
        content = bytearray(undisturbed[0][1])
        content[500:600] = bytes(100)
        path.write_bytes(content)
    else:
        answers = itertools.chain([False, False], itertools.repeat(True))
        error, *patched = {
            "drawing": (KeyboardInterrupt, generate, "draw", die),
            "training": (Interrupted, shutdown, "sigterm_received", lambda: next(answers)),
        }[moment]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(*patched)
            with pytest.raises(error):
                outcome(setup, tmp_path)
        assert tmp_path.joinpath(*WHERE[0]).is_file() == (moment == "training")
    assert outcome(setup, tmp_path) == undisturbed[0]


def test_a_flipped_byte_anywhere_is_found_or_harmless(tmp_path):
    path, drawn = tmp_path / GENERATED, np.arange(2 * 4 * 6, dtype=np.uint8).reshape(2, 4, 6)
    generated.write(path, drawn, ["a", "b"], "digest")
    content, found = path.read_bytes(), 0
    for place in range(0, len(content), 3):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        if generated.is_whole(path):
            pictures, names = generated.read(path, "digest")
            assert (pictures.tobytes(), names) == (drawn.tobytes(), ["a", "b"])
            continue
        found += 1
        for read in (generated.count, generated.show):
            with pytest.raises(ValueError, match=re.escape(str(path))):
                read(path)
    assert found > len(content) / 6


@pytest.mark.parametrize("field", ["fold", "generate.steps", "seeds.generation", "picture.fmax"])
def test_pictures_of_another_fold_or_config_are_refused(setup, undisturbed, tmp_path, field):
    """The generator of another fold may have seen what this fold tests."""
    shutil.copytree(undisturbed[1] / "fold_01", tmp_path / "fold_01")
    fold = FOLD
    if field == "fold":
        fold = Fold(FOLD.train[:-1], (), FOLD.train[-1:])
    else:
        setup = dataclasses.replace(setup, config=config(**{field: 7}))
    with pytest.raises(ValueError, match=GENERATED):
        outcome(setup, tmp_path, fold)


@pytest.mark.parametrize("first", [True, False])
def test_too_few_pictures_of_a_class_are_an_error(setup, tmp_path, monkeypatch, first):
    """In every process, or the others would wait for the first one."""
    monkeypatch.setattr(generate, "LEAST", 8)
    monkeypatch.setattr(processes, "is_first_process", lambda: first)
    with pytest.raises(ValueError, match=r"fold 1: .*7 training pictures of ANGER.*needs 8"):
        outcome(setup, tmp_path)


@pytest.mark.parametrize(("first", "error"), [(True, FloatingPointError), (False, ValueError)])
def test_all_processes_end_where_the_first_one_fails(setup, tmp_path, monkeypatch, first, error):
    told = []

    def fail(*arguments):
        raise FloatingPointError("not finite")

    def in_any_process(flags):
        told.extend(flags)
        return np.asarray([True])

    monkeypatch.setattr(generate, "fit", fail)
    monkeypatch.setattr(processes, "is_first_process", lambda: first)
    monkeypatch.setattr(processes, "in_any_process", in_any_process)
    with pytest.raises(error):
        outcome(setup, tmp_path)
    assert told == [first]


def test_a_streamed_corpus_stays_streamed(setup, undisturbed, monkeypatch):
    streamed = dataclasses.replace(setup, inputs=Inputs(corpus().inputs, corpus().labels, "", True))
    monkeypatch.setattr(parallel, "fits", lambda size: False)
    made, create = [], loop.create_inputs
    monkeypatch.setattr(loop, "create_inputs", lambda *args: made.append(create(*args)) or made[-1])
    joined = generated.join(corpus(), generated.show(undisturbed[1].joinpath(*WHERE[0])))
    extended = loop.extend(streamed, joined)
    assert [len(each.corpus) for each in made] == [16 + 7]
    assert extended.inputs is made[0]
    assert extended.inputs.streamed


def test_pictures_cannot_be_generated_of_speakers_scalings():
    assert refused_field(systems.check, config(adapt="speaker")) == "generate.share"


def test_a_report_counts_and_shows_them(tmp_path, tiny_weights):
    made, pairs = config(**{"generate.share": 1.0}), corpus()
    made.folds.count = 2
    assert train.run(made, pairs, tmp_path)
    result, page = summary.read(tmp_path / "report.json"), (tmp_path / "report.html").read_text()
    counts = [record["generated"] for record in result.folds]
    assert counts == [record["train"] for record in result.folds]
    assert result.generated == sum(counts)
    assert result.n == 16
    assert 'id="trained-on-generated"' in page
    section = page.split('<h2 id="drawn">')[1].split("</section>")[0]
    assert section.count("<figure>") == 2 * (2 + 3)
    other = dataclasses.replace(pairs, name="other", utterances=pairs.utterances)
    assert evaluate.run(tmp_path, other).generated == result.generated
