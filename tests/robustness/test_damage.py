"""Files of a run are damaged at random: nothing is silently wrong.

What comes out is what came out before, or an error names the damaged file.
"""

import contextlib
import errno
import io
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint
import pytest
import tiny
from one_fold import FOLD, ONE_MODEL, stepping

from benchmarks.kills import lasting
from ds_jax import config as configuration
from ds_jax.commands import report, train
from ds_jax.runtime import files, shutdown
from ds_jax.systems import network
from ds_jax.training.checkpoints import CARD, MODEL
from ds_jax.training.epochs import Epochs

pytestmark = [pytest.mark.usefixtures("narrow"), pytest.mark.slow]


def flip(path, rng):
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    path.write_bytes(content)


def cut(path, rng):
    path.write_bytes(path.read_bytes()[: rng.integers(path.stat().st_size)])


def remove(path, rng):
    path.unlink()


every_damage = pytest.mark.parametrize(("damage", "trials"), [(flip, 40), (cut, 40), (remove, 1)])
once = pytest.mark.parametrize("damage", [flip, cut, remove])


def names(run):
    """All that a finished run holds, except for what TensorBoard reads and locks."""
    aside = ("tensorboard", "fold.lock", "run.lock")
    found = (path.relative_to(run) for path in run.rglob("*") if path.is_file())
    return sorted(path for path in found if not set(path.parts) & set(aside))


def outcome(run):
    kept = ("folds.json", "report.json", "report.html", "fold_*/predictions*.csv", "fold_*/gates*")
    paths = [path for name in kept for path in sorted(run.glob(name))]
    return {path.relative_to(run): lasting(path) for path in paths}


def attempt(action, path, capsys):
    """What an action gives, None where it refuses; and all that is said."""
    capsys.readouterr()
    try:
        given, said = action(), ""
    except (ValueError, FileNotFoundError) as error:
        given, said = None, str(error)
        assert str(path) in said or str(path.parent) in said  # Orbax' files are told by their epoch
    return given, said + capsys.readouterr().out


@every_damage
def test_a_run_reports_the_same_or_names_the_damaged_file(run, tmp_path, capsys, damage, trials):
    rng, corpus = np.random.default_rng(0), tiny.corpus(21)
    config, wanted = configuration.read(run), outcome(run)
    copy, refused = tmp_path / "run", 0
    outside = [name for name in names(run) if "checkpoints" not in name.parts]
    assert len(outside) == 4 + 3 * 6
    for name in outside:
        for _ in range(trials):
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(run, copy)
            damage(copy / name, rng)
            given, said = attempt(lambda: report.run(config, corpus, copy), copy / name, capsys)
            if given is None:
                refused += 1
                assert "damaged" in said or damage is remove
                continue
            told = "MISSING FOLDS" in said  # that is what a fold without predictions.csv is
            assert outcome(copy) == wanted or told or name.name == "config.json", name
    # All but the configs, which are given, and the reports, which are made anew. A fold without
    # predictions.csv is not done, and one without checksums.json is taken as it is.
    taken = 3 + 3 * 2 * (damage is remove)
    assert refused >= (len(outside) - taken) * trials - 1


@once
@pytest.mark.usefixtures("tiny_weights")
def test_starting_again_makes_what_was_damaged_anew(run, run_copy, capsys, damage):
    """Whatever file of a fold it is, but for its model, which is only read to predict."""
    rng, corpus, wanted = np.random.default_rng(1), tiny.corpus(21), outcome(run)
    config, copy = configuration.read(run), run_copy
    files_of_folds = [n for n in names(run) if n.parts[0] == "fold_01" and len(n.parts) == 2]
    assert len(files_of_folds) == 6
    for name in files_of_folds:
        damage(copy / name, rng)
    assert train.run(config, corpus, copy)
    said = capsys.readouterr().out
    assert f"{copy / 'fold_01'}/" in said
    assert "and is made anew" in said or damage is remove
    assert outcome(copy) == wanted


