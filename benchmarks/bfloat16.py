"""Measures what products in bfloat16 with float32 sums would gain on a CPU that has them.

    python -m benchmarks.bfloat16
    XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type=+individual_dot python -m benchmarks.bfloat16

The second command lets YNNPACK, the other library in XLA, compute all products. VGG16's
convolutions are computed in turn as the program does, in float32 by Winograd's F(4x4, 3x3), and in
bfloat16: by XLA's own convolution, by products of shifted maps, and by Winograd's with products in
bfloat16. Each is shown by its speed, as a multiple of the program's in CPU seconds, and by its
error, the root mean square of the difference to float32 as a share of that of the values. Two more
say what is within reach: one product of columns that somebody has copied beforehand, so that only
multiplications are left of a convolution, and PyTorch's convolution (`requirements.txt` here).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import measuring
from benchmarks.convolutions import cpu_seconds
from ds_jax.models import winograd
from ds_jax.runtime import processes

LAYERS = ((128, 64, 64), (64, 128, 128), (32, 256, 256), (16, 512, 512))  # side, channels in, out


def product(left: jax.Array, right: jax.Array) -> jax.Array:
    """Multiplies [..., m, k] by [..., k, n] in bfloat16 with float32 sums."""
    left, right = left.astype(jnp.bfloat16), right.astype(jnp.bfloat16)
    return jnp.matmul(left, right, preferred_element_type=jnp.float32)


def winograd_products(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes `winograd._winograd` of a bfloat16 map with products in bfloat16."""
    pieces = winograd._Pieces(x.shape)
    padded = pieces.pad(x, edge=1)
    transform = np.kron(winograd.KERNEL, winograd.KERNEL)
    kernels = jnp.dot(transform, jnp.reshape(kernel.astype(jnp.float32), (9, -1)))
    kernels = jnp.reshape(kernels, (-1, *kernel.shape[2:])).astype(jnp.bfloat16)

    def convolve(index):
        piece = pieces.cut(padded, index, edge=1).astype(jnp.float32)
        tiles = product(winograd._to_tiles(piece, winograd.INPUT), kernels)
        return winograd._from_tiles(tiles, pieces.tiles, None).astype(jnp.bfloat16)

    return pieces.join(jax.lax.map(convolve, jnp.arange(pieces.count)))


def shifted_products(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes a convolution of a bfloat16 map as the sum of products of its shifted rows."""
    height, width, channels = x.shape[1:]
    kernels = jnp.reshape(kernel, (3, 3 * channels, -1))

    def convolve(picture):
        padded = jnp.pad(picture, ((1, 1), (1, 1), (0, 0)))
        columns = [padded[:, tap : tap + width] for tap in range(3)]
        columns = winograd._unfused(lambda *parts: jnp.concatenate(parts, axis=2), *columns)
        rows = [columns[tap : tap + height].reshape(-1, 3 * channels) for tap in range(3)]
        total = sum(map(product, rows, kernels))
        return jnp.reshape(total, (height, width, -1)).astype(jnp.bfloat16)

    return jax.lax.map(convolve, x)


def copied(x: jax.Array) -> jax.Array:
    """Copies what each output reads, [batch, height, width, c] to [outputs, 9 * c]."""
    height, width, channels = x.shape[1:]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [
        padded[:, row : row + height, column : column + width]
        for row in range(3)
        for column in range(3)
    ]
    return jnp.reshape(jnp.concatenate(taps, axis=3), (-1, 9 * channels))


def within_reach(x: jax.Array, kernel: jax.Array) -> dict[str, Callable]:
    """Returns calls of the two in bfloat16 that are no ways for the program."""
    columns = jax.block_until_ready(copied(x.astype(jnp.bfloat16)))
    kernels = jnp.reshape(kernel, (columns.shape[1], -1)).astype(jnp.bfloat16)
    multiply = jax.jit(product)
    maps = torch.from_numpy(np.moveaxis(np.array(x), 3, 1)).bfloat16()
    maps = maps.to(memory_format=torch.channels_last)
    weights = torch.from_numpy(np.array(jnp.transpose(kernel, (3, 2, 0, 1)))).bfloat16()
    weights = weights.to(memory_format=torch.channels_last)
    return {
        "multiplied alone": lambda: multiply(columns, kernels),
        "PyTorch's": lambda: torch.nn.functional.conv2d(maps, weights, padding=1),
    }


WAYS: dict[str, tuple[Callable, type]] = {
    "Winograd's": (winograd._winograd, jnp.float32),
    "XLA's in float32": (winograd._plain, jnp.float32),
    "XLA's": (winograd._plain, jnp.bfloat16),
    "shifted": (shifted_products, jnp.bfloat16),
    "Winograd's in bfloat16": (winograd_products, jnp.bfloat16),
}


def compare(layer: tuple[int, int, int], batch: int, rounds: int) -> dict[str, tuple]:
    """Returns by name the speed, relative to the first of `WAYS`, and the error or None."""
    side, channels, out = layer
    rng = np.random.default_rng(0)
    x = jnp.asarray(np.maximum(rng.normal(size=(batch, side, side, channels)), 0), jnp.float32)
    deviation = np.sqrt(2 / (9 * channels))
    kernel = jnp.asarray(rng.normal(0, deviation, (3, 3, channels, out)), jnp.float32)
    calls, errors, exact = {}, {}, np.asarray(jax.jit(winograd._plain)(x, kernel))
    for name, (way, dtype) in WAYS.items():
        arguments, way = (x.astype(dtype), kernel.astype(dtype)), jax.jit(way)
        calls[name] = lambda way=way, arguments=arguments: way(*arguments)
        difference = np.asarray(calls[name](), np.float32) - exact
        errors[name] = float(np.sqrt(np.mean(difference**2) / np.mean(exact**2)))
    calls |= within_reach(x, kernel)
    seconds = {name: min(each) for name, each in cpu_seconds(calls, rounds).items()}
    usual = seconds[next(iter(WAYS))]
    return {name: (usual / each, errors.get(name)) for name, each in seconds.items()}


def main(arguments: list[str] | None = None) -> dict:
    """Measures, prints and writes."""
    parser = measuring.parser("bfloat16", __doc__)
    parser.add_argument("--batch", type=measuring.positive, default=4, help="maps")
    parser.add_argument("--rounds", type=measuring.positive, default=5, help="of each, the best")
    flags = parser.parse_args(arguments)
    processes.start()
    rows, found = [], []
    for layer in LAYERS:
        measured = compare(layer, flags.batch, flags.rounds)
        numbers = [each for pair in measured.values() for each in pair if each is not None]
        rows.append(("{} pixels, {} to {} channels".format(*layer), *numbers))
        found.append({"layer": layer, "ways": measured})
    heads = [head for name in WAYS for head in (name, "error")] + list(measured)[len(WAYS) :]
    measuring.table("speed relative to Winograd's in float32", ("", *heads), rows)
    found = {"machine": measuring.machine(), "batch": flags.batch, "layers": found}
    measuring.save(flags.output, found)
    return found


if __name__ == "__main__":
    main()
