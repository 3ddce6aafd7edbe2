"""Measures the time of pictures: this program against DeepSpectrum's way, and its parts.

    pip install -r benchmarks/requirements.txt
    python -m benchmarks.pictures
    python -m benchmarks.pictures --corpora_dir=corpora    # real recordings as well

Prints tables and writes JSON. DeepSpectrum's way is that of its version 0.6.9: librosa's mel
spectrogram at the rate of the file, painted by matplotlib and written as PNG. If DeepSpectrum keeps
the pictures, it paints each twice, for the file and for its network: the ratio counts one painting,
and another column counts two. DeepSpectrum also shrinks them to the network's input, which is not
counted here; this program leaves it to the device. This program's way is all of `datasets.prepare`,
or `spectrogram.draw` for decoded audio.

On one core the two ways take turns and are compared by the CPU time of this process, which other
programs disturb least. The generated recordings are tones and noise; they show times only.
"""

import contextlib
import io
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import librosa
import librosa.display
import matplotlib
import numpy as np
import PIL.Image
import soundfile
import threadpoolctl
from absl import app, flags, logging
from matplotlib import pyplot

from benchmarks.measuring import RESULTS
from datasets import base, prepare, workers
from ds_jax.features import audio, spectrogram
from ds_jax.features.spectrogram import PictureSettings
from ds_jax.runtime import files

_SECONDS = flags.DEFINE_float("seconds", 4.7, "length of the generated recordings", lower_bound=0.1)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "how often both ways take turns", lower_bound=1)
_CORPORA = flags.DEFINE_string("corpora_dir", "", "a folder of real corpora to measure as well")
_OUTPUT = flags.DEFINE_string("output", str(RESULTS / "pictures.json"), "JSON")

SETTINGS = PictureSettings()
GOALS = {"picture": 40, "record": 20}  # times as fast as DeepSpectrum's way, on one core
SAMPLE = 16  # recordings of a kind
COPIES = 32  # of each, which this program prepares on one core
COPIES_ALL_CORES = 64
DRAWINGS = 10  # of each recording in a round, by this program
# Suffix, rate in Hz, and channels of the generated recordings.
KINDS = {
    "wav, 16 kHz mono": (".wav", 16_000, 1),
    "flac, 16 kHz mono": (".flac", 16_000, 1),
    "wav, 48 kHz stereo": (".wav", 48_000, 2),
}


def generate(folder: Path, suffix: str, rate: int, channels: int) -> list[Path]:
    """Writes recordings of a gliding harmonic tone that comes and goes, in noise."""
    folder.mkdir()
    time = np.arange(int(_SECONDS.value * rate)) / rate
    paths = [folder / f"{number}{suffix}" for number in range(SAMPLE)]
    for number, path in enumerate(paths):
        rng = np.random.default_rng(number)
        phase = 2 * np.pi * np.cumsum(rng.uniform(90, 250) + 40 * np.sin(3 * time)) / rate
        tone = sum(np.sin(k * phase) / k for k in range(1, 20)) * np.maximum(0, np.sin(5 * time))
        noise = rng.normal(size=(len(time), channels))
        soundfile.write(path, 0.1 * tone[:, None] + 0.003 * noise, rate, subtype="PCM_16")
    return paths


def choose(folder: Path) -> list[Path]:
    """Selects recordings of a corpus, evenly from the shortest to the longest."""
    found = sorted(base.audio_files(folder), key=lambda path: path.stat().st_size)
    places = np.linspace(0, len(found) - 1, min(SAMPLE, len(found))).round().astype(int)
    return [found[place] for place in places]


