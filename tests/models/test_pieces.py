"""Timelines in pieces: what is read of them is what padded arrays hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds_jax.models.pieces import Pieces, cut

COUNTS = (3, 1, 4, 2)
HEIGHT, COLUMNS, CHANNELS = 3, 2, 5


def padded(counts=COUNTS, seed=0):
    """Maps with 0 after the end of each."""
    rng, most = np.random.default_rng(seed), max(counts)
    maps = rng.random((len(counts), HEIGHT, most * COLUMNS, CHANNELS)).astype(np.float32)
    for row, count in zip(maps, counts, strict=True):
        row[:, count * COLUMNS :] = 0
    return maps


def in_pieces(counts=COUNTS, seed=0):
    every = np.asarray(cut(jnp.asarray(padded(counts, seed)), COLUMNS))
    real = np.concatenate([np.arange(max(counts)) < count for count in counts])
    counts = np.asarray(counts, np.int32)
    return Pieces(
        jnp.asarray(every[real]),
        jnp.asarray(np.cumsum(counts) - counts),
        jnp.asarray(counts),
        int(counts.max()),
    )


def test_no_piece_is_padding():
    kept = in_pieces()
    assert kept.pieces.shape == (sum(COUNTS), HEIGHT, COLUMNS, CHANNELS)
    assert np.asarray(kept.pieces).all()


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [2, 0, 2], [1]])
def test_timelines_are_the_padded_ones(rows):
    found = jax.jit(lambda x: x.rows(np.asarray(rows)).whole())(in_pieces())
    np.testing.assert_array_equal(found, padded()[rows])


def test_their_width_says_how_wide_they_are():
    narrow = in_pieces().replace(width=3)
    rows = np.asarray([3, 0])
    np.testing.assert_array_equal(narrow.rows(rows).whole(), padded()[rows][:, :, : 3 * COLUMNS])


def test_crops_are_read_alone():
    first = np.asarray([1, 0, 2, 1], np.int32)
    found = in_pieces().read(jnp.asarray(first), 2)
    for row, start in enumerate(first * COLUMNS):
        wanted = padded()[row][:, start : start + 2 * COLUMNS]
        np.testing.assert_array_equal(found[row][:, : wanted.shape[1]], wanted)
        assert not found[row][:, wanted.shape[1] :].any()


@pytest.mark.parametrize("others", [(1, 2), (5, 1)])
def test_timelines_are_joined(others):
    """Those of padding, at the end of the first ones, are left out."""
    joined = jax.jit(lambda x, y: x.join(y, 3))(in_pieces(), in_pieces(others, seed=1))
    found = joined.whole()
    assert len(found) == 3 + len(others)
    for row, wanted in enumerate([*padded()[:3], *padded(others, seed=1)]):
        np.testing.assert_array_equal(found[row][:, : wanted.shape[1]], wanted)
        assert not found[row][:, wanted.shape[1] :].any()
