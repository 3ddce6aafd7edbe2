"""How fast a network trains on the devices of this machine, and what it waits for.

    python -m benchmarks.throughput                       # DS-AM at 224 pixels, as a run does it
    python -m benchmarks.throughput --size=128 --batch=16 --freeze=block3
    python -m benchmarks.throughput --system=ds_am_statistics --freeze=block4
    python -m benchmarks.throughput --dispatch=accelerator     # their way of dispatching, on a CPU

The second form's timelines are of 3.07 s of speech, and square pictures are taken to be of as much.
It trains one fold of generated pictures by `loop.train_folds`, and listens at the mapped steps and
at what they read. Utilisation is that of the model: the operations of VGG16's convolutions in a
second (see `operations.py`), over the chip's dense peak; a CPU's peak is that of a large matrix
product in the same process.

"input wait" is what the host took to make the chunks of an epoch, and takes to call as many steps
that do nothing, as if none of it went on while the devices work: the most that they can wait.
"""

import contextlib
import dataclasses
import functools
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp

from benchmarks import generated, measuring, operations
from configs import base
from ds_jax.models import vgg16
from ds_jax.models.backbones import backbone_of
from ds_jax.runtime import processes
from ds_jax.runtime.workdir import fold_directory
from ds_jax.systems import base as systems
from ds_jax.training import loop, parallel
from ds_jax.training.input_pipeline import Inputs
from ds_jax.training.loop import TrainingSetup, create_setup
from ds_jax.training.parallel import ONE_MODEL

DEV_SHARE = 9  # one picture chooses the epoch for so many that are learnt from
SYSTEMS = ("ds_am", "ds_am_statistics", "ds_fc")
BANDS = 64  # of a timeline
PRODUCT = 2048  # side of the matrices whose product says what a CPU can do
PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True, eq=False)
class TimedInputs(Inputs):
    """Inputs that note how long each epoch's chunks took to make.

    Attributes:
        seconds: The time for each epoch or split that had any chunk.
    """

    seconds: list[float] = dataclasses.field(default_factory=list)

    def chunks(self, *arguments, **options) -> Iterator[tuple]:
        """Yields what `Inputs.chunks` does."""
        made, total, count = super().chunks(*arguments, **options), 0.0, 0
        while True:
            began = time.perf_counter()
            chunk = next(made, None)
            total += time.perf_counter() - began
            if chunk is None:
                break
            count += 1
            yield chunk
        if count:
            self.seconds.append(total)


def counted(step: Callable, calls: list) -> Callable:
    """Returns the step, which then notes each of its calls."""

    @functools.wraps(step)
    def call(*arguments):
        calls.append(step)
        return step(*arguments)

    return call


def compile_seconds(setup: TrainingSetup, batches: int) -> dict[str, float]:
    """Measures how long it takes to trace the train step, to compile it, and to find it cached."""
    arguments = generated.arguments(setup, ONE_MODEL, batches)

    def compile_once() -> tuple[float, float]:
        jax.clear_caches()
        began = time.perf_counter()
        lowered = setup.steps_for(ONE_MODEL)[0].lower(*arguments)
        traced = time.perf_counter()
        lowered.compile()
        return traced - began, time.perf_counter() - traced

    (trace, cold), (_, cached) = compile_once(), compile_once()
    return {"trace": trace, "compile": cold, "from the cache": cached}


def measured_peak() -> float:
    """Returns the FLOP/s of a large float32 matrix product."""
    x = jnp.ones((PRODUCT, PRODUCT), jnp.float32)
    product = jax.jit(jnp.dot)
    product(x, x).block_until_ready()
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        product(x, x).block_until_ready()
        taken.append(time.perf_counter() - began)
    return 2 * PRODUCT**3 / min(taken)


