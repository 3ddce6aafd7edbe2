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
from ds_jax.models.pairs import has_few_channels, parts_of_pictures
from ds_jax.models.pieces import Pieces, cut, is_pieces
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

    def batch(self, rows: jax.Array) -> jax.Array:
        """Returns `self[rows]`; TPUs read pictures in the parts in which `by_pairs` convolves them.

        Read at once, a large batch would have no room in a TPU's cache.
        """
        if len(self.shape) != 3 or not has_few_channels(self.shape[-1]):
            return self[rows]

        def in_parts(rows):
            return jnp.concatenate([self[part] for part in parts_of_pictures(rows)])

        return jax.lax.platform_dependent(rows, tpu=in_parts, default=self.__getitem__)


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
    """A corpus as a network's steps read it.

    Attributes:
        corpus: The corpus' inputs, or what the network's `lower` makes of them (an array, or a
            tree of arrays): on every device, or on the host or its disk where it is streamed.
            On devices timelines and maps of them are `Pieces`; on accelerators arrays, and those of
            pieces, are `Rows`.
        labels: int32 [n], where the corpus is.
        method: The network's method that reads it: "upper" where the work of `lower` is done.
        streamed: Whether it is sent to the devices batch by batch.
        widths: To how many columns each timeline is padded at least, int [n]; None without any.
        beside: What else belongs to each row, by its name: trees of arrays [n, ...], where the
            corpus is.
    """

    corpus: Any
    labels: jax.Array | np.ndarray
    method: str
    streamed: bool
    widths: np.ndarray | None = None
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

        def join(x, y):
            return x.join(y, count) if is_pieces(x) else jnp.concatenate([x[:count], y])

        def join_all(x, y):
            return jax.tree.map(join, x, y, is_leaf=is_pieces)

        kept = jax.tree.leaves(jax.eval_shape(join_all, *corpora))
        if not parallel.fits(sum(x.size * x.dtype.itemsize for x in kept)):
            return None
        corpus = jax.jit(join_all)(*corpora)
        first = jax.tree.leaves(corpus, is_leaf=is_pieces)[0]
        padded = len(first.starts if is_pieces(first) else first) - count
        labels = np.pad(np.asarray(other.labels), (0, padded - len(other.labels)))
        labels = parallel.replicate(np.concatenate([np.asarray(self.labels), labels]))
        widths = None if self.widths is None else np.append(self.widths, other.widths)
        return dataclasses.replace(self, corpus=corpus, labels=labels, widths=widths)

    def narrow_first(self, rows: np.ndarray) -> np.ndarray:
        """Returns an order of rows [m], int [m], in which those of a batch are of similar width."""
        if self.widths is None:
            return np.arange(len(rows))
        return np.argsort(self.widths[rows], kind="stable")

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
        self,
        layout: Layout,
        batches: Sequence[Sequence[np.ndarray]],
        length: int,
        width: int,
        narrow: bool = False,
    ) -> Iterator[Chunk]:
        """Yields the arguments of mapped steps, chunk by chunk.

        Args:
            layout: How models lie on devices.
            batches: For each model its batches of row numbers, int32; a model may have fewer than
                others, or none.
            length: Batches of a chunk, as `length` returns it.
            width: Rows a device takes of a batch.
            narrow: Whether timelines are padded to the corpus' widest, halved as often as those of
                the chunk allow: each width is compiled, so there should be few.

        Yields:
            Corpus, labels, rows [devices, length, width], mask and counts, see `Layout.spread`;
            where the corpus is streamed, the first two hold this chunk alone. With `beside` the
            corpus is a dictionary; inputs that are none are its `pictures`.
        """
        starts = range(0, max(map(len, batches)), length)
        chunks = [[each[start : start + length] for each in batches] for start in starts]
        spread = (layout.spread(chunk, length, width) for chunk in chunks)
        padded = [self._padded_width(chunk) if narrow else None for chunk in chunks]
        if not self.streamed:
            for chunk, columns in zip(spread, padded, strict=True):
                corpus = jax.tree.map(
                    functools.partial(self._narrowed, columns), self.corpus, is_leaf=is_pieces
                )
                yield _join(corpus, self.beside), self.labels, *chunk
            return
        spread = list(spread)
        if not spread:
            return
        read = zip(spread, self._read(spread), padded, strict=True)
        for (rows, mask, counts), pictures, columns in read:
            parts, pictures = (len(rows), length * width), pictures[..., :columns]
            numbers = np.arange(length * width, dtype=np.int32).reshape(length, width)

            def put(x, rows=rows, parts=parts):
                return layout.put(x[rows].reshape(*parts, *x.shape[1:]))

            pictures = layout.put(pictures.reshape(*parts, *pictures.shape[2:]))
            yield (
                _join(pictures, jax.tree.map(put, self.beside)),
                put(self.labels),
                np.broadcast_to(numbers, rows.shape),
                mask,
                counts,
            )

    def _padded_width(self, batches: Sequence[Sequence[np.ndarray]]) -> int | None:
        """Returns to how many columns the timelines of some batches are padded."""
        if self.widths is None:
            return None
        rows = np.concatenate([batch for of_model in batches for batch in of_model])
        return int(self.widths[rows].max())

    def _narrowed(self, columns: int | None, x: Any) -> Any:
        """Returns a node of the corpus with as many pieces of each timeline as columns need."""
        if columns is None or not is_pieces(x):
            return x
        return x.replace(width=x.width * columns // int(self.widths.max()))

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
    widths, padded = network.widths(corpus), None
    if widths is not None:
        counts = -(-widths // network.piece)
        halvings = np.log2(counts.max() / counts).astype(int)
        padded = -(-counts.max() // 2**halvings) * network.piece
    if network.frozen_blocks or parallel.accelerated():
        variables = {}
        if network.frozen_blocks:
            variables["params"], _ = split_frozen(network, params)
        lower = functools.partial(network.apply, method="lower")
        features = _resident(lower, variables, corpus, widths, network.piece)
        if features is not None:
            return Inputs(features, parallel.replicate(labels), "upper", False, padded)
    resident = _resident(lambda variables, pictures: pictures, {}, corpus, widths, network.piece)
    if resident is not None:
        return Inputs(resident, parallel.replicate(labels), "__call__", False, padded)
    return Inputs(corpus, labels, "__call__", True, padded)


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
    widths: np.ndarray | None,
    piece: int,
) -> Any:
    """Returns what `lower` makes of a corpus, on every device; None where that does not fit.

    Each device works on its share and gets those of the others. Rows of padding follow at the end.
    Maps of timelines become `Pieces`.

    Args:
        lower: Maps variables and some rows of the corpus to a tree of arrays.
        variables: What it is applied with.
        corpus: The rows.
        widths: The columns of each row, int [n]; None where all are equally wide.
        piece: Columns of a timeline that stay together.
    """
    width = min(parallel.WIDTH, ONE_MODEL.width(len(corpus)))
    size = width * jax.device_count()
    chunks, shape = -(-len(corpus) // size), corpus.shape[1:]
    counts, order = np.ones(len(corpus), np.int32), np.arange(len(corpus))
    if widths is not None:
        counts = -(-widths // piece).astype(np.int32)
        shape = (*shape[:-1], int(counts.max()) * piece)
        # Timelines of about the same width go together, so that less is computed of padding.
        order = np.argsort(widths, kind="stable")
    starts = np.cumsum(counts, dtype=np.int32) - counts

    def is_cut(x):
        return widths is not None and x.ndim > 2

    def room(x):
        if not is_cut(x):
            return jax.ShapeDtypeStruct((chunks * size, *x.shape[1:]), x.dtype)
        height, columns, *rest = x.shape[1:]
        cut_shape = int(counts.sum()), height, columns // int(counts.max()), *rest
        return jax.ShapeDtypeStruct(cut_shape, x.dtype)

    part = jax.ShapeDtypeStruct((width, *shape), corpus.dtype)
    made = jax.eval_shape(lower, variables, part)
    outputs = jax.tree.map(room, made)
    kept = jax.eval_shape(functools.partial(jax.tree.map, _kept), outputs)
    if not parallel.fits(sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(kept))):
        return None

    def fill(resident, variables, done, part, rows, pieces):
        gathered = lower(variables, part), rows, pieces
        new, rows, pieces = jax.lax.all_gather(gathered, parallel.AXIS, tiled=True)

        def put(resident, new, output):
            places = rows
            if is_cut(new):
                new, places = cut(new, output.shape[2]), pieces.reshape(-1)
            return resident.at[places].set(_kept(new), mode="drop")

        return jax.tree.map(put, resident, new, outputs), done + len(rows)

    fill = ONE_MODEL.parallel(fill, models=3, whole=0, spread=3, donate=True)
    resident = jax.tree.map(lambda x: parallel.zeros(x.shape, x.dtype), kept)
    variables = parallel.replicate(variables)
    title = "computing frozen blocks" if variables else "placing the corpus"
    if variables:
        parallel.say_compiling("the frozen blocks")
    done, shown = np.int32(0), processes.is_first_process()
    with progress.bar(title, len(corpus), "pictures", shown=shown) as bar:
        for start in range(0, len(corpus), size):
            batch = order[start : start + size].astype(np.int32)
            rows, mask, _ = ONE_MODEL.spread([[batch]], 1, width)
            rows, mask = rows[:, 0], mask[:, 0]
            pictures, span = corpus[rows], np.arange(1)
            if widths is not None:
                columns = min(spectrogram.padded_width(widths[batch].max()), shape[-1])
                pictures, span = _padded(pictures, columns), np.arange(columns // piece)
            # Padding, of rows and of what follows the end of a timeline, has no place.
            places = np.where(mask > 0, rows, chunks * size)
            real = (mask > 0)[..., None] & (span < counts[rows][..., None])
            pieces = np.where(real, starts[rows][..., None] + span, counts.sum())
            part = map(ONE_MODEL.put, (pictures, places, pieces))
            bar.update(int(done) - bar.n)  # waits for the part before
            resident, done = fill(resident, variables, done, *part)
        bar.update(min(int(done), len(corpus)) - bar.n)
    if parallel.accelerated():
        resident = jax.tree.map(lambda tiles, x: Rows(tiles, x.shape[1:]), resident, outputs)
    if widths is None:
        return resident
    after = (0, chunks * size - len(corpus))
    index = parallel.replicate((np.pad(starts, after), np.pad(counts, after)))

    def indexed(x, made):
        return Pieces(x, *index, int(counts.max())) if is_cut(made) else x

    return jax.tree.map(indexed, resident, made, is_leaf=lambda x: isinstance(x, Rows))


def _padded(pictures: np.ndarray, columns: int) -> np.ndarray:
    """Returns pictures [..., width] with so many columns, of which the last may be 0."""
    missing = max(0, columns - pictures.shape[-1])
    return np.pad(pictures, [(0, 0)] * (pictures.ndim - 1) + [(0, missing)])[..., :columns]


def _kept(x: jax.Array) -> jax.Array:
    """Returns an array [n, ...] as devices keep it: on accelerators the `tiles` of `Rows`."""
    if not parallel.accelerated():
        return x
    numbers = x.reshape(len(x), -1)
    padding = -numbers.shape[1] % math.prod(TILE)
    return jnp.pad(numbers, ((0, 0), (0, padding))).reshape(len(x), -1, TILE[1])
