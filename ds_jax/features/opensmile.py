"""Features of openSMILE, through the optional package opensmile.

openSMILE's licence (audEERING Research License) allows non-commercial use only, and reaches the
features and the models that are trained on them.
"""

import functools
import warnings

import numpy as np

RATE = 16_000  # Hz; many of the features change with it
LARGEST = 32767 / 32768  # the largest 16-bit sample


def functionals(samples: np.ndarray, feature_set: str) -> np.ndarray:
    """Computes the functionals of one utterance.

    Args:
        samples: float32 [n] at 16 kHz, mono, full scale at 1; what is beyond it is clipped.
        feature_set: "eGeMAPSv02" (Eyben et al., 2016) or "ComParE_2016" (Schuller et al., 2016).

    Returns:
        float32 [88] or [6373] in openSMILE's order.

    Raises:
        ValueError: opensmile is not installed, or the utterance is too short for it.
    """
    extractor = _extractor(feature_set)
    # opensmile converts to 16 bits without a limit: resampled peaks of 1 or more would turn over.
    samples = np.clip(np.asarray(samples, np.float32), -1, LARGEST)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Segment too short", UserWarning)  # the NaN says so too
        features = extractor(samples, RATE).astype(np.float32).ravel()
    if np.isnan(features).any():
        raise ValueError(
            f"too short for openSMILE: {1000 * len(samples) / RATE:.0f} ms where 60 ms are needed"
        )
    return features


def package():
    """Imports opensmile.

    Raises:
        ValueError: It is not installed.
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


@functools.cache  # it reads its configuration files once; it cannot be sent to other processes
def _extractor(feature_set: str):
    """openSMILE set up for one set of features."""
    opensmile = package()
    return opensmile.Smile(
        feature_set=opensmile.FeatureSet[feature_set],
        feature_level=opensmile.FeatureLevel.Functionals,
    )
