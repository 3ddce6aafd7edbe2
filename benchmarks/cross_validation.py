"""Compares ten folds in one run with ten runs of a fold each, on one workdir.

    python -m benchmarks.cross_validation                            # synthetic speech
    python -m benchmarks.cross_validation --corpora_dir=corpora --corpus=emodb

Both ways run launch.py on the same prepared corpus, with the same folds, seeds and epochs, and
with the compilation cache that an earlier run has filled. Half of the separate runs come before the
single run and half after it, so that other work on the machine slows both ways alike. Further
arguments, such as --config.model.freeze=block4, are passed to launch.py.

"seconds" are by the clock; CPU seconds are those of the processes, and depend less on other work on
the machine. The ratio of a longer training is computed from the parts.
"""

import dataclasses
import itertools
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import measuring
from datasets import synthetic

TARGET = 0.7  # the share of the time of separate runs that a single run may take
LAUNCH = (sys.executable, str(measuring.ROOT / "launch.py"))
READ = re.compile(r"VGG16's ImageNet weights: ")
FIRST_EPOCH = re.compile(r"fold \d+ epoch 1/")
LONGER = (1, 2, 3, 5, 10, 40)  # epochs for which the ratio is computed


@dataclasses.dataclass(frozen=True)
class Run:
    """How long a run took.

    Attributes:
        seconds: Seconds by the clock.
        cpu: CPU seconds of the process.
        start: Seconds until the corpus was open and the weights read.
        freeze: Seconds from then until the first epoch began: frozen blocks, first state.
        training: Seconds of all epochs' steps; the first one compiles.
    """

    seconds: float
    cpu: float
    start: float
    freeze: float
    training: float

    @property
    def rest(self) -> float:
        """Seconds of predicting, saving, testing and reporting."""
        return self.seconds - self.start - self.freeze - self.training


def parts(lines: Sequence[tuple[float, str]], epochs: Sequence[float]) -> dict[str, float]:
    """Divides a run's time by the lines that it printed.

    Args:
        lines: Seconds since the start, and the line that was printed at that time.
        epochs: Seconds of each epoch's steps, in the order in which they were trained.
    """
    start = next(second for second, line in lines if READ.match(line))
    first = next(second for second, line in lines if FIRST_EPOCH.match(line))
    return {"start": start, "freeze": first - start - epochs[0], "training": sum(epochs)}


def run(arguments: Sequence[str], workdir: Path) -> Run:
    """Runs launch.py, and notes the time of each line that it prints.

    Raises:
        RuntimeError: launch.py failed.
    """
    before = _epochs(workdir)
    used, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    lines = []
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*LAUNCH, *arguments, f"--workdir={workdir}"],
        env=environment,
        cwd=measuring.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout:
            lines.append((time.monotonic() - began, line))
    seconds = time.monotonic() - began
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise RuntimeError("launch.py failed:\n" + "".join(line for _, line in lines[-20:]))
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    own = [epochs for fold, epochs in _epochs(workdir).items() if fold not in before]
    return Run(seconds, cpu, **parts(lines, list(itertools.chain(*own))))


def _epochs(workdir: Path) -> dict[str, list[float]]:
    """Returns the seconds of the epochs of each fold in a workdir."""
    return {
        path.parent.name: [json.loads(line)["seconds"] for line in path.read_text().splitlines()]
        for path in sorted(workdir.glob("fold_*/metrics.jsonl"))
    }


def ratio(one: Run, separate: Sequence[Run], times: float = 1.0) -> float:
    """Returns the time of one run over that of separate ones, if folds trained `times` as long.

    Both ways then take longer by the same: one run's training, predicting and saving. The time that
    separate runs take to start, to trace and to load compiled programs does not grow.
    """
    more = (times - 1) * (one.training + one.rest)
    return (one.seconds + more) / (sum(own.seconds for own in separate) + more)