def peak_memory() -> int:
    """Returns the most bytes that were in use on a device; on a CPU, by the process."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"]
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@contextlib.contextmanager
def chosen(precision: str, dispatch: str) -> Iterator[None]:
    """Trains at another precision, or by other dispatches, than the program decides."""
    with contextlib.ExitStack() as stack:
        if precision != "auto":
            dtype = PRECISIONS[precision]
            stack.enter_context(mock.patch.object(parallel, "compute_dtype", return_value=dtype))
        if dispatch == "accelerator":

            def part(batches: int) -> int:
                return -(-batches // parallel.DISPATCHES)

            stack.enter_context(mock.patch.object(parallel, "batches_in_dispatch", part))
        yield


def measure(config, full: bool, batches: int, folder: Path) -> dict:
    """Compiles and trains, and measures both; the first epoch does not count."""
    learnt = batches * config.train.batch_size
    dev = -(-learnt // DEV_SHARE) if config.select_on == "dev" else 0
    square = config.picture.canvas, config.picture.canvas
    shape = (BANDS, generated.COLUMNS) if config.picture.layout == "timeline" else square
    corpus = generated.corpus(learnt + dev, *shape)
    began = time.perf_counter()
    weights = generated.weights(config.picture.size, full)
    setup = create_setup(config, corpus, weights)
    jax.block_until_ready(setup.inputs.corpus)
    found = {"seconds until the corpus is on the devices": time.perf_counter() - began}
    found["seconds of the train step"] = compile_seconds(setup, batches)
    _, call = generated.host_seconds(setup, ONE_MODEL, batches)

    inputs, calls = TimedInputs(**vars(setup.inputs)), ([], [])
    steps = tuple(map(counted, setup.steps_for(ONE_MODEL), calls))
    setup = dataclasses.replace(setup, inputs=inputs, steps={ONE_MODEL: steps})
    list(loop.train_folds(setup, {0: generated.fold(corpus, learnt, dev)}, folder))
    lines = (fold_directory(folder, 0) / "metrics.jsonl").read_text().splitlines()
    epochs = [json.loads(line)["seconds"] for line in lines]
    dispatches = len(calls[0]) // len(epochs)
    # Where dev chooses an epoch it is predicted after each, and so is a tenth of what is learnt.
    trained = inputs.seconds[::3] if dev else inputs.seconds
    waits = [
        (chunks + dispatches * call) / seconds
        for chunks, seconds in zip(trained, epochs, strict=True)
    ]
    seconds = statistics.median(epochs[1:])
    return found | {
        "pictures a second": learnt / seconds,
        "seconds of speech a second": generated.SPEECH * learnt / seconds,
        "milliseconds a step": 1000 * seconds / batches,
        "milliseconds a step, least and most": [
            1000 * extreme(epochs[1:]) / batches for extreme in (min, max)
        ],
        "input wait": statistics.median(waits[1:]),
        "dispatches an epoch, training": dispatches,
        "dispatches an epoch, predicting": len(calls[1]) // len(epochs),
        "kept": inputs.method == "upper",
        "streamed": inputs.streamed,
        "peak memory": peak_memory(),
    }


def picture_flops(config, kept: bool, training: bool = True, full: bool = False) -> int:
    """Counts the operations of a step on a picture, or on a timeline as wide as those here.

    Args:
        config: The network's.
        kept: Whether the frozen blocks' output was computed beforehand.
        training: Whether the step trains or predicts.
        full: Whether fc1 and fc2 are there.
    """
    backbone, freeze = backbone_of(config), config.model.freeze
    blocks = [block.name for block in backbone.blocks]
    frozen = blocks.index(freeze) + 1 if freeze else 0
    size, squares, last = config.picture.size, 1, len(blocks)
    if config.picture.layout == "timeline":  # as many operations as squares of its height
        last = 1 + max(map(backbone.outputs.index, config.model.heads))
        size, squares = BANDS, generated.COLUMNS // BANDS
    if training:
        flops = squares * operations.step_flops(size, frozen, kept, last)
    else:
        flops = squares * operations.forward_flops(size, frozen + 1 if kept else 1, last)
    return flops + (3 if training else 1) * full * operations.fully_connected_flops(size)


def utilisation(found: dict, config, full: bool) -> dict:
    """Returns what part of the chip's peak the model's operations took."""
    flops = picture_flops(config, found["kept"], full=full)
    kind = jax.local_devices()[0].device_kind
    if jax.default_backend() == "cpu":
        peak, of = measured_peak(), "a matrix product of float32 in the same process"
    else:
        peak, of = operations.peak(kind), "the chip's dense peak in bfloat16"
        peak = peak and peak * jax.device_count()
    reached = found["pictures a second"] * flops
    return {
        "GFLOP a picture": flops / 1e9,
        "TFLOP/s": reached / 1e12,
        "peak TFLOP/s": peak and peak / 1e12,
        "utilisation": peak and reached / peak,
        "utilisation of": of if peak else f"nothing: the peak of {kind!r} is not known",
    }


def show(found: dict) -> None:
    """Prints the table."""
    compiling = found["seconds of the train step"]
    low, high = found["milliseconds a step, least and most"]
    share = found["utilisation"]
    rows = [
        ("pictures a second", found["pictures a second"]),
        ("seconds of speech a second", found["seconds of speech a second"]),
        ("ms a step", f"{found['milliseconds a step']:.4g} ({low:.4g} to {high:.4g})"),
        ("GFLOP a picture", found["GFLOP a picture"]),
        ("TFLOP/s", found["TFLOP/s"]),
        ("utilisation", "-" if share is None else f"{share:.1%} of {found['utilisation of']}"),
        ("input wait", f"{found['input wait']:.3%} of a step at most"),
        ("dispatches an epoch", f"{found['dispatches an epoch, training']} to train"),
        ("", f"{found['dispatches an epoch, predicting']} to predict"),
        ("trace", f"{compiling['trace']:.2f} s"),
        ("compile", f"{compiling['compile']:.1f} s"),
        ("from the cache", f"{compiling['from the cache']:.2f} s"),
        ("corpus to devices", f"{found['seconds until the corpus is on the devices']:.1f} s"),
        ("peak memory", f"{found['peak memory'] / 1e9:.2f} GB"),
    ]
    settings = found["settings"]
    title = ", ".join(f"{name} {value or 'none'}" for name, value in settings.items())
    measuring.table(title, ("", ""), rows)


def main(arguments: Sequence[str] | None = None) -> dict:
    """Measures, prints, and writes."""
    parser = measuring.parser("throughput", __doc__)
    parser.add_argument("--system", choices=SYSTEMS, default="ds_am", help="network")
    parser.add_argument(
        "--size", type=measuring.positive, default=vgg16.VGG16.size, help="of pictures, pixels"
    )
    parser.add_argument(
        "--batch", type=measuring.positive, default=32, help="over all devices together"
    )
    parser.add_argument("--freeze", default="", help="highest block that is frozen, as block3")
    parser.add_argument(
        "--precision",
        choices=("auto", *PRECISIONS),
        default="auto",
        help="of the convolutions; auto: as the program decides",
    )
    parser.add_argument("--batches", type=int, default=0, help="an epoch; 0: 6 on a CPU, else 160")
    parser.add_argument("--epochs", type=measuring.positive, default=3, help="that count")
    parser.add_argument(
        "--dispatch",
        choices=("auto", "accelerator"),
        default="auto",
        help="accelerator: many steps in one, whatever the device; auto: as the program decides",
    )
    flags = parser.parse_args(arguments)
    size = 0 if flags.system == "ds_am_statistics" else flags.size
    config = generated.config(size, flags.batch, flags.epochs + 1, flags.freeze)
    full = flags.system == "ds_fc" and flags.size == vgg16.VGG16.size
    if flags.system == "ds_fc":
        base.use_ds_fc(config)
        config.model.head, config.model.freeze = "fc" if full else "gap", flags.freeze
    systems.check(config)
    processes.start()
    batches = flags.batches or (6 if jax.default_backend() == "cpu" else 160)
    with (
        tempfile.TemporaryDirectory() as folder,
        generated.cache(f"{folder}/compiled"),
        chosen(flags.precision, flags.dispatch),
    ):
        found = measure(config, full, batches, Path(folder))
        precision = jnp.dtype(parallel.compute_dtype()).name
    settings = {
        "system": flags.system,
        "size": size or f"{BANDS} x {generated.COLUMNS}",
        "batch": flags.batch,
        "precision": precision,
        "freeze": flags.freeze,
        "dispatch": flags.dispatch,
        "batches": batches,
        "epochs": flags.epochs,
    }
    found |= {"settings": settings} | utilisation(found, config, full)
    found |= {"machine": measuring.machine(), "device": jax.local_devices()[0].device_kind}
    found["devices"] = jax.device_count()
    show(found)
    measuring.save(flags.output, found)
    return found


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"error: {error}")
