"""Draws the pictures of `spectrogram` in JAX, so that an exported model takes waveforms."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ds_jax.features import audio, silence, spectrogram
from ds_jax.features.spectrogram import LEAST_WIDTH, PictureSettings


def draw(samples: jax.Array, length: jax.Array, settings: PictureSettings, rate: int) -> jax.Array:
    """Draws audio as `spectrogram.draw` does.

    Args:
        samples: float32 [n], mono; samples after the audio's end are ignored.
        length: int32 [], the number of samples that are audio, 1 to n.
        settings: How the picture is drawn; the mode is not "chroma", whose tuning is not estimated.
        rate: Hz.

    Returns:
        uint8 [canvas, canvas], indices into a colour map of 256 entries; or a timeline, uint8
        [mel_bands, width], 0 after its end, whose width is a multiple of 32.
    """
    plan = spectrogram.plan(settings, rate)
    size = samples.shape[0]  # may be symbolic
    length = jnp.clip(length, 1, size)
    # Audio shorter than a frame is padded to one; n is unknown, so that all audio is padded.
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
            tpu=functools.partial(_paint, plan, settings, jnp.float32),  # TPUs lack float64
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
    """Draws spectra, float32 [frames, bins], of which the first `count` belong to the audio."""
    power = real.astype(dtype) ** 2 + imaginary.astype(dtype) ** 2
    weights = jnp.asarray(plan.weights.toarray().T, dtype)
    cells = jnp.matmul(power, weights, precision=jax.lax.Precision.HIGHEST)
    whole = (jnp.arange(cells.shape[0]) < count)[:, None]
    low = jnp.min(cells, where=whole, initial=jnp.inf)
    high = jnp.max(cells, where=whole, initial=0)
    if settings.is_timeline:
        return _timeline(cells, whole, low, high, settings)
    cells = cells[spectrogram.pixels_to_cells(settings.canvas, count)]
    return spectrogram.colour_indices(jnp, cells, low, high, settings).T[plan.rows]


def _timeline(
    cells: jax.Array, whole: jax.Array, low: jax.Array, high: jax.Array, settings: PictureSettings
) -> jax.Array:
    """Draws cells, float [frames, bands], of which those where `whole`, bool [frames, 1], count."""
    if settings.subtract_band_means:
        decibels = spectrogram.decibels(jnp, cells, high, settings)
        means = jnp.mean(decibels, axis=0, where=whole, keepdims=True)
        colours = spectrogram.deviation_indices(jnp, decibels - means)
    else:
        colours = spectrogram.colour_indices(jnp, cells, low, high, settings)
    colours = jnp.where(whole, jnp.maximum(colours, 1), 0)
    # A symbolic width must be known to be no less than the least, and to be halved five times.
    width = 32 * (colours.shape[0] // 32 + 1) + LEAST_WIDTH
    colours = jnp.pad(colours, ((0, width - colours.shape[0]), (0, 0)))
    short = (jnp.arange(width) < LEAST_WIDTH)[:, None]
    return jnp.where(short, jnp.maximum(colours, 1), colours).T[::-1]


def trim(
    samples: jax.Array, length: jax.Array, settings: PictureSettings, rate: int
) -> tuple[jax.Array, jax.Array]:
    """Cuts silence off as `silence.find_speech` says, of what `draw` takes.

    Returns:
        The speech, followed by other samples, float32 [n]; and its number of samples, int32 [].
    """
    if not settings.trim:
        return samples, length
    frame, margin = round(silence.FRAME * rate), round(silence.MARGIN * rate)
    size = samples.shape[0]
    length = jnp.clip(length, 1, size)
    count = size // frame + 1
    inside = jnp.pad(jnp.where(jnp.arange(size) < length, samples, 0), (0, frame))
    frames = inside[jnp.arange(count)[:, None] * frame + jnp.arange(frame)[None]]
    energies = jnp.sum(jnp.square(frames), axis=1)
    loud = energies >= jnp.max(energies) * 10 ** (-settings.trim / 10)
    first = jnp.maximum(0, jnp.argmax(loud) * frame - margin)
    stop = jnp.minimum(length, (count - jnp.argmax(loud[::-1])) * frame + margin)
    places = jnp.minimum(jnp.arange(size) + first, size - 1)
    return samples[places], (stop - first).astype(jnp.int32)


def split_windows(
    samples: jax.Array, length: jax.Array, settings: PictureSettings, rate: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Cuts audio, such as `draw` takes, into windows as `audio.Windowing.split` does.

    Returns:
        The windows of n samples, float32 [windows, window]; the number of samples of each that are
        audio, int32 [windows]; and whether the audio has that window, bool [windows].
    """
    if not settings.window:
        return samples[None], length[None], jnp.ones(1, bool)
    size, step = settings.windowing.samples(rate)
    starts = jnp.arange(audio.count_windows(samples.shape[0], step, jax.core.max_dim)) * step
    real = starts < audio.count_windows(length, step, jnp.maximum) * step
    samples = jnp.pad(samples, (0, size))
    parts = samples[starts[:, None] + jnp.arange(size)[None]]
    return parts, jnp.clip(length - starts, 0, size), real