@every_damage
def test_a_model_loads_the_same_or_is_named(run, tmp_path, capsys, damage, trials):
    rng, copy = np.random.default_rng(2), tmp_path / "fold_00"
    config, _, variables = network.load(run / "fold_00" / "checkpoints")
    inside = [name for name in names(run / "fold_00") if name.name in (CARD, MODEL)]
    assert len(inside) == 2
    for name in inside:
        for _ in range(trials):
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(run / "fold_00", copy)
            damage(copy / name, rng)
            given, _ = attempt(lambda: network.load(copy / "checkpoints"), copy / name, capsys)
            if given is not None:
                assert given[0] == config
                jax.tree.map(np.testing.assert_array_equal, given[2], variables)


@pytest.fixture(scope="module")
def setup(narrow):
    return tiny.setup(tiny.run_config(**{"train.epochs": 4}))


@pytest.fixture(scope="module")
def undisturbed(setup, tmp_path_factory):
    """What an undisturbed fold predicts."""
    return tiny.train_fold(setup, 0, FOLD, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="module")
def begun(setup, tmp_path_factory):
    """A fold that SIGTERM has ended in its fourth epoch, with its latest and its best epochs."""
    folder, steps, train_step = tmp_path_factory.mktemp("begun"), [], setup.steps_for(ONE_MODEL)[0]

    def step(*arguments):
        steps.append(None)
        return train_step(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutdown, "sigterm_received", lambda: len(steps) > 3 * 2)  # two an epoch
        with pytest.raises(shutdown.Interrupted):
            tiny.train_fold(stepping(setup, step), 0, FOLD, folder)
    return folder


@once
def test_training_goes_back_to_what_is_whole_and_ends_with_the_same_bits(
    setup, undisturbed, begun, tmp_path, capsys, damage
):
    rng, copy = np.random.default_rng(3), tmp_path / "run"
    inside = [name for name in names(begun) if "checkpoints" in name.parts]
    assert {"4", "3"} <= {name.parts[2] for name in inside}
    for name in inside:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(begun, copy)
        damage(copy / name, rng)
        capsys.readouterr()
        predicted = tiny.train_fold(setup, 0, FOLD, copy)
        said = capsys.readouterr().out
        jax.tree.map(np.testing.assert_array_equal, predicted, undisturbed)
        if "going on after epoch 3 and 1 step " not in said:
            assert str(copy / "fold_00" / "checkpoints" / name.parts[2]) in said
            assert "going back to epoch" in said or "the fold starts anew" in said


def test_the_epoch_before_takes_the_place_of_a_damaged_latest(begun, tmp_path):
    shutil.copytree(begun, tmp_path / "run")
    inside = tmp_path / "run" / "fold_00" / "checkpoints"
    path = inside / "4" / "progress" / "metadata"
    for seed in range(2):  # damaged once more, it takes the place of what was put aside
        flip(path, np.random.default_rng(seed))
        damaged = path.read_bytes()
        epochs = Epochs(inside)
        epochs.close()
        assert epochs.latest == 3
        assert str(inside / "4") in epochs.notice
        assert (inside / "4.damaged" / "progress" / "metadata").read_bytes() == damaged
        shutil.copytree(begun / "fold_00" / "checkpoints" / "4", inside / "4")


def test_without_a_whole_epoch_the_fold_starts_anew(setup, undisturbed, begun, tmp_path, capsys):
    shutil.copytree(begun, tmp_path / "run")
    inside = tmp_path / "run" / "fold_00" / "checkpoints"
    for path in inside.glob("*/progress/metadata"):
        cut(path, np.random.default_rng(5))
    predicted = tiny.train_fold(setup, 0, FOLD, tmp_path / "run")
    _, *said = capsys.readouterr().out.splitlines()  # after the line on learning curves
    assert "the fold starts anew" in said[0]
    assert said[1].startswith("fold 0 epoch 1/4")
    jax.tree.map(np.testing.assert_array_equal, predicted, undisturbed)


