"""Draws the pictures of `spectrogram` in an ONNX graph, so that an exported model takes waveforms.

The Fourier transform is written out, in the order in which SciPy adds and multiplies on processors
without fused operations: colours then are those of `spectrogram`, whatever runs the graph. Any
other order rounds otherwise, and moves single pixels to the colour next to theirs.
"""

import math

import numpy as np

from ds_jax.features import audio, silence, spectrogram
from ds_jax.features.spectrogram import LEAST_WIDTH, PictureSettings
from ds_jax.runtime import graphs
from ds_jax.runtime.graphs import Value, arange, concatenate, expand, maximum, op


def draw(samples: Value, lengths: Value, settings: PictureSettings) -> tuple[Value, Value | None]:
    """Draws audio as `spectrogram.draw` does.

    Args:
        samples: float32 [batch, n], mono, at the rate of the settings; samples after the end of a
            row's audio are ignored.
        lengths: int64 [batch], the number of samples that are audio, 1 to n.
        settings: How the picture is drawn; the mode is not "chroma".

    Returns:
        int32 [batch, canvas, canvas], indices into a colour map, and None. Of timelines int32
        [batch, mel_bands, width], and 1 in the columns of each that are not padding, float32
        [batch, 1, 1, width].
    """
    plan = spectrogram.plan(settings, settings.sample_rate)
    counts = maximum(lengths - plan.n_fft, 0) // plan.hop + 1  # of whole frames
    numbers = arange(graphs.reduce("Max", counts, 0))
    samples = graphs.where(arange(graphs.size(samples, 1)) < expand(lengths, 1), samples, 0)
    samples = op("Pad", samples, [0, 0, 0, plan.n_fft])  # audio shorter than a frame is padded
    places = expand(numbers * plan.hop, 1) + np.arange(plan.n_fft)
    real, imaginary = _spectra(op("Gather", samples, places, axis=1) * plan.hann, plan.n_fft)
    real, imaginary = real.astype(np.float64), imaginary.astype(np.float64)
    cells = op("MatMul", real * real + imaginary * imaginary, plan.weights.toarray().T)
    whole = expand(numbers < expand(counts, 1), 2)
    low = graphs.reduce("Min", graphs.where(whole, cells, np.inf), 1, 2, keep=True)
    high = graphs.reduce("Max", graphs.where(whole, cells, 0), 1, 2, keep=True)
    if settings.is_timeline:
        return _timelines(
            op("Gather", cells, plan.rows, axis=2), whole, low, high, counts, settings
        )
    columns = spectrogram.pixels_to_cells(settings.canvas, expand(counts, 1))
    cells = op("GatherND", cells, expand(columns, 2), batch_dims=1)
    colours = spectrogram.colour_indices(graphs, cells, low, high, settings).astype(np.int32)
    return op("Transpose", op("Gather", colours, plan.rows, axis=2), perm=[0, 2, 1]), None


def _timelines(
    cells: Value, whole: Value, low: Value, high: Value, counts: Value, settings: PictureSettings
) -> tuple[Value, Value]:
    """Draws cells, float64 [batch, frames, bands], of which those where `whole` count."""
    if settings.subtract_band_means:
        decibels = spectrogram.decibels(graphs, cells, high, settings)
        totals = graphs.total(graphs.where(whole, decibels, 0), 1, keep=True)
        means = totals / expand(counts, 1, 2).astype(np.float64)
        colours = spectrogram.deviation_indices(graphs, decibels - means)
    else:
        colours = spectrogram.colour_indices(graphs, cells, low, high, settings)
    colours = maximum(colours.astype(np.int32), 1)
    frames = graphs.size(colours, 1)
    width = maximum(frames, LEAST_WIDTH)
    after = concatenate([[0] * 4, expand(width - frames, 0), [0]], axis=0)
    colours = op("Pad", colours, after)
    numbers = expand(arange(width), 0)
    # Columns after a short recording, up to the least width, have the colour 1.
    inside = expand(numbers < expand(counts, 1), 2)
    colours = op("Transpose", graphs.where(inside, colours, 1), perm=[0, 2, 1])
    real = numbers < maximum(expand(counts, 1), LEAST_WIDTH)
    return colours, expand(real.astype(np.float32), 1, 2)


