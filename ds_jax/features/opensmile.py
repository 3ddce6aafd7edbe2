"""Computes openSMILE's features with the optional package opensmile.

openSMILE's licence (audEERING Research License) allows non-commercial use only. It also covers the
features, and the models that are trained on them.
"""

import functools
import warnings

import numpy as np

RATE = 16_000  # Hz; many of the features depend on it
LARGEST = 32767 / 32768  # the largest 16-bit sample


def functionals(samples: np.ndarray, feature_set: str) -> np.ndarray:
    """Computes the functionals of one utterance.

    Args:
        samples: float32 [n] at 16 kHz, mono; values beyond the full scale of 1 are clipped.
        feature_set: "eGeMAPSv02" (Eyben et al., 2016) or "ComParE_2016" (Schuller et al., 2016).

    Returns:
        float32 [88] or [6373] in openSMILE's order.

    Raises:
        ValueError: The package is not installed, or the utterance is too short.
    """
    extractor = _extractor(feature_set)
    # The package converts to 16 bits without a limit: resampled peaks above 1 would overflow.
    samples = np.clip(np.asarray(samples, np.float32), -1, LARGEST)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Segment too short", UserWarning)  # then it returns NaN
        features = extractor(samples, RATE).astype(np.float32).ravel()
    if np.isnan(features).any():
        raise ValueError(
            f"too short for openSMILE: {1000 * len(samples) / RATE:.0f} ms where 60 ms are needed"
        )
    return features


def package():
    """Imports and returns the package opensmile.

    Raises:
        ValueError: The package is not installed.
    """
    try:
        import opensmile
    except ImportError as error:
        raise ValueError(
            "the features 'egemaps' and 'compare' need the package opensmile: install it with "
            "`pip install -r requirements-opensmile.txt` if its licence (audEERING Research "
            "License, non-commercial use only) allows your use"
        ) from error
    return opensmile


@functools.cache  # an extractor reads its configuration once, and cannot be pickled
def _extractor(feature_set: str):
    """Returns an extractor of a set of features."""
    opensmile = package()
    return opensmile.Smile(
        feature_set=opensmile.FeatureSet[feature_set],
        feature_level=opensmile.FeatureLevel.Functionals,
    )