@pytest.mark.usefixtures("tiny_weights")
@pytest.mark.parametrize("earlier", [False, True], ids=["damaged", "of an earlier version"])
def test_a_model_that_cannot_be_read_is_made_of_what_was_kept(run, run_copy, capsys, earlier):
    """Where its predictions are damaged, too, or were deleted as an error advises."""
    inside = run_copy / "fold_01" / "checkpoints"
    if earlier:
        shutil.rmtree(inside)
        (inside / "1" / "variables").mkdir(parents=True)
    else:
        cut(inside / MODEL, np.random.default_rng(6))
    (run_copy / "fold_01" / "predictions.csv").unlink()
    assert train.run(configuration.read(run), tiny.corpus(21), run_copy)
    said = capsys.readouterr().out
    assert ("1 is of an earlier version" if earlier else f"{MODEL} is damaged") in said
    assert ("the fold starts anew" if earlier else "going back to epoch 1") in said
    assert outcome(run_copy) == outcome(run)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("metadata", errno.EIO),
        ("metadata", errno.EMFILE),
        (CARD, errno.ESTALE),
        (MODEL, errno.EACCES),
    ],
)
def test_what_cannot_be_read_for_now_is_left_as_it_is(
    run, begun, tmp_path, monkeypatch, name, error
):
    source, number = (begun, 0) if name == "metadata" else (run, 1)
    shutil.copytree(source, tmp_path / "run")
    inside = tmp_path / "run" / f"fold_{number:02}" / "checkpoints"
    before = {path: path.read_bytes() for path in inside.rglob("*") if path.is_file()}
    open_file = io.open

    def failing(file, *arguments, **options):
        if Path(str(file)).name == name and inside in Path(str(file)).parents:
            raise OSError(error, os.strerror(error), str(file))
        return open_file(file, *arguments, **options)

    actions = [lambda: Epochs(inside)]
    if source is run:
        actions.append(lambda: network.load(inside))
    for action in actions:
        with monkeypatch.context() as patch:
            patch.setattr(io, "open", failing)  # what pathlib calls
            with pytest.raises(OSError, match=os.strerror(error)):
                action()
        assert {path: path.read_bytes() for path in inside.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("error", [errno.EIO, errno.EMFILE, errno.ELOOP])
def test_what_tensorstore_cannot_read_for_now_is_left_as_it_is(begun, tmp_path, monkeypatch, error):
    """The last of the errors is real: a file is a link to itself."""

    def restore(self, directory, args):
        text = f'UNKNOWN: Failed to open: "{directory}": {os.strerror(error)}'
        raise ValueError(f"{text} [os_error_code='{error}']")

    inside = shutil.copytree(begun, tmp_path / "run") / "fold_00" / "checkpoints"
    if error == errno.ELOOP:
        path = max(inside.glob("4/state/**/d/*"), key=lambda path: path.stat().st_size)
        path.unlink()
        path.symlink_to(path)
    else:
        monkeypatch.setattr(orbax.checkpoint.PyTreeCheckpointHandler, "restore", restore)
    with pytest.raises(OSError, match=os.strerror(error)):
        Epochs(inside)
    assert not list(inside.glob("*.damaged"))


@pytest.mark.parametrize("damage", [cut, remove])
def test_damage_in_a_folder_that_is_named_like_an_error_is_damage(begun, tmp_path, damage):
    inside = shutil.copytree(begun, tmp_path / "Permission denied") / "fold_00" / "checkpoints"
    for path in inside.glob("4/state/**/d/*"):  # some parts of some files are read by nobody
        damage(path, np.random.default_rng(7))
    with contextlib.closing(Epochs(inside)) as epochs:
        assert str(inside / "4") in epochs.notice
        assert epochs.latest == 3


def test_remains_of_an_epoch_that_was_being_deleted_are_no_damage(begun, tmp_path):
    inside = shutil.copytree(begun, tmp_path / "run") / "fold_00" / "checkpoints"
    (inside / "0" / "state").mkdir(parents=True)
    (inside / "0" / "state" / "manifest.ocdbt").write_bytes(b"half")
    epochs = Epochs(inside)
    epochs.close()
    assert epochs.notice == ""
    assert not (inside / "0").exists()


def test_damaged_folds_and_configs_are_refused_with_the_way_out(run, run_copy):
    for name in ("folds.json", "config.json"):
        content = files.read_json(run / name)
        whole = (run / name).read_text()
        (run_copy / name).write_text(whole.replace('"seed": 0', '"seed": 1'))
        with pytest.raises(ValueError, match=f"{name} is damaged: .*take its field .checksum. out"):
            files.read_json(run_copy / name)
        files.write_json(run_copy / name, content)  # as if the field was taken out
        assert files.read_json(run_copy / name) == content
