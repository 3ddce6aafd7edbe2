"""VGG16's two operations, 3x3 convolution with ReLU and 2x2 max pooling, made fast on each device.

Accelerators run the plain convolutions of XLA. On the CPU these are slow, above all their
gradients. There float32 convolutions are computed by Winograd's F(4x4, 3x3) (Lavin and Gray, "Fast
Algorithms for Convolutional Neural Networks", 2016): a quarter of the multiplications, as batched
matrix products. Results differ from the plain ones by rounding alone, 1e-5 of the largest value.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.xla_metadata import set_xla_metadata
from jax.typing import DTypeLike

from ds_jax.models.pairs import by_pairs

TILE = 4  # side of the squares that the output is divided into; those of the input overlap by 2
# Transforms take most of the time of narrower layers, and padding most of that of smaller maps.
LEAST_CHANNELS = 32
# Transforming the kernels takes most of the time of fewer tiles, see benchmarks/convolutions.py.
LEAST_TILES = 32
# Rows enough for a fast matrix product, and few enough for transformed tiles to stay in cache.
TILES_AT_ONCE = 256

# The transforms of F(4x4, 3x3): of the input, of the kernel and of the output.
INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    np.float32,
)
KERNEL = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    np.float32,
)
OUTPUT = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    np.float32,
)
SIDE = len(INPUT)  # rows and columns of a transformed tile


class Convolution(nn.Module):
    """A 3x3 convolution that keeps height and width, a ReLU, and maxima of 2x2 if it is `pooled`.

    Attributes:
        channels: The channels of the output.
        dtype: The type that it is computed in; parameters are float32.
        pooled: Whether `max_pool` follows.
    """

    channels: int
    dtype: DTypeLike = jnp.float32
    pooled: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, height, width, c] to dtype [batch, height, width, channels], or halves."""
        shape = (3, 3, x.shape[-1], self.channels)
        # He's initialisation keeps the variance through the ReLUs where nothing is ported.
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))

        def function(x, kernel, bias):  # converts here, so that gradients add up in float32
            convolve = pooled_relu_convolution if self.pooled else relu_convolution
            return convolve(x, kernel.astype(self.dtype), bias.astype(self.dtype))

        return by_pairs(function, jnp.asarray(x, self.dtype), kernel, bias)