def describe(paths: list[Path], copies: int, folder: Path) -> Path:
    """Makes a corpus of links to copies of the recordings, with a manifest."""
    lines = ["path,label,speaker"]
    for copy in range(copies):
        (folder / str(copy)).mkdir(parents=True)
        for number, path in enumerate(paths):
            name = f"{copy}/{number}{path.suffix}"
            (folder / name).symlink_to(path.absolute())
            lines.append(f"{name},NEUTRAL,nobody")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def paint(samples: np.ndarray, rate: int, *outputs) -> None:
    """Writes the picture as PNG to each output, as DeepSpectrum does."""
    n_fft = 1 << (int(rate * 0.025) - 1).bit_length()
    figure = pyplot.figure(frameon=False, figsize=(1, 1))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    frames = {"n_fft": n_fft, "hop_length": n_fft // 2, "center": False}
    power = librosa.feature.melspectrogram(y=samples, sr=rate, n_mels=128, **frames)
    librosa.display.specshow(
        librosa.power_to_db(power, ref=np.max, top_db=None),
        sr=rate,
        hop_length=n_fft // 2,
        fmax=rate / 2,
        cmap="viridis",
        x_axis="time",
        y_axis="mel",
        ax=axes,
    )
    for output in outputs:
        figure.savefig(output, format="png", dpi=SETTINGS.canvas)
    pyplot.close(figure)


def painted(samples: np.ndarray, rate: int) -> np.ndarray:
    """Returns the picture that DeepSpectrum paints, uint8 [canvas, canvas, 3]."""
    png = io.BytesIO()
    paint(samples, rate, png)
    with PIL.Image.open(png) as image:
        return np.asarray(image)[..., :3]


def paint_files(paths: list[Path], *outputs) -> None:
    """Writes the pictures of files as PNG, as DeepSpectrum does."""
    for path in paths:
        samples, rate = soundfile.read(path)
        paint(samples if samples.ndim == 1 else samples.sum(axis=1) / 2, rate, *outputs)


def prepare_all(folder: Path) -> None:
    """Prepares the records of a corpus, without the messages."""
    with tempfile.TemporaryDirectory() as data, contextlib.redirect_stdout(io.StringIO()):
        prepare.prepare(folder.name, folder.parent, Path(data), SETTINGS)


def share_unlike(samples: np.ndarray, rate: int) -> float:
    """Returns the share of pixels in which the pictures differ by more than 3 of 255."""
    colours = np.round(matplotlib.colormaps["viridis"](np.arange(256))[:, :3] * 255)
    ours = colours[spectrogram.draw(samples, rate, SETTINGS)]
    return float(np.mean(np.abs(ours - painted(samples, rate)).max(axis=2) > 3))


def cost(function: Callable, *args) -> float:
    """Returns the CPU milliseconds of one call."""
    start = time.process_time()
    function(*args)
    return 1000 * (time.process_time() - start)


def compare(theirs: Callable[[], float], ours: Callable[[], float], goal: int) -> dict:
    """Lets both ways take turns, the first time without counting; each returns milliseconds."""
    rounds = [(theirs(), ours()) for _ in range(_ROUNDS.value + 1)][1:]
    ratios = [their / our for their, our in rounds]
    return {
        "deepspectrum_ms": statistics.median(their for their, _ in rounds),
        "ours_ms": statistics.median(our for _, our in rounds),
        "ratio": statistics.median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "goal": goal,
    }


def to_picture(decoded: list[tuple[np.ndarray, int]]) -> dict:
    """Compares the ways from decoded audio to a picture in memory."""

    def theirs() -> float:
        return statistics.mean(cost(painted, *recording) for recording in decoded)

    def draw_all() -> None:
        for recording in decoded:
            for _ in range(DRAWINGS):
                spectrogram.draw(*recording, SETTINGS)

    def ours() -> float:
        return cost(draw_all) / DRAWINGS / len(decoded)

    found = compare(theirs, ours, GOALS["picture"])
    return found | {"unlike": max(share_unlike(*recording) for recording in decoded)}


def to_record(paths: list[Path], folder: Path) -> dict:
    """Compares the ways from a file to its stored record or PNG."""
    corpus, png = describe(paths, COPIES, folder / "corpus"), folder / "a.png"

    def theirs(*outputs) -> float:
        return cost(paint_files, paths, png, *outputs) / len(paths)

    def ours() -> float:
        return cost(prepare_all, corpus) / len(paths) / COPIES

    found = compare(theirs, ours, GOALS["record"])
    twice = statistics.median(theirs(io.BytesIO()) for _ in range(_ROUNDS.value))
    return found | {"painted_twice_ms": twice, "ratio_painted_twice": twice / found["ours_ms"]}


def parts(paths: list[Path], total: float) -> dict:
    """Divides this program's milliseconds for a record; writing is the remainder."""
    decoded = [audio.read(path, 0) for path in paths]
    resampled = [audio.read(path, SETTINGS.sample_rate) for path in paths]
    pictures = [spectrogram.draw(*recording, SETTINGS) for recording in resampled]

    def each(function: Callable, arguments: list[tuple]) -> float:
        def call_all() -> None:
            for given in arguments:
                function(*given)

        return statistics.median(cost(call_all) for _ in range(_ROUNDS.value)) / len(arguments)

    found = {"decode": each(audio.read, [(path, 0) for path in paths]), "resample": 0.0}
    if any(rate != SETTINGS.sample_rate for _, rate in decoded):
        read = each(audio.read, [(path, SETTINGS.sample_rate) for path in paths])
        found["resample"] = read - found["decode"]
    found["draw"] = each(spectrogram.draw, [(*recording, SETTINGS) for recording in resampled])
    found["encode"] = each(workers.png, [(pixels,) for pixels in pictures])
    return found | {"write": total - sum(found.values()), "total": total}


def on_all_cores(paths: list[Path], folder: Path) -> dict:
    """Measures the recordings that all cores prepare in a second; the first run starts workers."""
    corpus, seconds = describe(paths, COPIES_ALL_CORES, folder / "corpus"), []
    for _ in range(4):
        start = time.perf_counter()
        prepare_all(corpus)
        seconds.append(time.perf_counter() - start)
    count = len(paths) * COPIES_ALL_CORES
    return {
        "recordings": count,
        "first_s": seconds[0],
        "per_second": count / statistics.median(seconds[1:]),
    }


@contextlib.contextmanager
def one_core():
    """Keeps this process on one core."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        with threadpoolctl.threadpool_limits(1):
            yield
    finally:
        os.sched_setaffinity(0, allowed)


def show(found: dict) -> None:
    """Prints the tables."""
    heading = (
        f"{'':28}{'DeepSpectrum':>12}{'ours':>8}{'ratio':>8}{'least to most':>17}{'goal':>6}"
        f"{'twice':>8}{'ratio':>8}"
    )
    unlike = max(row["unlike"] for row in found["decoded audio to picture"].values())
    print(f"both ways' pictures differ in {unlike:.2%} of their pixels at most")
    for title in ("decoded audio to picture", "file to stored record"):
        print(f"\n{title}, one core, ms\n{heading if 'record' in title else heading[:-16]}")
        for kind, row in found[title].items():
            spread = f"{row['ratio_low']:.1f} to {row['ratio_high']:.1f}"
            line = (
                f"{kind:28}{row['deepspectrum_ms']:12.1f}{row['ours_ms']:8.2f}"
                f"{row['ratio']:8.1f}{spread:>17}{row['goal']:6}"
            )
            if "painted_twice_ms" in row:
                line += f"{row['painted_twice_ms']:8.1f}{row['ratio_painted_twice']:8.1f}"
            print(line)
    print("\nwhere ours goes, one core, ms")
    for number, (kind, row) in enumerate(found["parts"].items()):
        if not number:
            print(f"{'':28}" + "".join(f"{part:>10}" for part in row))
        print(f"{kind:28}" + "".join(f"{value:10.2f}" for value in row.values()))
    print(f"\nfile to stored record, {found['cores']} cores, by the clock")
    for kind, row in found["all cores"].items():
        print(
            f"{kind:28}{row['per_second']:10.0f} recordings a second; the first "
            f"{row['recordings']} in {row['first_s']:.1f} s, which starts the workers"
        )


def main(argv: list[str]) -> None:
    """Measures, prints, and writes."""
    if len(argv) > 1:
        raise app.UsageError(f"{argv[1]!r} is not a flag")
    logging.set_verbosity(logging.ERROR)
    matplotlib.use("Agg")
    corpora = Path(_CORPORA.value) if _CORPORA.value else None
    if corpora and not corpora.is_dir():
        raise app.UsageError(f"--corpora_dir={corpora}: there is no such folder")
    found = {
        "machine": platform.processor() or platform.machine(),
        "versions": {name: metadata.version(name) for name in ("librosa", "matplotlib", "scipy")},
        "cores": len(os.sched_getaffinity(0)),
        "seconds": _SECONDS.value,
        "rounds": _ROUNDS.value,
        "decoded audio to picture": {},
        "file to stored record": {},
        "parts": {},
        "all cores": {},
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        kinds = {
            kind: generate(folder / str(number), *how)
            for number, (kind, how) in enumerate(KINDS.items())
        }
        for path in sorted(corpora.iterdir()) if corpora else []:
            if recordings := choose(path):
                kinds[f"{path.name}, {recordings[0].suffix[1:]}"] = recordings
        with one_core():
            for number, (kind, paths) in enumerate(kinds.items()):
                (folder / f"one-{number}").mkdir()
                decoded = [audio.read(path, SETTINGS.sample_rate) for path in paths]
                record = to_record(paths, folder / f"one-{number}")
                found["decoded audio to picture"][kind] = to_picture(decoded)
                found["file to stored record"][kind] = record
                found["parts"][kind] = parts(paths, record["ours_ms"])
        for number, (kind, paths) in enumerate(kinds.items()):
            found["all cores"][kind] = on_all_cores(paths, folder / f"all-{number}")
    show(found)
    files.write_json(_OUTPUT.value, found)
    print(f"\n{_OUTPUT.value}")


if __name__ == "__main__":
    app.run(main)
