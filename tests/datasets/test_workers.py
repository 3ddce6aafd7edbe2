"""Workers draw recordings on all cores, in order and in bounded memory."""

import errno
import io
import multiprocessing
import os
import signal
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path

import loky
import numpy as np
import PIL.Image
import pytest
from recordings import SMALL, sound, sounds

from datasets import base, workers
from ds_jax.features import extract
from ds_jax.features.source import Source
from ds_jax.features.spectrogram import PictureSettings


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (16, 16), (227, 227), (300, 301), (1, 70_000)])
def test_a_png_is_the_picture(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for picture in (pixels, np.zeros_like(pixels), pixels.T):
        with PIL.Image.open(io.BytesIO(workers.png(picture))) as image:
            assert (image.format, image.mode) == ("PNG", "L")
            image.verify()  # its checksums
        with PIL.Image.open(io.BytesIO(workers.png(picture))) as image:
            np.testing.assert_array_equal(np.asarray(image), picture)


def test_records_are_hardly_larger_than_of_compressed_pngs(tmp_path):
    recording = sound(tmp_path / "a.wav", 0, 3.0)
    pixels = extract.read(recording, PictureSettings())[1][0]
    compressed = io.BytesIO()
    PIL.Image.fromarray(pixels).save(compressed, "PNG")
    sizes = []
    for name, png in (("ours", workers.png(pixels)), ("compressed", compressed.getvalue())):
        base.RecordWriter(None).write(tmp_path / name, [(0, png)] * 100)
        sizes.append((tmp_path / name).stat().st_size)
    assert sizes[0] < 1.1 * sizes[1]


def test_an_outcome_is_what_is_stored_or_the_reason_without_the_name(tmp_path):
    path, settings = sound(tmp_path / "a.wav", 0, 1.0), PictureSettings(canvas=16, window=0.4)
    source = Source(path)
    seconds, pngs, digest, remarks = workers.represent(source, settings)
    assert remarks == []
    drawn, read_digest = extract.read(path, settings)[1:]
    assert (seconds, pngs) == (1.0, [workers.png(picture) for picture in drawn])
    assert digest == read_digest
    seconds, arrays, *_ = workers.represent(source, extract.FeatureSettings("mfcc"))
    assert (seconds, arrays[0].dtype, arrays[0].shape) == (1.0, np.float32, (60,))
    (tmp_path / "b.wav").touch()
    reason = workers.represent(Source(tmp_path / "b.wav"), SMALL)
    assert "empty" in reason
    assert "b.wav" not in reason


def test_processes_keep_the_order(tmp_path, monkeypatch):
    monkeypatch.setattr(loky, "cpu_count", lambda: 2)
    monkeypatch.setattr(workers, "AHEAD", 1)
    names = [f"{number}.wav" for number in range(11)]
    sounds(tmp_path, *names)
    sound(tmp_path / "1.wav", 1, seconds=10)  # the others overtake it
    (tmp_path / "6.wav").touch()
    sources = [Source(tmp_path / name) for name in names]
    alone = [workers.represent(source, SMALL) for source in sources]
    monkeypatch.setattr(workers, "represent", None)  # not to be called in this process
    assert list(workers.represent_all(sources, SMALL)) == alone


class Idle:
    """An executor without processes that counts its batches."""

    batches = 0

    def submit(self, function, batch, settings) -> Future:
        self.batches += 1
        future = Future()
        future.set_result([str(source) for source in batch])
        return future


@pytest.mark.parametrize(("cores", "recordings"), [(2, 1000), (3, 1003), (64, 5), (2, 5)])
def test_a_bounded_number_is_in_memory_and_none_is_lost(monkeypatch, cores, recordings):
    idle = Idle()
    monkeypatch.setattr(loky, "cpu_count", lambda: cores)
    monkeypatch.setattr(loky, "get_reusable_executor", lambda *args, **kwargs: idle)
    sources = [Source(Path(str(number))) for number in range(recordings)]
    ahead = cores * workers.AHEAD * workers.BATCH
    for taken, outcome in enumerate(workers.represent_all(sources, SMALL)):
        assert outcome == str(taken)
        assert idle.batches * workers.BATCH <= taken + ahead
    assert taken == recordings - 1


def test_an_interrupt_reaches_the_caller_alone_and_ends_the_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(loky, "cpu_count", lambda: 2)
    count = 3 * workers.BATCH
    sources = [Source(sound(tmp_path / f"{number:02}.wav", number)) for number in range(count)]
    outcomes = workers.represent_all(sources, SMALL)
    next(outcomes)
    executor = loky.get_reusable_executor(reuse=True)
    assert executor.submit(signal.getsignal, signal.SIGINT).result() == signal.SIG_IGN
    started = list(executor._processes.values())
    with pytest.raises(KeyboardInterrupt):
        outcomes.throw(KeyboardInterrupt())
    assert started
    assert not any(process.is_alive() for process in started)


def test_a_killed_worker_is_an_error_that_names_its_recordings(tmp_path, monkeypatch):
    def end(paths, wanted):  # a local function, so that the worker imports no test
        os.kill(os.getpid(), 9)

    monkeypatch.setattr(loky, "cpu_count", lambda: 2)
    monkeypatch.setattr(workers, "_represent_batch", end)
    sources = [Source(tmp_path / f"{number}.wav") for number in range(9)]
    with pytest.raises(OSError, match=r"/0\.wav or one of the next"):
        list(workers.represent_all(sources, SMALL))


@pytest.mark.parametrize("number", [errno.EROFS, errno.EAGAIN, errno.EMFILE])
def test_where_processes_cannot_be_started_one_works_alone(tmp_path, monkeypatch, capsys, number):
    """Shared memory is named as the reason where it is."""
    paths = [sound(tmp_path / f"{number}.wav", number, 0.2) for number in range(9)]

    def refuse(*arguments, **options):
        raise OSError(number, "the reason")

    monkeypatch.setattr(loky, "cpu_count", lambda: 2)
    monkeypatch.setattr(loky, "get_reusable_executor", refuse)
    alone = [workers.represent(path, SMALL) for path in paths]
    assert list(workers.represent_all(paths, SMALL)) == alone
    assert "others cannot be started (the reason)" in capsys.readouterr().out
    monkeypatch.setattr(multiprocessing.get_context("spawn"), "Lock", refuse, raising=False)
    assert list(workers.represent_all(paths[:5], SMALL)) == alone[:5]
    expected = "cannot be started" if number == errno.EMFILE else "need /dev/shm"
    assert f"others {expected} (the reason)" in capsys.readouterr().out


def test_one_core_needs_no_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(loky, "cpu_count", lambda: 1)
    monkeypatch.setattr(loky, "get_reusable_executor", None)  # calling it would fail
    sounds(tmp_path, *(f"{number}.wav" for number in range(9)))
    sources = [Source(path) for path in sorted(tmp_path.iterdir())]
    expected = [workers.represent(source, SMALL) for source in sources]
    assert list(workers.represent_all(sources, SMALL)) == expected


def test_workers_import_neither_tfds_nor_jax(tmp_path):
    program = f"""
import sys
from pathlib import Path
from datasets import workers
from ds_jax.features.audio import Source
from ds_jax.features.spectrogram import PictureSettings
workers.represent(Source(Path({str(sound(tmp_path / "a.wav"))!r})), PictureSettings())
print(sorted({{"jax", "tensorflow_datasets", "tensorflow", "matplotlib"}} & set(sys.modules)))
"""
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert (run.stdout, run.returncode) == ("[]\n", 0), run.stderr
