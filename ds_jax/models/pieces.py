"""Maps of timelines of any width, kept without padding."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp


class Pieces(flax.struct.PyTreeNode):
    """Maps of timelines, cut in pieces of equal width that lie one after the other.

    Attributes:
        pieces: [pieces of all timelines, height, columns, ...], 0 after the end of a timeline: an
            array, or what gives some of its rows by their numbers.
        starts: int32 [n], the number of each timeline's first piece.
        counts: int32 [n], how many pieces each timeline has.
        width: How many pieces of each timeline are `whole`.
    """

    pieces: Any
    starts: jax.Array
    counts: jax.Array
    width: int = flax.struct.field(pytree_node=False)

    def rows(self, rows: jax.Array) -> "Pieces":
        """Returns some timelines, by their numbers int32 [m]; their pieces are read later."""
        return self.replace(starts=self.starts[rows], counts=self.counts[rows])

    def read(self, first: jax.Array, width: int) -> jax.Array:
        """Returns equally many pieces of each timeline, side by side.

        Args:
            first: int32 [n], the first piece that is wanted, counted from the timeline's own.
            width: How many, k.

        Returns:
            [n, height, k columns, ...], 0 after the end of a timeline.
        """
        numbers = first[:, None] + jnp.arange(width)[None]
        real = numbers < self.counts[:, None]
        x = self.pieces[jnp.where(real, self.starts[:, None] + numbers, 0).reshape(-1)]
        x = x.reshape(*numbers.shape, *x.shape[1:])
        x = jnp.where(real.reshape(*real.shape, *[1] * (x.ndim - 2)), x, jnp.zeros((), x.dtype))
        x = jnp.swapaxes(x, 1, 2)
        return x.reshape(*x.shape[:2], -1, *x.shape[4:])

    def whole(self) -> jax.Array:
        """Returns each timeline `self.width` pieces wide, [n, height, width, ...]."""
        return self.read(jnp.zeros_like(self.starts), self.width)

    def join(self, other: "Pieces", count: int) -> "Pieces":
        """Returns the first `count` timelines, and those of another after them.

        Each of the others has room for the widest of them, so that few shapes are compiled.
        """
        room = len(other.starts) * other.width

        def join(x, y):
            padding = [(0, room - len(y)), *[(0, 0)] * (y.ndim - 1)]
            return jnp.concatenate([x, jnp.pad(y, padding)])

        pieces = jax.tree.map(join, self.pieces, other.pieces)
        first = len(jax.tree.leaves(self.pieces)[0])
        starts = jnp.concatenate([self.starts[:count], first + other.starts])
        counts = jnp.concatenate([self.counts[:count], other.counts])
        return Pieces(pieces, starts, counts, max(self.width, other.width))


def cut(maps: jax.Array, columns: int) -> jax.Array:
    """Cuts maps, [batch, height, width, ...], in pieces, [batch x pieces, height, columns, ...]."""
    batch, height, width, *rest = maps.shape
    x = maps.reshape(batch, height, width // columns, columns, *rest)
    return jnp.swapaxes(x, 1, 2).reshape(-1, height, columns, *rest)


def is_pieces(x: Any) -> bool:
    """Tells whether a node of a tree is a `Pieces`, for `is_leaf`."""
    return isinstance(x, Pieces)
