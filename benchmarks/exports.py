"""Measures what a call of an exported model takes, as StableHLO in JAX and as ONNX.

    python -m benchmarks.exports --folder=runs/robots

Each format is loaded in a process of its own, which answers one recording of each length at a time.
CPU seconds are compared, which other work on the machine disturbs less than the clock. The folder
holds both exports, `export/` and `export_onnx/`.

    python -m benchmarks.exports --folder=runs/robots --checkpoint=runs/ds_am_emodb corpora/emodb

also tells how far the probabilities of each format are from those of the models, at most, over all
of these recordings.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import measuring
from ds_jax.commands.export import FORMATS
from ds_jax.data import recordings
from ds_jax.features import audio

SECONDS = (2, 5)  # of recordings
CALLS = 5  # of each length, after the first, which may compile


def measure(form: str, folder: Path) -> dict:
    """Loads and calls a model; returns CPU seconds and the largest memory in MB."""
    directory, file = FORMATS[form]
    path, began = folder / directory / file, time.process_time()
    if form == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)

        def model(samples, lengths):
            return session.run(None, {"samples": samples, "lengths": lengths})[0]
    else:
        import jax.export

        call = jax.jit(jax.export.deserialize(bytearray(path.read_bytes())).call)

        def model(samples, lengths):
            return np.asarray(call(samples, lengths))

    found = {"load": time.process_time() - began}
    rate = json.loads((folder / directory / "model.json").read_text())["sample_rate"]
    for seconds in SECONDS:
        samples = np.random.default_rng(0).normal(0, 0.1, (1, seconds * rate)).astype(np.float32)
        times = []
        for _ in range(CALLS + 1):
            began = time.process_time()
            model(samples, np.array([samples.shape[1]], np.int32))
            times.append(time.process_time() - began)
        found[f"first {seconds} s"], found[f"{seconds} s"] = times[0], min(times[1:])
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found | {"memory": megabytes, "size": path.stat().st_size / 1e6}


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
    parser.add_argument("--format", choices=FORMATS, help=argparse.SUPPRESS)  # of a child
    parser.add_argument("--checkpoint", type=Path, help="the run or the fold that was exported")
    parser.add_argument("recordings", nargs="*", help="files, folders and patterns")
    flags = parser.parse_args(arguments)
    if bool(flags.checkpoint) != bool(flags.recordings):
        parser.error("--checkpoint and recordings go together")
    if flags.format:
        print(json.dumps(measure(flags.format, flags.folder)))
        return {}
    found = {}
    for form in FORMATS:
        command = [
            sys.executable,
            "-m",
            "benchmarks.exports",
            f"--folder={flags.folder.absolute()}",
        ]
        done = subprocess.run(
            [*command, f"--format={form}"], cwd=measuring.ROOT, check=True, capture_output=True
        )
        found[form] = json.loads(done.stdout.splitlines()[-1])
    heads = list(found["onnx"])
    rows = [(form, *(float(each[head]) for head in heads)) for form, each in found.items()]
    measuring.table("exports: CPU seconds, and MB of memory and of the file", ("", *heads), rows)
    found = {"machine": measuring.machine(), "formats": found}
    if flags.checkpoint:
        found["distances"] = distances(flags.folder, flags.checkpoint, flags.recordings)
        for form, distance in found["distances"].items():
            print(f"{form}: probabilities at most {distance:.1e} from those of the models")
    measuring.save(flags.output, found)
    return found


if __name__ == "__main__":
    main()