def measure(arguments: Sequence[str], folds: int, folder: Path) -> tuple[Run, list[Run], bool]:
    """Runs once to fill the cache and to prepare the corpus, and then both ways.

    Returns:
        The one run, the separate ones, and whether their predictions.csv are the same.
    """
    run([*arguments, "--fold=0", "--config.train.epochs=1"], folder / "warm")
    half, separate = folds // 2, []
    for fold in range(half):
        separate.append(run([*arguments, f"--fold={fold}"], folder / "separate"))
    one = run(arguments, folder / "one")
    for fold in range(half, folds):
        separate.append(run([*arguments, f"--fold={fold}"], folder / "separate"))
    files = [f"fold_{fold:02}/predictions.csv" for fold in range(folds)]
    contents = [
        [(folder / way / file).read_bytes() for file in files] for way in ("one", "separate")
    ]
    return one, separate, contents[0] == contents[1]


def summary(one: Run, separate: Sequence[Run], epochs: int) -> dict:
    """Returns both ways' seconds by part, and the ratios."""
    ways = {
        name: [dataclasses.asdict(own) | {"rest": own.rest} for own in runs]
        for name, runs in (("one", [one]), ("separate", separate))
    }
    return ways | {
        "ratio": ratio(one, separate),
        "ratio of CPU time": one.cpu / sum(own.cpu for own in separate),
        "ratio at other epochs, computed": {
            longer: ratio(one, separate, longer / epochs) for longer in LONGER
        },
    }


def main(arguments: Sequence[str] | None = None) -> dict:
    """Measures, prints, and writes."""
    parser = measuring.parser("cross_validation", __doc__)
    parser.add_argument("--corpora_dir", default="", help="real recordings; default synthetic")
    parser.add_argument("--corpus", default="emomatch_spanish_db", help="which of them")
    parser.add_argument("--config", default="configs/ds_am_emomatch.py", help="of launch.py")
    parser.add_argument("--size", type=measuring.positive, default=128, help="of pictures, pixels")
    parser.add_argument("--freeze", default="block3", help="highest block that is frozen")
    parser.add_argument("--folds", type=measuring.positive, default=10, help="stratified")
    parser.add_argument("--epochs", type=measuring.positive, default=1, help="of each fold")
    parser.add_argument("--batch", type=measuring.positive, default=16, help="pictures")
    flags, others = parser.parse_known_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        corpora = Path(flags.corpora_dir).absolute() if flags.corpora_dir else folder / "corpora"
        if not flags.corpora_dir:
            synthetic.write_corpora(corpora)
        given = [
            f"--config={flags.config}",
            f"--corpora_dir={corpora}",
            f"--data_dir={folder / 'prepared'}",
            f"--config.corpus={flags.corpus}",
            f"--config.picture.size={flags.size}",
            f"--config.model.freeze={flags.freeze}",
            "--config.folds.protocol=stratified",
            f"--config.folds.count={flags.folds}",
            f"--config.train.epochs={flags.epochs}",
            f"--config.train.stop_patience={flags.epochs}",
            f"--config.train.batch_size={flags.batch}",
            *others,
        ]
        one, separate, same = measure(given, flags.folds, folder)
    found = summary(one, separate, flags.epochs) | {"same predictions": same}
    settings = {name: str(value) for name, value in vars(flags).items() if name != "output"}
    settings["corpora_dir"] = "real recordings" if flags.corpora_dir else "synthetic speech"
    found |= {"settings": settings, "others": others, "machine": measuring.machine()}
    show(found)
    measuring.save(flags.output, found)
    return found


def show(found: dict) -> None:
    """Prints the tables."""
    heads = ("seconds", "cpu", "start", "freeze", "training", "rest")
    one, sums = (
        [sum(run[head] for run in found[way]) for head in heads] for way in ("one", "separate")
    )
    count = len(found["separate"])
    ratios = (own / total for own, total in zip(one, sums, strict=True))
    rows = [("one run", *one), (f"{count} runs", *sums), ("ratio", *ratios)]
    titles = ("", "by the clock", "CPU", "start", "frozen blocks", "training", "rest")
    settings = found["settings"]
    measuring.table(
        f"{count} folds of {settings['corpus']}, {settings['corpora_dir']}, {settings['epochs']} "
        f"epochs, {settings['size']} pixels, {settings['freeze']} frozen; seconds",
        titles,
        rows,
    )
    print(f"the target is at most {TARGET}; same predictions: {found['same predictions']}")
    longer = found["ratio at other epochs, computed"]
    measuring.table(
        "computed for other epochs, with which training and rest grow",
        ("epochs", "ratio"),
        list(longer.items()),
    )


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"error: {error}")
