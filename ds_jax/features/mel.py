"""Mel bands as in Slaney's Auditory Toolbox (1998), and so as in librosa.

The numbers are librosa's to the last bit. It computes the same, but takes a second to import, which
is a third of what it takes to predict one recording.
"""

import numpy as np

HERTZ = 200 / 3  # of a mel below 1000 Hz
LOGARITHMIC_HZ = 1000.0  # from here on mels are equal ratios
RATIO = np.log(6.4) / 27  # 27 mels multiply a frequency by 6.4


def frequencies(count: int, low: float, high: float) -> np.ndarray:
    """Returns frequencies in Hz at equal distances in mel, float64 [count].

    Args:
        count: Their number, with both ends.
        low, high: Hz, the first and the last of them.
    """
    corner = LOGARITHMIC_HZ / HERTZ

    def to_mel(hertz):
        if hertz < LOGARITHMIC_HZ:
            return hertz / HERTZ
        return corner + np.log(hertz / LOGARITHMIC_HZ) / RATIO

    mels = np.linspace(to_mel(low), to_mel(high), count)
    logarithmic = LOGARITHMIC_HZ * np.exp(RATIO * (np.maximum(mels, corner) - corner))
    return np.where(mels < corner, HERTZ * mels, logarithmic)


def bands(rate: int, n_fft: int, count: int, low: float, high: float) -> np.ndarray:
    """Returns triangular bands over the power of Fourier bins, float32 [count, n_fft // 2 + 1].

    Args:
        rate: Hz.
        n_fft: Samples in a frame.
        count: The number of bands.
        low, high: Hz, where the first begins and the last ends. Each begins and ends at the peaks
            of its neighbours, and has the area 1 over Hz.
    """
    corners = frequencies(count + 2, low, high)
    slopes = np.subtract.outer(corners, np.fft.rfftfreq(n_fft, 1 / rate))
    widths = np.diff(corners)[:, None]
    triangles = np.minimum(-slopes[:-2] / widths[:-1], slopes[2:] / widths[1:])
    weights = np.maximum(0, triangles).astype(np.float32)
    weights *= 2 / (corners[2:] - corners[:-2])[:, None]
    return weights
