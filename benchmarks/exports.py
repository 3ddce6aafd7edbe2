"""Measures what a call of a model takes: as StableHLO in JAX, as ONNX, and in the program itself.

    python -m benchmarks.exports --folder=runs/robots
    python -m benchmarks.exports --folder=runs/robots --checkpoint=runs/ds_am_emodb --threads=1

Each is loaded in a process of its own, which answers one recording of each length at a time. CPU
seconds are compared, which other work on the machine disturbs less than the clock. The folder holds
both exports, `export/` and `export_onnx/`. The program itself is measured with the checkpoint.

    python -m benchmarks.exports --folder=runs/robots --checkpoint=runs/ds_am_emodb corpora/emodb

also tells how far the probabilities of each format are from those of the models, at most, over all
of these recordings.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks import measuring
from ds_jax.commands.export import FORMATS
from ds_jax.data import recordings
from ds_jax.features import audio

SECONDS = (2, 3, 5)  # of recordings
CALLS = 5  # of each length, after the first, which may compile
PROGRAM = "program"


def load(form: str, folder: Path, threads: int) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """Loads a model, which takes samples float32 [n]; returns it and its sample rate in Hz."""
    if form == PROGRAM:
        import ds_jax
        from ds_jax.runtime import processes

        processes.start()
        model = ds_jax.load(folder)
        rate = model.settings.sample_rate or 16_000
        return lambda samples: model(samples, rate), rate
    path = folder.joinpath(*FORMATS[form])
    if form == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options)

        def call(samples, lengths):
            return session.run(None, {"samples": samples, "lengths": lengths})[0]
    else:
        import jax.export

        call = jax.jit(jax.export.deserialize(bytearray(path.read_bytes())).call)

    def answer(samples):
        return np.asarray(call(samples[None], np.array([len(samples)], np.int32)))

    return answer, json.loads((path.parent / "model.json").read_text())["sample_rate"]


def measure(form: str, folder: Path, threads: int = 0) -> dict:
    """Loads and calls a model; returns CPU seconds, and MB of the process and of the file.

    Args:
        form: One of `export.FORMATS`, or `PROGRAM`.
        folder: That of the exports, or of the program's run or fold.
        threads: How many compute at a time; 0: as many as there are CPUs.
    """
    if threads:  # XLA starts a thread for each CPU
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    began = time.process_time()
    model, rate = load(form, folder, threads)
    found = {"load": time.process_time() - began}
    for seconds in SECONDS:
        samples = np.random.default_rng(0).normal(0, 0.1, seconds * rate).astype(np.float32)
        times = []
        for _ in range(CALLS + 1):
            began = time.process_time()
            model(samples)
            times.append(time.process_time() - began)
        found[f"first {seconds} s"], found[f"{seconds} s"] = times[0], min(times[1:])
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = None if form == PROGRAM else folder.joinpath(*FORMATS[form]).stat().st_size / 1e6
    return found | {"memory": megabytes, "size": size}


def distances(folder: Path, checkpoint: Path, paths: Sequence[str]) -> dict[str, float]:
    """Returns how far the probabilities of each format are from those of the models, at most."""
    import onnxruntime

    import ds_jax

    model, exported = ds_jax.load(checkpoint), ds_jax.load(folder / FORMATS["stablehlo"][0])
    session = onnxruntime.InferenceSession(folder.joinpath(*FORMATS["onnx"]))
    rate, found = exported.card["sample_rate"], dict.fromkeys(FORMATS, 0.0)
    for recording in recordings.find(paths)[0]:
        samples = audio.read(recording.path, rate)[0].astype(np.float32)
        given = {"samples": samples[None], "lengths": np.array([len(samples)], np.int32)}
        answers = {"stablehlo": exported(samples, rate), "onnx": session.run(None, given)[0][0]}
        expected = model(samples, rate)
        for form, answer in answers.items():
            found[form] = max(found[form], float(np.abs(answer - expected).max()))
    return found


def main(arguments: list[str] | None = None) -> dict:
    """Measures, prints and writes."""
    parser = measuring.parser("exports", __doc__)
    parser.add_argument("--folder", type=Path, required=True, help="holds both exports")
    parser.add_argument("--format", help=argparse.SUPPRESS)  # of a child
    parser.add_argument("--checkpoint", type=Path, help="the run or the fold that was exported")
    parser.add_argument("--threads", type=int, default=0, help="of each; 0: one for each CPU")
    parser.add_argument("recordings", nargs="*", help="files, folders and patterns")
    flags = parser.parse_args(arguments)
    if flags.recordings and not flags.checkpoint:
        parser.error("recordings need --checkpoint")
    if flags.format:
        print(json.dumps(measure(flags.format, flags.folder, flags.threads)))
        return {}
    folders = dict.fromkeys(FORMATS, flags.folder)
    if flags.checkpoint:
        folders[PROGRAM] = flags.checkpoint
    found = {}
    for form, folder in folders.items():
        command = [sys.executable, "-m", "benchmarks.exports", f"--folder={folder.absolute()}"]
        done = subprocess.run(
            [*command, f"--format={form}", f"--threads={flags.threads}"],
            cwd=measuring.ROOT,
            check=True,
            capture_output=True,
        )
        found[form] = json.loads(done.stdout.splitlines()[-1])
    heads = list(found["onnx"])
    rows = [(form, *(each[head] for head in heads)) for form, each in found.items()]
    measuring.table("exports: CPU seconds, and MB of memory and of the file", ("", *heads), rows)
    found = {"machine": measuring.machine(), "formats": found}
    if flags.recordings:
        found["distances"] = distances(flags.folder, flags.checkpoint, flags.recordings)
        for form, distance in found["distances"].items():
            print(f"{form}: probabilities at most {distance:.1e} from those of the models")
    measuring.save(flags.output, found)
    return found


if __name__ == "__main__":
    main()
