"""Measures from which batch on Winograd's convolutions are faster on the CPU than XLA's own.

    python -m benchmarks.convolutions
    python -m benchmarks.convolutions --height=64 --width=192 --batches 1 2 4

Each of VGG16's convolutions is computed in both ways in turn, and the CPU seconds of a call are
compared, which other work on the machine disturbs less than the clock. A ratio above 1 says that
Winograd's takes longer.
"""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measuring
from ds_jax.models import vgg16, winograd
from ds_jax.runtime import processes


def layers(height: int, width: int) -> list[tuple[str, tuple[int, ...]]]:
    """Returns the name of each kind of layer, with height, width and channels in and out."""
    found, channels = {}, 3
    for number, (out, count) in enumerate(vgg16.BLOCKS, start=1):
        for index in range(1, count + 1):
            found.setdefault((height, width, channels, out), f"block{number}_conv{index}")
            channels = out
        height, width = height // 2, width // 2
    return [(name, shape) for shape, name in found.items()]


def cpu_seconds(calls: dict[str, Callable[[], jax.Array]], rounds: int) -> dict[str, list[float]]:
    """Returns the CPU seconds of each call in each round, after one that compiles."""
    seconds = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            began = time.process_time()
            jax.block_until_ready(call())
            if number:
                seconds[name].append(time.process_time() - began)
    return seconds


def compare(shape: tuple[int, ...], batch: int, rounds: int) -> dict[str, float]:
    """Returns the least CPU seconds of both ways for a layer of `layers` and a batch."""
    height, width, channels, out = shape
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(batch, height, width, channels)).astype(np.float32))
    kernel = jnp.asarray(rng.normal(0, 0.05, (3, 3, channels, out)).astype(np.float32))
    bias = jnp.zeros(out)
    ways = {"Winograd": jax.jit(winograd._winograd), "plain": jax.jit(winograd.plain)}
    calls = {name: lambda way=way: way(x, kernel, bias) for name, way in ways.items()}
    return {name: min(each) for name, each in cpu_seconds(calls, rounds).items()}


def main(arguments: list[str] | None = None) -> dict:
    """Measures, prints and writes."""
    parser = measuring.parser("convolutions", __doc__)
    parser.add_argument("--height", type=measuring.positive, default=224, help="pixels")
    parser.add_argument("--width", type=measuring.positive, default=224, help="pixels")
    parser.add_argument("--rounds", type=measuring.positive, default=3, help="of each, the best")
    parser.add_argument("--batches", type=measuring.positive, nargs="+", default=[1, 2, 4])
    flags = parser.parse_args(arguments)
    processes.start()
    rows, found = [], []
    for name, shape in layers(flags.height, flags.width):
        if min(shape[2:]) < winograd.LEAST_CHANNELS or min(shape[:2]) < winograd.TILE:
            continue
        for batch in flags.batches:
            seconds = compare(shape, batch, flags.rounds)
            tiles = batch * -(-shape[0] // winograd.TILE) * -(-shape[1] // winograd.TILE)
            ratio = seconds["Winograd"] / seconds["plain"]
            rows.append((name, batch, tiles, *(1000 * each for each in seconds.values()), ratio))
            found.append({"layer": name, "shape": shape, "batch": batch, "tiles": tiles} | seconds)
            print(name, batch, f"{ratio:.2f}", flush=True)
    title = f"convolutions at {flags.height} x {flags.width} pixels, ms of CPU"
    measuring.table(title, ("layer", "batch", "tiles", "Winograd", "plain", "ratio"), rows)
    found = {"machine": measuring.machine(), "layers": found}
    measuring.save(flags.output, found)
    return found


if __name__ == "__main__":
    main()
