"""Modulation spectral features: how strongly and how fast each frequency of speech is modulated.

The features are those of Wu, Falk and Chan (2011), "Automatic speech emotion recognition using
modulation spectral features", Speech Communication 53(5), as used by Kerkeni et al. (2019),
doi:10.5772/intechopen.84856. The filters are those of the first authors' SRMR toolkit: envelopes of
gammatone channels pass through modulation filters and are framed afterwards, because a 4 Hz filter
cannot settle within 256 ms.

Wu et al. normalise the level of the speech to -26 dBov and drop pauses; here an utterance counts
whole and at its recorded level. The filters start at rest, as after silence, and the trace of their
start in the first two frames stays in the means.
"""

import functools

import numpy as np
import scipy  # whose parts it imports when they are used: pictures do without them

SAMPLE_RATE = 16_000  # Hz; scipy's gammatone of 125 Hz is unstable at 44.1 and 48 kHz
# Hz. Evenly spaced on the ERB-rate scale of Glasberg and Moore with Slaney's constants (EarQ and
# the least bandwidth in Hz), from 125 Hz to one step below half the rate.
_CORNER = 9.26449 * 24.7
CENTRE_FREQUENCIES = np.geomspace(125 + _CORNER, SAMPLE_RATE / 2 + _CORNER, 20)[:-1] - _CORNER
MODULATION_FREQUENCIES = np.array([4.0, 8.0, 16.0, 32.0, 64.0])  # Hz
MODULATION_Q = 2
DECIMATION = 16  # envelopes hold nothing above 500 Hz that the modulation filters would pass
WINDOW, HOP = 256, 64  # samples of the decimated envelope, at 1 kHz: milliseconds
# Far below the energy of a 16-bit recorder's dither in any channel and band.
FLOOR = 1e-12
GROUPS = (slice(0, 4), slice(4, 10), slice(10, 15), slice(15, 19))  # of acoustic channels
BLOCK = 1 << 20  # samples filtered at a time (66 s), so that long files need little memory
# Samples (0.5 s) filtered on either side of a block and dropped; the slowest gammatone's response
# has long died away by then.
MARGIN = 1 << 13


def energies(samples: np.ndarray) -> np.ndarray:
    """Computes the 95 mean energies in decibels.

    Kerkeni et al. do not say whether they take the logarithm. A floor keeps silence at -120 dB.

    Args:
        samples: float [n], mono, 16 kHz, full scale at 1; less than 256 ms is padded with zeros.

    Returns:
        float32 [95]: index 5 * i + j holds acoustic channel i and modulation band j, both counted
        from the lowest.
    """
    return _decibels(frames(samples)).astype(np.float32)


def with_measures(samples: np.ndarray) -> np.ndarray:
    """Computes the 95 `energies` of samples, and then the means over frames of the 23 `measures`.

    Returns:
        float32 [118].
    """
    energy = frames(samples)
    return np.concatenate([_decibels(energy), measures(energy).mean(axis=0)]).astype(np.float32)


def statistics_of_measures(samples: np.ndarray) -> np.ndarray:
    """Computes means and standard deviations over frames of the 23 measures; samples as `energies`.

    The measures do not change with the level of the recording (Wu, Falk and Chan, 2011).

    Returns:
        float32 [46]: the 23 means and the 23 deviations, see `measures`.
    """
    values = measures(frames(samples))
    return np.concatenate([values.mean(axis=0), values.std(axis=0)]).astype(np.float32)


def frames(samples: np.ndarray) -> np.ndarray:
    """Computes the energy of frames of 256 ms, 64 ms apart, in each channel and modulation band.

    Returns:
        float64 [frames, 19, 5], of samples as `energies` takes them: the sum over the 4096 samples
        of a frame of the squared product of the filtered envelope and a periodic Hamming window.
        (It is computed at 1 kHz and scaled, which differs by less than 0.5 dB at 64 Hz and by less
        below.) A last part that fills no frame is left out.
    """
    samples = np.asarray(samples, np.float64)
    samples = np.pad(samples, (0, max(0, WINDOW * DECIMATION - samples.size)))
    weights = scipy.signal.get_window("hamming", WINDOW) ** 2 * DECIMATION
    gammatones, bands = _filters()
    energy = []
    for gammatone in gammatones:
        envelope = _envelope(samples, *gammatone)
        for band in bands:
            power = np.square(scipy.signal.lfilter(*band, envelope))
            energy.append(np.lib.stride_tricks.sliding_window_view(power, WINDOW)[::HOP] @ weights)
    return np.stack(energy, axis=1).reshape(-1, len(gammatones), len(bands))


