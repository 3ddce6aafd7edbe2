"""Files of a run are damaged at random: nothing is silently wrong.

What comes out is what came out before, or an error names the damaged file.
"""

import errno
import io
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from ds_jax import config as configuration
from ds_jax.commands import report, train
from ds_jax.runtime import files
from ds_jax.systems import base as systems
from ds_jax.systems import network
from ds_jax.training.checkpoints import Checkpoints

pytestmark = pytest.mark.usefixtures("narrow")

FOLD = tiny.fold(range(11), range(11, 14), range(14, 16))


def flip(path, rng):
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    path.write_bytes(content)


def cut(path, rng):
    path.write_bytes(path.read_bytes()[: rng.integers(path.stat().st_size)])


def remove(path, rng):
    path.unlink()


every_damage = pytest.mark.parametrize(
    ("damage", "trials"),
    [
        pytest.param(flip, 2, id="bit"),
        pytest.param(cut, 2, id="cut"),
        pytest.param(remove, 1, id="missing"),
        pytest.param(flip, 40, id="bits", marks=pytest.mark.slow),
        pytest.param(cut, 40, id="cuts", marks=pytest.mark.slow),
    ],
)
once = pytest.mark.parametrize("damage", [flip, cut, remove])


def names(run):
    """All that a finished run holds, except for what TensorBoard reads and locks."""
    aside = ("tensorboard", "fold.lock", "run.lock")
    found = (path.relative_to(run) for path in run.rglob("*") if path.is_file())
    return sorted(path for path in found if not set(path.parts) & set(aside))


def outcome(run):
    kept = ("folds.json", "report.json", "report.html", "fold_*/predictions*.csv", "fold_*/gates*")
    paths = [path for name in kept for path in sorted(run.glob(name))]
    return {path.relative_to(run): path.read_bytes() for path in paths}


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
def test_starting_again_makes_what_was_damaged_anew(run, tmp_path, capsys, damage, monkeypatch):
    """Whatever file of a fold it is, but for its checkpoints: they are only read when judging."""
    monkeypatch.setattr(systems.weights, "load", lambda path, full: tiny.pretrained())
    rng, corpus, wanted = np.random.default_rng(1), tiny.corpus(21), outcome(run)
    config, copy = configuration.read(run), tmp_path / "run"
    shutil.copytree(run, copy)
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
def test_a_checkpoint_loads_the_same_or_is_named(run, tmp_path, capsys, damage, trials):
    rng, copy = np.random.default_rng(2), tmp_path / "fold_00"
    config, _, variables = network.load(run / "fold_00" / "checkpoints")
    inside = [name for name in names(run / "fold_00") if "checkpoints" in name.parts]
    for name in inside:
        for _ in range(trials):
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(run / "fold_00", copy)
            damage(copy / name, rng)
            place = Path(*name.parts[:2])  # its epoch's folder
            given, said = attempt(
                lambda: network.load(copy / "checkpoints"), copy / place / "x", capsys
            )
            if given is None:
                assert "start the training again" in said
                continue
            assert given[0] == config
            jax.tree.map(np.testing.assert_array_equal, given[2], variables)
            # Its optimizer is not read here, and what Orbax itself keeps does not matter.
            assert {"optimizer", "commit_success.txt", "_CHECKPOINT_METADATA"} & set(
                name.parts
            ) or name.name in ("checksums.json", "metrics")


@pytest.fixture(scope="module")
def experiment(narrow):
    config = tiny.config()
    config.train.epochs = 4
    return tiny.experiment(config)


