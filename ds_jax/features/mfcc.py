"""Mel-frequency cepstral coefficients of an utterance, and their statistics over time.

Kerkeni et al. (2019, doi 10.5772/intechopen.84856) describe an utterance by five statistics of its
first 12 coefficients. They give neither frames nor bands: 25 ms, 10 ms and 26 bands are usual in
speech recognition (HTK).
"""

import warnings

import numpy as np
import scipy  # whose parts it imports when they are used: pictures do without them

from ds_jax.features import spectrogram

RATE = 16_000  # Hz
COEFFICIENTS = 12
# Frames of 25 ms, 10 ms apart, and 26 of Slaney's bands from 0 Hz to half the rate, which end 80 dB
# below the loudest of the utterance.
BANDS = spectrogram.PictureSettings(n_fft=400, hop=160, mel_bands=26, floor_db=80.0)


def frames(samples: np.ndarray) -> np.ndarray:
    """Computes the first 12 coefficients of every whole frame.

    The first is coefficient 0, the frame's level, as in librosa; "the first 12" could also mean
    the coefficients 1 to 12.

    Args:
        samples: float32 [n] at 16 kHz, mono; less than a frame of 25 ms is padded with zeros.

    Returns:
        float32 [frames, 12]: orthonormal cosine transforms (type 2) of `BANDS` in dB.
    """
    power = spectrogram.matrix(samples, RATE, BANDS)
    decibels = spectrogram.decibels(np, power, power.max(), BANDS)
    return scipy.fft.dct(decibels, norm="ortho")[:, :COEFFICIENTS].astype(np.float32)


def statistics(samples: np.ndarray) -> np.ndarray:
    """Computes mean, variance, standard deviation, kurtosis and skewness over frames.

    Args:
        samples: float32 [n] at 16 kHz, mono.

    Returns:
        float32 [60]: 12 means, 12 variances, and so on. The moments describe the frames and do not
        estimate those of a population. The kurtosis of the normal distribution is 0, and so are the
        kurtosis and the skewness of a coefficient that does not change.
    """
    coefficients = frames(samples).astype(np.float64)
    with warnings.catch_warnings():
        # SciPy warns of coefficients that (almost) do not change, and returns NaN.
        warnings.simplefilter("ignore", RuntimeWarning)
        shape = [scipy.stats.kurtosis(coefficients), scipy.stats.skew(coefficients)]
    moments = [coefficients.mean(axis=0), coefficients.var(axis=0), coefficients.std(axis=0)]
    return np.concatenate([*moments, *np.nan_to_num(shape)]).astype(np.float32)