def measures(frames: np.ndarray) -> np.ndarray:
    """Computes Wu, Falk and Chan's 23 measures of each frame, scaled to a total energy of 1.

    Channels and bands are counted from 1. The acoustic channels form four groups, 1-4, 5-10, 11-15
    and 16-19, whose energies are summed. All definitions are reconstructed from descriptions; that
    sum and the last two kinds of measures are the least certain.

    Args:
        frames: float [frames, 19, 5], as from the function `frames`.

    Returns:
        float64 [frames, 23]:
        0-4: mean over the channels, for each band;
        5-7: flatness over the channels, log10 of geometric by arithmetic mean, of bands 1, 3, 5;
        8-10: centroid over the channels, as a channel's number, of bands 1, 3, 5;
        11-14: centroid over the bands, as a band's number, of each group;
        15-18: slope per band of the line fitted to the energies of each group's bands;
        19-22: root mean square error of that line.
    """
    floored = np.maximum(frames, FLOOR)  # silence is flat
    scaled = floored / floored.sum(axis=(1, 2), keepdims=True)
    mean = scaled.mean(axis=1)
    odd = scaled[:, :, ::2]
    flatness = np.log10(odd).mean(axis=1) - np.log10(mean[:, ::2])
    channel = np.arange(1, odd.shape[1] + 1)
    spectral_centroid = np.einsum("i,kij->kj", channel, odd) / odd.sum(axis=1)

    grouped = np.stack([scaled[:, group].sum(axis=1) for group in GROUPS], axis=1)
    band = np.arange(1, grouped.shape[2] + 1)
    modulation_centroid = grouped @ band / grouped.sum(axis=2)
    centred = band - band.mean()
    slope = grouped @ centred / np.square(centred).sum()
    line = grouped.mean(axis=2, keepdims=True) + slope[..., None] * centred
    error = np.sqrt(np.square(grouped - line).mean(axis=2))
    return np.concatenate(
        [mean, flatness, spectral_centroid, modulation_centroid, slope, error], axis=1
    )


@functools.cache
def _filters() -> tuple[list, list]:
    """Returns numerators and denominators of the 19 gammatone and of the 5 modulation filters."""
    signal, rate = scipy.signal, SAMPLE_RATE / DECIMATION
    gammatones = [signal.gammatone(f, "iir", fs=SAMPLE_RATE) for f in CENTRE_FREQUENCIES]
    return gammatones, [signal.iirpeak(f, MODULATION_Q, fs=rate) for f in MODULATION_FREQUENCIES]


def _envelope(samples: np.ndarray, numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Returns the magnitude of a channel's analytic signal at 1 kHz, float64 [ceil(n / 16)]."""
    parts = []
    for start in range(0, samples.size, BLOCK):
        before = min(start, MARGIN)
        block = samples[start - before : start + BLOCK + MARGIN]
        filtered = scipy.signal.lfilter(numerator, denominator, block)
        analytic = scipy.signal.hilbert(filtered, scipy.fft.next_fast_len(block.size))[: block.size]
        envelope = scipy.signal.resample_poly(np.abs(analytic), 1, DECIMATION)
        parts.append(envelope[before // DECIMATION :][: BLOCK // DECIMATION])
    return np.concatenate(parts)


def _decibels(frames: np.ndarray) -> np.ndarray:
    """Returns the means over frames [frames, 19, 5] in decibels, float64 [95]."""
    return 10 * np.log10(np.maximum(frames.mean(axis=0), FLOOR)).ravel()
