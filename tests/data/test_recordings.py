"""Arguments lead to recordings, which are read in order, ahead of need and in little memory."""

import io
import os
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from recordings import sound, sounds

from ds_jax.data import recordings
from ds_jax.data.recordings import Recording, Window
from ds_jax.features import extract
from ds_jax.features.audio import Windowing
from ds_jax.features.extract import FeatureSettings
from ds_jax.features.spectrogram import PictureSettings

SETTINGS = PictureSettings(canvas=16)
WHOLE = Windowing()
BATCH = 32


def found(*arguments):
    """Titles of recordings, and the reasons of arguments that lead to none."""
    files, unusable = recordings.find(arguments)
    return [one.title for one in files], [one.reason for one in unusable]


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    audio = ("b/2.wav", "b/10.FLAC", "b/deep/er/1.wav", "a/niño con tilde.wav", "top.wav")
    for name in (*audio, "b/notes.txt", "b/.hidden.wav", "b/.git/1.wav", "a/1.wav.part"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


@pytest.mark.usefixtures("tree")
def test_folders_are_searched_at_any_depth_in_order():
    below = ["b/10.FLAC", "b/2.wav", "b/deep/er/1.wav"]
    assert found("b") == (below, [])
    assert found(".") == (["a/niño con tilde.wav", *below, "top.wav"], [])
    assert found("top.wav", "b", "a") == (["top.wav", *below, "a/niño con tilde.wav"], [])
    assert found("b/notes.txt", "-") == (["b/notes.txt", "-"], [])  # by name, whatever its ending


@pytest.mark.usefixtures("tree")
def test_a_home_folder_is_meant(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert found("~/top.wav", Path("~/b/*.wav")) == (
        [f"{tmp_path}/{x}.wav" for x in ("top", "b/2")],
        [],
    )


@pytest.mark.usefixtures("tree")
def test_patterns_match_files_and_folders():
    assert found("*/*.wav") == (["a/niño con tilde.wav", "b/2.wav"], [])
    assert found("**/1.wav") == (["b/deep/er/1.wav"], [])
    assert found("b/d*") == (["b/deep/er/1.wav"], [])
    Path("b/[1].wav").touch()  # looks like a pattern, and is there
    assert found("b/[1].wav") == (["b/[1].wav"], [])


@pytest.mark.usefixtures("tree")
def test_an_argument_that_leads_to_nothing_has_a_reason():
    Path("empty").mkdir()
    files, (folder, pattern, file) = found("empty", "x*/*.wav", "none.wav", "top.wav")
    assert files == ["top.wav"]
    assert folder.startswith("empty holds no audio")
    assert pattern.startswith("x*/*.wav: no file or folder matches")
    assert file.startswith("none.wav: there is no such file")


@pytest.mark.usefixtures("tree")
def test_files_that_folders_hold_besides_recordings_are_named(capsys):
    for name in ("b/memo", "b/deep/1.CHUNK", *(f"a/{number:02}.lab" for number in range(7))):
        Path(name).touch()
    assert len(found(".", "b", "b/memo")[0]) == 9
    (note,) = capsys.readouterr().out.splitlines()
    assert ".hidden" not in note  # nor what is given by its name
    assert "memo" not in note
    for group in ("1 of .part (a/1.wav.part)", "1 of .chunk (b/deep/1.CHUNK)", "7 of .lab (a/00.l"):
        assert group in note
    found("b")
    assert "1 without a suffix (b/memo)" in capsys.readouterr().out
    assert found("b/10.FLAC", "b/deep/er") == (["b/10.FLAC", "b/deep/er/1.wav"], [])
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("tree")
def test_links_are_followed_and_circles_end():
    Path("b/deep/back").symlink_to(Path("b").absolute())
    Path("b/itself").symlink_to(".")
    Path("linked").symlink_to("b")
    Path("b/gone.wav").symlink_to("nowhere.wav")
    assert found("b")[0] == ["b/10.FLAC", "b/2.wav", "b/deep/er/1.wav", "b/gone.wav"]
    assert len(found("linked")[0]) == 4


@pytest.mark.usefixtures("tree")
@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_folder_that_cannot_be_read_is_named():
    Path("b/deep").chmod(0)
    files, reasons = found("b")
    Path("b/deep").chmod(0o700)
    assert files == ["b/10.FLAC", "b/2.wav"]
    assert [reason.partition(" ")[0] for reason in reasons] == ["b/deep"]


def test_names_of_any_bytes_can_be_shown(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.wav")
    Path(path).touch()
    ((one,), _) = recordings.find([tmp_path])
    assert one.title == f"{tmp_path}/\\xff.wav"
    assert one.path.is_file()


def test_standard_input_is_kept_while_it_is_read(monkeypatch):
    class Input:
        buffer = io.BytesIO(b"any bytes")

    monkeypatch.setattr("sys.stdin", Input)
    files, _ = recordings.find(["-"])
    with recordings.standard_input(files) as (one,):
        assert (one.title, one.path.read_bytes()) == ("-", b"any bytes")
    assert not one.path.exists()
    with (
        pytest.raises(ValueError, match="more than once"),
        recordings.standard_input(recordings.find(["-", "-"])[0]),
    ):
        pass


def process(files, settings=SETTINGS, windowing=WHOLE, start=None):
    """All windows with their results, what was unusable, and the shape of each batch."""
    unusable, shapes, done = [], [], []

    def double(inputs, width):
        shapes.append((len(inputs), width))
        return lambda: inputs * 2.0

    for batch, result in recordings.process(
        files, settings, windowing, BATCH, start or double, unusable, quiet=True
    ):
        done += zip(batch, result, strict=True)
    return done, unusable, shapes


def test_recordings_keep_their_order_and_their_results_in_batches_of_one_shape(tmp_path):
    files = [sound(tmp_path / f"{n:03}.wav", n, 0.1 + 0.2 * (n % 3)) for n in range(75)]
    done, unusable, shapes = process(recordings.find([tmp_path])[0])
    assert [window.recording.path for window, _ in done] == files
    assert unusable == []
    assert shapes == [(32, 32), (32, 32), (11, 32)]
    assert process(recordings.find(files[:1])[0])[2] == [(1, 1)]  # few are not padded
    for window, result in done:
        _, (picture,), _ = extract.read(window.recording.path, SETTINGS)
        np.testing.assert_array_equal(window.represented, picture)
        np.testing.assert_array_equal(result, 2.0 * picture)


def test_windows_of_long_and_short_recordings_follow_each_other(tmp_path):
    seconds = {"a": 0.1, "b": 4.05, "c": 0.3, "d": 1.6}  # of 16 windows, of less, and of more
    for name, length in seconds.items():
        sound(tmp_path / f"{name}.wav", seconds=length)
    done, _, _ = process(recordings.find([tmp_path])[0], windowing=Windowing(0.2, 0.1))
    starts = [window.start for window, _ in done if window.recording.path.stem == "b"]
    assert starts == pytest.approx([0.1 * k for k in range(40)])
    stems = [window.recording.path.stem for window, _ in done]
    assert stems == ["a"] + ["b"] * 40 + ["c"] * 3 + ["d"] * 16


def test_unusable_recordings_are_named_and_the_others_are_done(tmp_path):
    sounds(tmp_path, "a.wav", "e.wav")
    (tmp_path / "b.wav").write_text("no audio")
    (tmp_path / "c.wav").touch()
    (tmp_path / "d.wav").mkdir()
    files = [*recordings.find([tmp_path])[0], Recording(Path("-"), Path(), "-")]
    done, unusable, _ = process(files)
    assert [window.recording.path.stem for window, _ in done] == ["a", "e"]
    assert [one.title for one in unusable] == [f"{tmp_path}/b.wav", f"{tmp_path}/c.wav", "-"]
    assert recordings.complaint(unusable).count("\n") == 3  # a head, and a line for each
    assert recordings.complaint(unusable[1:2]) == unusable[1].reason


def test_a_window_that_cannot_be_used_is_named_by_its_time(tmp_path, monkeypatch):
    def windows(*_):
        yield 1.5, 0.0, 1.0, 16_000, np.zeros((16, 16), np.uint8)
        yield 1.5, 1.0, 1.5, 16_000, ValueError("nothing to hear")

    monkeypatch.setattr(extract, "windows", windows)
    done, unusable, _ = process(
        [Recording(Path("a.wav"), Path(), "a.wav")], windowing=Windowing(1.0)
    )
    assert len(done) == 1
    ((title, reason),) = unusable
    assert title == "a.wav"
    assert re.fullmatch(r"a\.wav .*1\.00 .*1\.50 .*nothing to hear", reason)


def test_sequences_have_few_lengths(tmp_path):
    for number in range(20):
        sound(tmp_path / f"{number:02}.wav", seconds=0.5 + number / 50)
    lengths = []

    def start(inputs, width):
        lengths.append(inputs.shape[1])
        return lambda: np.isfinite(inputs[..., 0]).sum(axis=1)

    done, _, _ = process(
        recordings.find([tmp_path])[0], FeatureSettings("mfcc_frames"), start=start
    )
    assert set(lengths) <= {64, 128, 256}
    assert [int(n) for _, n in done] == [len(window.represented) for window, _ in done]


def test_reading_goes_on_ahead_but_not_far(tmp_path, monkeypatch):
    """While a batch is in progress, a bounded number of others are read."""
    begun, lock = [], threading.Lock()

    def windows(path, *_):
        with lock:
            begun.append(path)
        yield 1.5, 0.0, 1.0, 16_000, np.zeros((16, 16), np.uint8)

    monkeypatch.setattr(extract, "windows", windows)
    files = [Recording(Path(f"{number}.wav"), Path(), str(number)) for number in range(200)]
    taken = 0
    for batch, _ in recordings.process(files, SETTINGS, WHOLE, 4, lambda x, _: lambda: x, [], True):
        taken += len(batch)
        deadline = time.monotonic() + 10
        while len(begun) < min(200, taken + 8) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert min(200, taken + 8) <= len(begun) <= taken + 12
    assert taken == 200


def test_a_caller_that_stops_early_leaves_no_thread(tmp_path):
    for number in range(70):
        sound(tmp_path / f"{number:02}.wav")
    before = threading.active_count()
    rows = recordings.process(
        recordings.find([tmp_path])[0], SETTINGS, WHOLE, BATCH, lambda x, _: lambda: x, [], True
    )
    assert isinstance(next(rows)[0][0], Window)
    rows.close()
    assert threading.active_count() == before
