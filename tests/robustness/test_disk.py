"""A disk that is full, read-only or gone ends a run in a sentence; what was saved stays."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tiny
from recordings import sounds

from datasets.prepare import prepare
from ds_jax.commands import evaluate, report, train
from ds_jax.evaluation import summary
from ds_jax.features.spectrogram import PictureSettings
from ds_jax.runtime import errors, files
from ds_jax.systems import network
from ds_jax.training.checkpoints import CARD
from ds_jax.training.fold import FoldState

pytestmark = [pytest.mark.usefixtures("tiny_weights"), pytest.mark.slow]

CONFIG = tiny.run_config(**{"folds.count": 2, "train.epochs": 3})
FULL = "No space left on device"


@pytest.fixture
def disk(tmp_path):
    """An empty disk of four MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk, and not in every container")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path, room: int) -> Path:
    """Writes a file that leaves `room` bytes free, and returns its path."""
    state = os.statvfs(disk)
    filler = disk / "filler"
    filler.write_bytes(bytes(state.f_bavail * state.f_frsize - room))
    return filler


def run(workdir):
    return train.run(CONFIG, tiny.corpus(21), workdir)


def outcome(workdir):
    paths = [*workdir.glob("fold_*/predictions*.csv")]
    tables = {path.relative_to(workdir): path.read_bytes() for path in paths}
    return tables, summary.read(workdir / "report.json")


@pytest.fixture(scope="module")
def undisturbed(narrow, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    with tiny.given_weights():
        assert run(workdir)
    return workdir


@pytest.mark.parametrize("room", [0, 9000, *range(20_000, 800_000, 20_000)])
def test_a_full_disk_ends_a_run_that_goes_on_once_there_is_room(disk, undisturbed, room):
    filler = fill(disk, room)
    with pytest.raises(OSError, match=FULL) as raised:
        run(disk / "run")
    assert "\n" not in errors.sentence(raised.value)
    for card in (disk / "run").glob(f"fold_*/checkpoints/{CARD}"):  # its model is whole, and loads
        config, _, _ = network.load(card.parent)
        assert config.train.epochs == 3
    assert not list((disk / "run").glob("**/*.tmp"))
    filler.unlink()
    assert run(disk / "run")
    assert outcome(disk / "run") == outcome(undisturbed)


@pytest.mark.parametrize("room", [0, 4096, 12_288, 40_000])
def test_a_full_disk_leaves_nothing_half_prepared(disk, tmp_path, room):
    sounds(tmp_path / "emodb", "03a01Fa.wav", "03a02Fa.wav", "03a01Wa.wav")
    settings = PictureSettings()
    filler = fill(disk, room)
    with pytest.raises(OSError, match=f"(?s)/disk/.*{FULL}"):
        prepare("emodb", tmp_path, disk / "data", settings)
    assert not [path for path in (disk / "data").rglob("*") if "record" in path.name]
    filler.unlink()
    builder = prepare("emodb", tmp_path, disk / "data", settings)
    assert len(builder.as_data_source(split="full")) == 3


def test_a_read_only_disk_is_named_and_read(disk, undisturbed, tmp_path):
    shutil.copytree(undisturbed, disk / "run")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    corpus = tiny.corpus(21)
    sounds(tmp_path / "emodb", "03a01Fa.wav")
    for action in (
        lambda: run(disk / "run"),
        lambda: run(disk / "another"),
        lambda: report.run(CONFIG, corpus, disk / "run"),
        lambda: evaluate.run(disk / "run", corpus),
        lambda: prepare("emodb", tmp_path, disk / "data", PictureSettings()),
    ):
        with pytest.raises(OSError, match=r"disk/.*Read-only file system"):
            action()
    for number in range(2):
        path = Path(f"fold_{number:02}") / "checkpoints"
        inside = network.load(disk / "run" / path)[2]["params"]["head"]
        wanted = network.load(undisturbed / path)[2]["params"]["head"]
        np.testing.assert_equal(inside, wanted)


@pytest.mark.parametrize("folder", ["", "fold_00", "fold_00/checkpoints"])
def test_a_folder_that_vanishes_ends_a_run_that_can_be_started_again(
    undisturbed, tmp_path, monkeypatch, folder
):
    log, workdir = FoldState.log, tmp_path / "run"

    def vanish(fold):
        log(fold)
        if fold.epoch == 2:
            fold.checkpoints.restore(2)  # nothing is being saved any more
            shutil.rmtree(workdir / folder)

    with monkeypatch.context() as patch:
        patch.setattr(FoldState, "log", vanish)
        with pytest.raises(OSError, match=str(workdir)):
            run(workdir)
    assert run(workdir)
    assert outcome(workdir) == outcome(undisturbed)


def test_a_folder_without_permission_is_named():
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are closed to others
        os.chmod(place, 0o755)
        closed = Path(place, "closed")
        closed.mkdir(mode=0o555)
        root = os.geteuid() == 0
        if root:  # nothing is forbidden to root
            os.seteuid(65534)
        try:
            with pytest.raises(OSError, match=f"{closed}/a.txt .*Permission denied"):
                files.write_text(closed / "a.txt", "text")
            with pytest.raises(OSError, match=f"{closed} .*Permission denied"):
                files.check_writable(closed)
        finally:
            if root:
                os.seteuid(0)
        assert os.listdir(closed) == []
