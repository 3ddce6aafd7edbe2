"""What a network reads of a corpus: resident on the devices, or streamed to them."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.struct
import grain
import jax
import jax.numpy as jnp
import numpy as np

from ds_jax.data.corpus import StoredPictures
from ds_jax.features import spectrogram
from ds_jax.models.create import split_frozen
from ds_jax.models.layers import Network
from ds_jax.runtime import processes, progress
from ds_jax.training import parallel
from ds_jax.training.parallel import ONE_MODEL, Layout

# Bytes of pictures that are sent to a device at a time; another part is read meanwhile.
STREAMED_AT_ONCE = 1 << 28
THREADS = 16  # that read and decode; they wait for the disk as often as they compute
PARTS_AHEAD = 256  # batches' parts that are read before they are asked for, at most

TILE = 8, 128  # the last two axes of a TPU's arrays lie in tiles of so many numbers

Chunk = tuple  # what a mapped step takes after its models, see `Inputs.chunks`


class Rows(flax.struct.PyTreeNode):
    """An array [n, ...] on an accelerator, each of whose rows fills tiles of its own.

    Of any other array a TPU makes a copy in this form in every dispatch, before it reads some rows.

    Attributes:
        tiles: [n, 8 k, 128], the numbers of a row in their order, and then zeros.
        shape: The shape of a row.
    """

    tiles: jax.Array
    shape: tuple[int, ...] = flax.struct.field(pytree_node=False)

    def __getitem__(self, rows: jax.Array) -> jax.Array:
        """Returns some rows, [m, ...], for their numbers int32 [m]."""
        numbers = self.tiles[rows].reshape(len(rows), -1)[:, : math.prod(self.shape)]
        return numbers.reshape(len(rows), *self.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
    """A corpus as a network's steps read it.

    Attributes:
        corpus: The corpus' inputs, or what the network's `lower` makes of them (an array, or a
            tree of arrays): on every device, or on the host or its disk where it is streamed.
            On accelerators these are `Rows`.
        labels: int32 [n], where the corpus is.
        beside: What else belongs to each row, by its name: trees of arrays [n, ...], where the
            corpus is.
        method: The network's method that reads it: "upper" where the work of `lower` is done.
        streamed: Whether it is sent to the devices batch by batch.
    """

    corpus: Any
    labels: jax.Array | np.ndarray
    method: str
    streamed: bool
    beside: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def put_beside(self, tree: Mapping[str, Any]) -> "Inputs":
        """Returns the same with more that belongs to each row, a tree of arrays on the host."""
        return dataclasses.replace(self, beside=tree if self.streamed else parallel.replicate(tree))

    def join(self, other: "Inputs") -> "Inputs | None":
        """Returns the rows of both, the other's last; None where they do not fit on the devices.

        These lie on the devices. Rows of padding follow, so that few shapes are compiled.
        """
        if other.streamed or self.method != other.method:
            return None
        count, corpora = len(self.labels), (self.corpus, other.corpus)
        if not parallel.fits(sum(x.nbytes for x in jax.tree.leaves(corpora))):
            return None

        def join(x, y):
            return jnp.concatenate([x[:count], y])

        corpus = jax.jit(functools.partial(jax.tree.map, join))(*corpora)
        padded = len(jax.tree.leaves(corpus)[0]) - count
        labels = np.pad(np.asarray(other.labels), (0, padded - len(other.labels)))
        labels = parallel.replicate(np.concatenate([np.asarray(self.labels), labels]))
        return dataclasses.replace(self, corpus=corpus, labels=labels)

    def length(self, batches: int, width: int) -> int:
        """Returns how many batches, of `width` rows on a device, a chunk of an epoch holds."""
        length = parallel.batches_in_dispatch(batches)
        if self.streamed:
            row = int(np.prod(self.corpus.shape[1:])) * self.corpus.dtype.itemsize
            length = min(length, max(1, STREAMED_AT_ONCE // (width * row)))
        return length

    def parallel(self, layout: Layout, step: Callable, models: int, donate: bool = False):
        """Maps a step `(*models, corpus, labels, rows, mask, count)` over devices.

        Args:
            layout: How models lie on devices.
            step: The step, which works off a chunk: `corpus[rows[k]]` are the inputs of batch
                k < count, and rows with a `mask[k]` of 0 are padding.
            models: How many arguments belong to a model.
            donate: Whether the first argument's memory is taken for the result.
        """
        # A corpus that is streamed, and its labels, differ from device to device.
        whole, spread = (0, 5) if self.streamed else (2, 3)
        return layout.parallel(step, models=models, whole=whole, spread=spread, donate=donate)

    def chunks(
        self, layout: Layout, batches: Sequence[Sequence[np.ndarray]], length: int, width: int
    ) -> Iterator[Chunk]:
        """Yields the arguments of mapped steps, chunk by chunk.

        Args:
            layout: How models lie on devices.
            batches: For each model its batches of row numbers, int32; a model may have fewer than
                others, or none.
            length: Batches of a chunk, as `length` returns it.
            width: Rows a device takes of a batch.

        Yields:
            Corpus, labels, rows [devices, length, width], mask and counts, see `Layout.spread`;
            where the corpus is streamed, the first two hold this chunk alone. With `beside` the
            corpus is a dictionary; inputs that are none are its `pictures`.
        """
        starts = range(0, max(map(len, batches)), length)
        spread = (
            layout.spread([each[start : start + length] for each in batches], length, width)
            for start in starts
        )
        if not self.streamed:
            corpus = _join(self.corpus, self.beside)
            yield from ((corpus, self.labels, *chunk) for chunk in spread)
            return
        spread = list(spread)
        if not spread:
            return
        for (rows, mask, counts), pictures in zip(spread, self._read(spread), strict=True):
            parts = len(rows), length * width
            numbers = np.arange(length * width, dtype=np.int32).reshape(length, width)

            def put(x, rows=rows, parts=parts):
                return layout.put(x[rows].reshape(*parts, *x.shape[1:]))

            pictures = layout.put(pictures.reshape(*parts, *self.corpus.shape[1:]))
            yield (
                _join(pictures, jax.tree.map(put, self.beside)),
                put(self.labels),
                np.broadcast_to(numbers, rows.shape),
                mask,
                counts,
            )

    def _read(self, spread: Sequence[tuple[np.ndarray, ...]]) -> Iterator[np.ndarray]:
        """Yields the pictures of each chunk, some of the next ones being read meanwhile."""
        shape, dtype = self.corpus.shape[1:], self.corpus.dtype

        def read(rows: np.ndarray) -> np.ndarray:
            pictures, real = np.zeros((len(rows), *shape), dtype), rows >= 0
            pictures[real] = self.corpus[rows[real]]
            return pictures

        # A batch's part for a device at a time: a picture takes less time than handing it on.
        wanted = [np.where(mask, rows, -1) for rows, mask, _ in spread]
        parts = np.concatenate([rows.reshape(-1, rows.shape[-1]) for rows in wanted])
        part = parts.shape[1] * math.prod(shape) * dtype.itemsize  # bytes
        ahead = min(PARTS_AHEAD, max(1, STREAMED_AT_ONCE // part))
        return iter(
            grain.MapDataset.source(parts)
            .map(read)
            .to_iter_dataset(grain.ReadOptions(min(THREADS, ahead), prefetch_buffer_size=ahead))
            .batch(len(parts) // len(spread))
        )


def create_inputs(
    network: Network,
    params: Mapping,
    corpus: np.ndarray | StoredPictures,
    labels: np.ndarray | None = None,
) -> Inputs:
    """Puts a corpus on every device, or prepares to stream it where it is too large for that.

    What the network's `lower` makes of the inputs is computed once and kept, if blocks are frozen
    or the devices are accelerators, and if it fits; else the inputs are kept and the steps compute
    it each time, without gradients.

    Args:
        network: The network that reads the corpus.
        params: All parameters of the network, by layer.
        corpus: Inputs as `corpus.Corpus` has them.
        labels: int32 [n]; needed for training.
    """
    labels = np.zeros(len(corpus), np.int32) if labels is None else labels
    if network.frozen_blocks or parallel.accelerated():
        variables = {}
        if network.frozen_blocks:
            variables["params"], _ = split_frozen(network, params)
        lower = functools.partial(network.apply, method="lower")
        features = _resident(lower, variables, corpus, network.widths)
        if features is not None:
            return Inputs(features, parallel.replicate(labels), "upper", streamed=False)
    resident = _resident(lambda variables, pictures: pictures, {}, corpus)
    if resident is not None:
        return Inputs(resident, parallel.replicate(labels), "__call__", streamed=False)
    return Inputs(corpus, labels, "__call__", streamed=True)


def split_batches(rows: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Cuts row numbers in batches; the last may be smaller."""
    return [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]


