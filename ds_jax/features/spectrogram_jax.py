"""The pictures of `spectrogram` once more, in JAX: an exported model draws them itself."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ds_jax.features import spectrogram, windows
from ds_jax.features.spectrogram import AMIN, PictureSettings


def draw(samples: jax.Array, length: jax.Array, settings: PictureSettings, rate: int) -> jax.Array:
    """Draws audio as `picture.draw` draws it.

    Args:
        samples: float32 [n], mono; what lies beyond the audio's end is ignored.
        length: int32 [], how many of them are audio, 1 to n.
        settings: Of mode "mel" or "spectrogram".
        rate: Hz.

    Returns:
        uint8 [canvas, canvas], indices into a 256-entry colour map.
    """
    plan = spectrogram.plan(settings, rate)
    size = samples.shape[0]  # may be symbolic
    length = jnp.clip(length, 1, size)
    # n may be anything, so all are padded: audio shorter than a frame is padded to one.
    samples = jnp.pad(jnp.where(jnp.arange(size) < length, samples, 0), (0, plan.n_fft))
    starts = jnp.arange(size // plan.hop + 1) * plan.hop
    frames = samples[starts[:, None] + jnp.arange(plan.n_fft)[None]]
    spectra = jnp.fft.rfft(frames * plan.hann[None])
    count = jnp.maximum(length - plan.n_fft, 0) // plan.hop + 1  # of whole frames
    with jax.enable_x64():
        return jax.lax.platform_dependent(
            spectra.real,
            spectra.imag,
            count,
            tpu=functools.partial(_paint, plan, settings, jnp.float32),  # it has no float64
            default=functools.partial(_paint, plan, settings, jnp.float64),
        )


def _paint(
    plan: spectrogram.Plan,
    settings: PictureSettings,
    dtype: DTypeLike,
    real: jax.Array,
    imaginary: jax.Array,
    count: jax.Array,
) -> jax.Array:
    """Draws spectra, float32 [frames, bins], of which the first `count` are of the audio."""
    power = real.astype(dtype) ** 2 + imaginary.astype(dtype) ** 2
    weights = jnp.asarray(plan.weights, dtype)
    cells = jnp.matmul(power, weights, precision=jax.lax.Precision.HIGHEST)
    whole = (jnp.arange(cells.shape[0]) < count)[:, None]
    low = jnp.min(cells, where=whole, initial=jnp.inf)
    high = jnp.max(cells, where=whole, initial=0)
    cells = cells[spectrogram.pixels_to_cells(settings.canvas, count)]
    low, high, cells = (10 * jnp.log10(jnp.maximum(x, AMIN)) for x in (low, high, cells))
    if settings.floor_db:
        low = jnp.maximum(low, high - settings.floor_db)
    indices = (cells - low) * jnp.where(high > low, 256 / (high - low), 0)
    return jnp.clip(indices, 0, 255).astype(jnp.uint8).T[plan.rows]


def split_windows(
    samples: jax.Array, length: jax.Array, settings: PictureSettings, rate: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Cuts audio in windows as `picture.cut` does.

    Args:
        samples: float32 [n].
        length: int32 [], how many of them are audio, 1 to n.
        settings: window and window_hop in seconds are used.
        rate: Hz.

    Returns:
        As many windows as n samples have, float32 [windows, window]; how many samples of each are
        audio, int32 [windows]; and whether this audio has that many, bool [windows].
    """
    if not settings.window:
        return samples[None], length[None], jnp.ones(1, bool)
    size, step = windows.in_samples(settings.window, settings.window_hop, rate)
    starts = jnp.arange(windows.count(samples.shape[0], step, larger=jax.core.max_dim)) * step
    real = starts < windows.count(length, step, larger=jnp.maximum) * step
    samples = jnp.pad(samples, (0, size))
    parts = samples[starts[:, None] + jnp.arange(size)[None]]
    return parts, jnp.clip(length - starts, 0, size), real