@pytest.fixture(scope="module")
def trained(experiment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    judgement = tiny.train_fold(experiment, 0, FOLD, folder)
    return folder, judgement


@once
def test_training_goes_back_to_what_is_whole_and_ends_with_the_same_bits(
    experiment, trained, tmp_path, capsys, damage
):
    folder, wanted = trained
    rng, copy = np.random.default_rng(3), tmp_path / "run"
    inside = [n for n in names(folder) if "checkpoints" in n.parts]
    epochs = sorted({int(name.parts[2]) for name in inside})
    assert len(epochs) > 1
    for name in inside:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        damage(copy / name, rng)
        capsys.readouterr()
        judgement = tiny.train_fold(experiment, 0, FOLD, copy)
        said = capsys.readouterr().out
        jax.tree.map(np.testing.assert_array_equal, judgement, wanted)
        if f"going on after epoch {epochs[-1]}" not in said:
            assert str(copy / "fold_00" / "checkpoints" / name.parts[2]) in said
            assert "going back to epoch" in said or "the fold starts anew" in said
        with Checkpoints(copy / "fold_00" / "checkpoints") as checkpoints:
            assert checkpoints.latest == 4


def test_the_epoch_before_takes_the_place_of_a_damaged_latest(
    experiment, trained, tmp_path, capsys
):
    shutil.copytree(trained[0], tmp_path / "run")
    inside = tmp_path / "run" / "fold_00" / "checkpoints"
    before, latest = sorted(int(path.name) for path in inside.iterdir())[-2:]
    path = inside / str(latest) / "variables" / "arrays.safetensors"
    flip(path, np.random.default_rng(4))
    damaged = path.read_bytes()
    tiny.train_fold(experiment, 0, FOLD, tmp_path / "run")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == (
        f"fold 0 {path} is damaged: it is not as it was written: going back to epoch {before}; "
        "what comes later is kept as *.damaged"
    )
    assert said[1] == f"fold 0 going on after epoch {before} from {inside}"
    aside = inside / f"{latest}.damaged" / "variables" / "arrays.safetensors"
    assert aside.read_bytes() == damaged
    flip(path, np.random.default_rng(5))  # of the same epoch, once more
    again = path.read_bytes()
    tiny.train_fold(experiment, 0, FOLD, tmp_path / "run")
    assert aside.read_bytes() == again
    assert "going back" not in capsys.readouterr().out.splitlines()[-1]
    with Checkpoints(inside) as checkpoints:
        assert (checkpoints.latest, checkpoints.notice) == (4, "")


def test_without_a_whole_epoch_the_fold_starts_anew(experiment, trained, tmp_path, capsys):
    shutil.copytree(trained[0], tmp_path / "run")
    inside = tmp_path / "run" / "fold_00" / "checkpoints"
    for path in inside.glob("*/variables/arrays.safetensors"):
        cut(path, np.random.default_rng(5))
    judgement = tiny.train_fold(experiment, 0, FOLD, tmp_path / "run")
    said = capsys.readouterr().out.splitlines()
    assert "it is not as it was written: the fold starts anew" in said[0]
    assert said[1].startswith("fold 0 epoch 1/4")
    jax.tree.map(np.testing.assert_array_equal, judgement, trained[1])


@pytest.mark.parametrize("error", [errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE])
@pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "checksums.json", "arrays.safetensors"])
def test_what_cannot_be_read_for_now_is_left_as_it_is(
    experiment, trained, tmp_path, monkeypatch, name, error
):
    shutil.copytree(trained[0], tmp_path / "run")
    inside = tmp_path / "run" / "fold_00" / "checkpoints"
    before = {path: path.read_bytes() for path in inside.rglob("*") if path.is_file()}
    open_file = io.open

    def failing(file, *arguments, **options):
        if Path(str(file)).name == name and inside in Path(str(file)).parents:
            raise OSError(error, os.strerror(error), str(file))
        return open_file(file, *arguments, **options)

    for trains in (True, False):
        with monkeypatch.context() as patch:
            patch.setattr(io, "open", failing)  # what pathlib calls
            with pytest.raises(OSError, match=os.strerror(error)):
                inference_or_training(trains, experiment, tmp_path / "run")
        assert {path: path.read_bytes() for path in inside.rglob("*") if path.is_file()} == before


def inference_or_training(trains, experiment, workdir):
    if trains:
        return tiny.train_fold(experiment, 0, FOLD, workdir)
    return network.load(workdir / "fold_00" / "checkpoints")


def test_remains_of_an_epoch_that_was_being_deleted_are_not_told(
    experiment, trained, tmp_path, capsys
):
    shutil.copytree(trained[0], tmp_path / "run")
    inside = tmp_path / "run" / "fold_00" / "checkpoints"
    left = inside / "1" / "variables"
    shutil.rmtree(inside / "1", ignore_errors=True)
    left.mkdir(parents=True)
    (left / "arrays.safetensors").write_bytes(b"half")
    tiny.train_fold(experiment, 0, FOLD, tmp_path / "run")
    assert "damaged" not in capsys.readouterr().out
    assert not (inside / "1").exists()


def test_damaged_folds_and_configs_are_refused_with_the_way_out(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    for name in ("folds.json", "config.json"):
        content = files.read_json(run / name)
        whole = (run / name).read_text()
        (tmp_path / "run" / name).write_text(whole.replace('"seed": 0', '"seed": 1'))
        with pytest.raises(ValueError, match=f"{name} is damaged: .*take its field .checksum. out"):
            files.read_json(tmp_path / "run" / name)
        files.write_json(tmp_path / "run" / name, content)  # as if it was taken out
        assert files.read_json(tmp_path / "run" / name) == content
