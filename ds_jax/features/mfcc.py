"""Mel-frequency cepstral coefficients of an utterance, and their statistics over time.

Kerkeni et al. (2019, doi 10.5772/intechopen.84856) describe an utterance by five statistics of its
first 12 coefficients. They give neither frames nor bands: 25 ms, 10 ms and 26 bands are usual in
speech recognition (HTK).
"""

import warnings

import librosa
import numpy as np
import scipy  # whose parts it imports when they are used: pictures do without them

RATE = 16_000  # Hz
FRAME = 400  # samples, 25 ms
HOP = 160  # samples, 10 ms
BANDS = 26  # Slaney's, from 0 Hz to half the rate
COEFFICIENTS = 12


def frames(samples: np.ndarray) -> np.ndarray:
    """Computes the first 12 coefficients of every whole frame.

    The first is coefficient 0, the frame's level, as in librosa; "the first 12" could also mean
    the coefficients 1 to 12.

    Args:
        samples: float32 [n] at 16 kHz, mono; less than a frame of 25 ms is padded with zeros.

    Returns:
        float32 [frames, 12]: orthonormal cosine transforms (type 2) of mel bands in dB, which end
        80 dB below the loudest band of the utterance.
    """
    samples = np.pad(np.asarray(samples, np.float32), (0, max(0, FRAME - len(samples))))
    coefficients = librosa.feature.mfcc(
        y=samples,
        sr=RATE,
        n_mfcc=COEFFICIENTS,
        n_mels=BANDS,
        n_fft=FRAME,
        hop_length=HOP,
        center=False,  # no frame reaches beyond the recording
    )
    return coefficients.T.astype(np.float32)


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