def pooled_relu_convolution(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Computes `max_pool` of `relu_convolution`.

    Accelerators mask and add up gradients of the maxima, which are a quarter of the numbers. The
    CPU does it where Winograd's convolution ends, at no cost.
    """

    def whole(x, kernel, bias):
        return max_pool(relu_convolution(x, kernel, bias))

    return jax.lax.platform_dependent(x, kernel, bias, cpu=whole, default=_pooled)


@jax.custom_vjp
def _pooled(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    return max_pool(plain(x, kernel, bias))


def _pooled_forward(x, kernel, bias):
    y = plain(x, kernel, bias)
    maxima, residuals = _max_pool_forward(y)
    return maxima, (x, kernel, maxima, residuals)


def _pooled_backward(residuals, gradient):
    x, kernel, maxima, residuals = residuals
    gradient = jnp.where(maxima > 0, gradient, 0)
    (spread,) = _max_pool_backward(residuals, gradient)
    return *jax.vjp(_plain, x, kernel)[1](spread), jnp.sum(gradient, (0, 1, 2))


_pooled.defvjp(_pooled_forward, _pooled_backward)


@jax.custom_vjp
def relu_convolution(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Computes the ReLU of a 3x3 convolution with zeros around the input.

    Args:
        x: [batch, height, width, c].
        kernel: [3, 3, c, channels], of x's type.
        bias: [channels], of x's type.

    Returns:
        [batch, height, width, channels].
    """
    return _by_platform(_winograd, plain, x, kernel, bias)


def plain(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Computes what `relu_convolution` does, in XLA's own operations."""
    return nn.relu(_plain(x, kernel) + bias[None, None, None])


def _relu_convolution_forward(x, kernel, bias):
    y = relu_convolution(x, kernel, bias)
    return y, (x, kernel, y)


def _relu_convolution_backward(residuals, gradient):
    x, kernel, y = residuals
    gradient = jnp.sign(y) * gradient  # 0 or 1; a TPU would spend 1 % of a step on y > 0

    def winograd(x, kernel, gradient):
        turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
        return _winograd(gradient, turned), _winograd_kernel_gradient(x, gradient)

    def plain(x, kernel, gradient):
        return jax.vjp(_plain, x, kernel)[1](gradient)

    x_gradient, kernel_gradient = _by_platform(winograd, plain, x, kernel, gradient)
    return x_gradient, kernel_gradient, jnp.sum(gradient, (0, 1, 2))


relu_convolution.defvjp(_relu_convolution_forward, _relu_convolution_backward)


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """Maps [batch, height, width, c] to [batch, height // 2, width // 2, c], maxima of 2x2.

    The first of equal maxima, row by row, receives the gradient, as in XLA's operation. That TPUs
    compute as it is; elsewhere its gradient is slow, and 8-bit places of the maxima are kept.
    """
    return jax.lax.platform_dependent(x, tpu=_plain_max_pool, default=_corner_max)


def _max_pool_forward(x):
    unfused = functools.partial(_unfused, _first_corner)  # or a CPU finds each place four times
    first = jax.lax.platform_dependent(x, cpu=unfused, default=_first_corner)
    return max_pool(x), (x, first)


def _max_pool_backward(residuals, gradient):
    def plain(x, first, gradient):
        return jax.vjp(_plain_max_pool, x)[1](gradient)[0]

    found = jax.lax.platform_dependent(*residuals, gradient, tpu=plain, default=_to_first_corner)
    return (found,)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def _plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)


def _plain_max_pool(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (2, 2), strides=(2, 2))


def _by_platform(cpu: Callable, default: Callable, x: jax.Array, kernel: jax.Array, last):
    """Calls `cpu` in programs for the CPU where it is faster, and otherwise `default`."""
    fits = (
        isinstance(x.shape[0], int)  # an exported program takes any number of rows
        and x.dtype == jnp.float32
        and min(x.shape[1:3]) >= TILE
        and x.shape[0] * -(-x.shape[1] // TILE) * -(-x.shape[2] // TILE) >= LEAST_TILES
        and min(kernel.shape[2:]) >= LEAST_CHANNELS
    )
    if not fits:
        return default(x, kernel, last)
    return jax.lax.platform_dependent(x, kernel, last, cpu=cpu, default=default)


def _winograd(x: jax.Array, kernel: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """Computes the convolution and, with a bias, adds the bias and applies the ReLU."""
    pieces = _Pieces(x.shape)
    padded = pieces.pad(x, edge=1)
    kernels = jnp.dot(np.kron(KERNEL, KERNEL), jnp.reshape(kernel, (9, -1)))
    kernels = jnp.reshape(kernels, (SIDE * SIDE, *kernel.shape[2:]))

    def convolve(index):
        tiles = _to_tiles(pieces.cut(padded, index, edge=1), INPUT)
        return _from_tiles(jnp.einsum("ptc,pcd->ptd", tiles, kernels), pieces.tiles, bias)

    return pieces.join(jax.lax.map(convolve, jnp.arange(pieces.count)))


def _winograd_kernel_gradient(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """Computes the kernel's gradient from the gradient of `_winograd` without a bias."""
    pieces = _Pieces(x.shape)
    padded, padded_gradient = pieces.pad(x, edge=1), pieces.pad(gradient, edge=0)

    def add(total, index):
        tiles = _to_tiles(pieces.cut(padded, index, edge=1), INPUT)
        gradients = _to_tiles(pieces.cut(padded_gradient, index, edge=0), OUTPUT.T)
        return total + jnp.einsum("ptc,ptd->pcd", tiles, gradients), None

    shape = (x.shape[-1], gradient.shape[-1])
    total = jnp.zeros((SIDE * SIDE, *shape), x.dtype)
    total, _ = jax.lax.scan(add, total, jnp.arange(pieces.count))
    total = jnp.dot(np.kron(KERNEL, KERNEL).T, jnp.reshape(total, (SIDE * SIDE, -1)))
    return jnp.reshape(total, (3, 3, *shape))


class _Pieces:
    """Divides a batch of maps into pieces of about `TILES_AT_ONCE` tiles.

    A piece holds either whole maps or, where these are large, some rows of tiles of one map.

    Attributes:
        count: The number of pieces.
        tiles: The tiles of a piece: maps, rows, columns.
    """

    def __init__(self, shape: tuple[int, ...]):
        """Divides maps of `shape`, (batch, height, width, c)."""
        self._shape = batch, height, width = shape[:3]
        rows, columns = -(-height // TILE), -(-width // TILE)
        self._strips = -(-rows * columns // TILES_AT_ONCE)  # into which a map is divided
        rows = -(-rows // self._strips)
        groups = batch
        if self._strips == 1:
            groups = -(-batch * rows * columns // TILES_AT_ONCE)
        maps = -(-batch // groups)
        self._groups = -(-batch // maps)
        self.tiles = maps, rows, columns
        self.count = self._groups * self._strips

    def pad(self, x: jax.Array, edge: int) -> jax.Array:
        """Pads the last pieces with zeros, and each map with `edge` rows and columns around it."""
        maps, rows, columns = self.tiles
        whole = self._groups * maps, self._strips * rows * TILE, columns * TILE
        more, below, right = (after - now for after, now in zip(whole, self._shape, strict=True))
        return jnp.pad(x, ((0, more), (edge, below + edge), (edge, right + edge), (0, 0)))

    def cut(self, padded: jax.Array, index: jax.Array, edge: int) -> jax.Array:
        """Copies a piece, with `edge` rows and columns around it."""
        maps, rows, _ = self.tiles
        start = index // self._strips * maps, index % self._strips * rows * TILE, 0, 0
        size = maps, rows * TILE + 2 * edge, *padded.shape[2:]
        return _unfused(
            lambda padded, *start: jax.lax.dynamic_slice(padded, start, size), padded, *start
        )

    def join(self, pieces: jax.Array) -> jax.Array:
        """Joins [count, maps, height, width, c] to maps, and removes the padding of `pad`."""
        maps, rows, columns = self.tiles
        size = self._groups * maps, self._strips * rows * TILE, columns * TILE, pieces.shape[-1]
        batch, height, width = self._shape
        return jnp.reshape(pieces, size)[:batch, :height, :width]


def _to_tiles(piece: jax.Array, matrix: np.ndarray) -> jax.Array:
    """Transforms overlapping squares of the input to tiles.

    Args:
        piece: [maps, height, width, c], four rows and columns for each tile, and the overlap of
            the last tiles.
        matrix: [6, n]; multiplies n x n squares from the left, and from the right transposed.

    Returns:
        [36, tiles, c].
    """
    rows, columns = piece.shape[1] // TILE, piece.shape[2] // TILE
    taps = range(matrix.shape[1])

    def along_height(x):
        parts = [x[:, tap : tap + TILE * rows - 3 : TILE] for tap in taps]
        return _combine(matrix, parts, axis=2)

    def along_width(x):
        x = jnp.transpose(x, (2, 0, 1, 3, 4))
        parts = [x[:, :, :, tap : tap + TILE * columns - 3 : TILE] for tap in taps]
        return _combine(matrix, parts, axis=1)

    tiles = _unfused(along_width, _unfused(along_height, piece))
    return jnp.reshape(tiles, (SIDE * SIDE, -1, piece.shape[-1]))


def _from_tiles(
    tiles: jax.Array, counts: tuple[int, int, int], bias: jax.Array | None
) -> jax.Array:
    """Transforms [36, tiles, c] back to [maps, height, width, c], and adds a bias and a ReLU."""
    maps, rows, columns = counts
    tiles = jnp.reshape(tiles, (SIDE, SIDE, maps, rows, columns, -1))

    def along_width(x):
        x = _combine(OUTPUT, [x[:, tap] for tap in range(SIDE)], axis=4)
        return jnp.reshape(x, (SIDE, maps, rows, columns * TILE, -1))

    def along_height(x, *bias):
        x = _combine(OUTPUT, list(x), axis=2)
        x = jnp.reshape(x, (maps, rows * TILE, columns * TILE, -1))
        return nn.relu(x + bias[0][None, None, None]) if bias else x

    x = _unfused(along_width, tiles)
    return _unfused(along_height, x) if bias is None else _unfused(along_height, x, bias)


def _combine(matrix: np.ndarray, parts: list[jax.Array], axis: int) -> jax.Array:
    """Multiplies `parts`, stacked along a new axis, from the left by a small matrix."""
    total = 0
    for column, part in zip(matrix.T, parts, strict=True):
        part = jnp.expand_dims(part, axis)
        total += jnp.reshape(column, [-1 if i == axis else 1 for i in range(part.ndim)]) * part
    return total


def _unfused(function: Callable, *arguments: jax.Array) -> jax.Array:
    """Calls a function that XLA must not fuse into its neighbours.

    They read each of its results many times over, and XLA would compute it as often.
    """
    with set_xla_metadata(inlineable="false"):
        return jax.jit(function)(*arguments)


def _corners(x: jax.Array) -> list[jax.Array]:
    """Returns the pixels of each 2x2 square, row by row: [batch, height // 2, width // 2, c]."""
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    return [x[:, row:height:2, column:width:2] for row in (0, 1) for column in (0, 1)]


def _corner_max(x: jax.Array) -> jax.Array:
    return functools.reduce(jnp.maximum, _corners(x))


def _first_corner(x: jax.Array) -> jax.Array:
    """Returns which corner of each square is the first of its largest, int8, 0 to 3."""
    largest, *others = _corners(x)
    first = jnp.zeros(largest.shape, jnp.int8)
    for corner, value in enumerate(others, start=1):
        first = jnp.where(value > largest, jnp.int8(corner), first)
        largest = jnp.maximum(largest, value)
    return first


def _to_first_corner(x: jax.Array, first: jax.Array, gradient: jax.Array) -> jax.Array:
    """Passes each gradient to the first of its square's largest pixels; of x it needs the shape."""
    corners = jnp.arange(4, dtype=jnp.int8).reshape(1, 1, 2, 1, 2, 1)
    spread = jnp.where(first[:, :, None, :, None] == corners, gradient[:, :, None, :, None], 0)
    batch, height, width, channels = gradient.shape
    spread = jnp.reshape(spread, (batch, height * 2, width * 2, channels))
    below, right = (
        now - before for now, before in zip(x.shape[1:3], spread.shape[1:3], strict=True)
    )
    return jnp.pad(spread, ((0, 0), (0, below), (0, right), (0, 0)))