def _join(corpus: Any, beside: Mapping[str, Any]) -> Any:
    """Returns a corpus, or part of one, with what belongs to its rows."""
    if not beside:
        return corpus
    return {**(corpus if isinstance(corpus, Mapping) else {"pictures": corpus}), **beside}


def _resident(
    lower: Callable,
    variables: Mapping,
    corpus: np.ndarray | StoredPictures,
    widths_of: Callable = lambda corpus: None,
) -> Any:
    """Returns what `lower` makes of a corpus, on every device; None where that does not fit.

    Each device works on its share and gets those of the others. Rows of padding follow at the end.

    Args:
        lower: Maps variables and some rows of the corpus to a tree of arrays.
        variables: What it is applied with.
        corpus: The rows.
        widths_of: Returns the columns of each row, int [n]; None where all are equally wide.
    """
    width = min(parallel.WIDTH, ONE_MODEL.width(len(corpus)))
    size = width * jax.device_count()
    chunks = -(-len(corpus) // size)
    part = jax.ShapeDtypeStruct((width, *corpus.shape[1:]), corpus.dtype)
    outputs = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((chunks * size, *x.shape[1:]), x.dtype),
        jax.eval_shape(lower, variables, part),
    )
    kept = jax.eval_shape(functools.partial(jax.tree.map, _kept), outputs)
    if not parallel.fits(sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(kept))):
        return None
    widths = widths_of(corpus)

    def fill(resident, variables, start, part, rows):
        new, rows = jax.lax.all_gather((lower(variables, part), rows), parallel.AXIS, tiled=True)

        def put(resident, new, output):
            if widths is None:
                return jax.lax.dynamic_update_slice_in_dim(resident, _kept(new), start, axis=0)
            shapes = zip(output.shape[1:], new.shape[1:], strict=True)
            padding = [(0, whole - part) for whole, part in shapes]
            new = _kept(jnp.pad(new, [(0, 0), *padding]))
            return resident.at[rows].set(new, mode="drop")

        return jax.tree.map(put, resident, new, outputs), start + len(rows)

    fill = ONE_MODEL.parallel(fill, models=3, whole=0, spread=2, donate=True)
    resident = jax.tree.map(lambda x: parallel.zeros(x.shape, x.dtype), kept)
    variables = parallel.replicate(variables)
    title = "computing frozen blocks" if variables else "placing the corpus"
    if variables:
        parallel.say_compiling("the frozen blocks")
    done, shown = 0, processes.is_first_process()
    # Timelines of about the same width go together, so that less of what is computed is padding.
    order = np.arange(len(corpus)) if widths is None else np.argsort(widths, kind="stable")
    with progress.bar(title, len(corpus), "pictures", shown=shown) as bar:
        for start in range(0, len(corpus), size):
            batch = order[start : start + size].astype(np.int32)
            rows, mask, _ = ONE_MODEL.spread([[batch]], 1, width)
            rows, mask = rows[:, 0], mask[:, 0]
            pictures = corpus[rows]
            if widths is not None:
                pictures = pictures[..., : spectrogram.padded_width(widths[batch].max())]
            places = np.where(mask > 0, rows, chunks * size)  # padding has none
            part = ONE_MODEL.put(pictures), ONE_MODEL.put(places)
            bar.update(int(done) - bar.n)  # waits for the part before
            resident, done = fill(resident, variables, np.int32(start), *part)
        bar.update(min(int(done), len(corpus)) - bar.n)
    if not parallel.accelerated():
        return resident
    return jax.tree.map(lambda tiles, x: Rows(tiles, x.shape[1:]), resident, outputs)


def _kept(x: jax.Array) -> jax.Array:
    """Returns an array [n, ...] as devices keep it: on accelerators the `tiles` of `Rows`."""
    if not parallel.accelerated():
        return x
    numbers = x.reshape(len(x), -1)
    padding = -numbers.shape[1] % math.prod(TILE)
    return jnp.pad(numbers, ((0, 0), (0, padding))).reshape(len(x), -1, TILE[1])