def _spectra(frames: Value, n_fft: int) -> tuple[Value, Value]:
    """Transforms frames, float32 [batch, frames, n_fft], to [batch, frames, n_fft // 2 + 1].

    It decimates in time in the order of pocketfft's real transform (Swarztrauber, "Vectorizing the
    FFTs", 1982). Only the odd part of n_fft, by default 1, is transformed by a matrix, which rounds
    otherwise.

    Returns:
        The real and the imaginary parts.
    """
    streams = n_fft & -n_fft  # the largest power of two in it
    length = n_fft // streams
    real = op("Reshape", frames, [0, 0, length, streams])
    if length == 1:
        imaginary = real * 0
    else:
        turns = np.outer(np.arange(length // 2 + 1), np.arange(length)) % length / length
        waves, samples = np.exp(-2j * np.pi * turns), real.astype(np.float64)
        real = op("MatMul", waves.real, samples).astype(np.float32)
        imaginary = op("MatMul", waves.imag, samples).astype(np.float32)
    while streams > 1:
        radix = min(4, streams)
        real, imaginary = _combine(real, imaginary, length, radix)
        length, streams = length * radix, streams // radix
    return op("Squeeze", real, [3]), op("Squeeze", imaginary, [3])


def _combine(real: Value, imaginary: Value, length: int, radix: int) -> tuple[Value, Value]:
    """Combines transforms to ones of twice or four times the length.

    Args:
        real, imaginary: float32 [batch, frames, length // 2 + 1, streams].
        length: The numbers that each was computed from.
        radix: 2 or 4; the streams are a multiple of it.

    Returns:
        The same of [batch, frames, radix * length // 2 + 1, streams / radix].
    """
    half = (length + 1) // 2  # bins but the one in the middle, which an even length has
    angles = 2 * np.pi * np.outer(np.arange(radix), np.arange(half)) / (radix * length)
    cosines, sines = (f(angles).astype(np.float32)[..., None] for f in (np.cos, np.sin))
    reals, imaginaries = (graphs.split(x, radix, axis=3) for x in (real, imaginary))
    # The first and, where it is even, the middle bin need no rotation.
    middle = [op("Slice", x, [half], [half + 1], [2]) for x in reals] if length % 2 == 0 else []
    re, im = ([op("Slice", x, [0], [half], [2]) for x in xs] for xs in (reals, imaginaries))
    for i in range(1, radix if length > 1 else 1):
        cosine, sine = cosines[i], sines[i]
        re[i], im[i] = cosine * re[i] + sine * im[i], cosine * im[i] - sine * re[i]

    def mirrored(x, first=True):
        return op("Slice", x, [half - 1], [-half - 1 if first else 0], [2], [-1])

    if radix == 2:
        parts = [(re[0] + re[1], im[1] + im[0])]
        parts += [(middle[0], 0 - middle[1])] if middle else []
        parts += [(mirrored(re[0] - re[1]), mirrored(im[1] - im[0]))]
    else:
        odd_re, odd_im = re[3] + re[1], im[1] + im[3]
        even_re, even_im = re[0] + re[2], im[0] + im[2]
        across_re, across_im = re[3] - re[1], im[1] - im[3]
        apart_re, apart_im = re[0] - re[2], im[0] - im[2]
        parts = [(even_re + odd_re, odd_im + even_im)]
        upper = [(apart_re + across_im, across_re + apart_im)]
        if middle:
            root = np.float32(math.sqrt(0.5))
            plus, minus = (middle[1] + middle[3]) * -root, (middle[1] - middle[3]) * root
            parts.append((middle[0] + minus, plus - middle[2]))
            upper.append((middle[0] - minus, plus + middle[2]))
        if half > 1:
            last = apart_re - across_im, across_re - apart_im
            parts.append(tuple(mirrored(x, first=False) for x in last))
        parts += upper
        parts.append((mirrored(even_re - odd_re), mirrored(odd_im - even_im)))
    re, im = zip(*parts, strict=True)
    return concatenate(re, axis=2), concatenate(im, axis=2)


def trim(samples: Value, lengths: Value, settings: PictureSettings) -> tuple[Value, Value]:
    """Cuts silence off as `silence.find_speech` says, of what `draw` takes.

    Returns:
        The speech, followed by other samples, float32 [batch, n]; and its number of samples, int64
        [batch].
    """
    if not settings.trim:
        return samples, lengths
    rate, size = settings.sample_rate, graphs.size(samples, 1)
    frame, margin = round(silence.FRAME * rate), round(silence.MARGIN * rate)
    numbers, lengths = arange(size), expand(lengths, 1)
    inside = graphs.where(numbers < lengths, samples, 0).astype(np.float64)
    count = size // frame + 1
    # The last frame is what remains, which may be nothing.
    after = concatenate([[0] * 3, expand(count * frame - size, 0)], axis=0)
    frames = op("Reshape", op("Pad", inside, after), [0, -1, frame])
    energies = graphs.total(frames * frames, 2)
    loudest = graphs.reduce("Max", energies, 1, keep=True)
    loud = (energies >= loudest * 10 ** (-settings.trim / 10)).astype(np.int32)
    first = maximum(op("ArgMax", loud, axis=1) * frame - margin, 0)
    last = op("ArgMax", loud, axis=1, select_last_index=1)
    stop = graphs.minimum(lengths, (last + 1) * frame + margin)
    places = graphs.minimum(expand(numbers, 0) + first, size - 1)
    return op("GatherElements", samples, places, axis=1), op("Squeeze", stop - first, [1])


def split_windows(
    samples: Value, lengths: Value, settings: PictureSettings
) -> tuple[Value, Value, Value]:
    """Cuts audio, such as `draw` takes, into windows as `audio.Windowing.split` does.

    Returns:
        The windows of all rows, row after row, float32 [batch x windows, window]; the number of
        samples of each that are audio, int64 [batch x windows]; and whether the row has that
        window, bool [batch, windows].
    """
    size, step = settings.windowing.samples(settings.sample_rate)
    longest = graphs.reduce("Max", lengths, 0)
    starts, lengths = arange(audio.count_windows(longest, step, maximum)) * step, expand(lengths, 1)
    real = starts < audio.count_windows(lengths, step, maximum) * step
    places = expand(starts, 1) + np.arange(size)
    parts = op("Gather", op("Pad", samples, [0, 0, 0, size + step]), places, axis=1)
    remaining = graphs.clip(lengths - starts, 1, size)
    return op("Reshape", parts, [-1, size]), op("Reshape", remaining, [-1]), real
