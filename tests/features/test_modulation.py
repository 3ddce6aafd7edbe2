"""Modulation spectral features agree with slow references and with Wu's definitions."""

import numpy as np
import pytest
from scipy import signal, stats

from ds_jax.features import modulation

RATE = 16_000


def noise(seconds, seed=0):
    """Noise whose level follows several rhythms, as that of speech does."""
    generator = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    level = 1 + sum(np.sin(2 * np.pi * f * time + f) / 5 for f in (3, 7, 19, 40, 70))
    return (0.1 * level * generator.normal(size=time.size)).astype(np.float32)


def bandwidth(frequency):
    """Hz of a gammatone filter, by the ERB formula of Glasberg and Moore (1990)."""
    return 1.019 * 24.7 * (4.37 * frequency / 1000 + 1)


def reference(samples):
    """The 95 energies in dB from sampled impulse responses, all at 16 kHz, frame by frame."""
    time = np.arange(RATE // 2) / RATE
    window = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(4096) / 4096)
    rows = []
    for centre in modulation.CENTRE_FREQUENCIES:
        decay = np.exp(-2 * np.pi * bandwidth(centre) * time)
        response = time**3 * decay * np.cos(2 * np.pi * centre * time)
        response /= abs(response @ np.exp(-2j * np.pi * centre * time))
        filtered = np.convolve(samples, response)[: samples.size]
        spectrum = np.fft.fft(filtered)
        spectrum[1 : samples.size // 2] *= 2
        spectrum[samples.size // 2 + 1 :] = 0
        envelope = abs(np.fft.ifft(spectrum))
        for band in modulation.MODULATION_FREQUENCIES:
            warped = np.tan(np.pi * band / RATE)
            width = warped / 2
            output = signal.lfilter(
                [width, 0, -width],
                [1 + width + warped**2, 2 * warped**2 - 2, 1 - width + warped**2],
                envelope,
            )
            starts = range(0, samples.size - 4095, 1024)
            frames = [np.sum((window * output[start : start + 4096]) ** 2) for start in starts]
            rows.append(10 * np.log10(np.mean(frames)))
    return np.asarray(rows)


def test_energies_agree_with_a_slow_computation_without_decimation():
    samples = noise(1.25)
    found = modulation.energies(samples).reshape(19, 5)
    expected = reference(samples).reshape(19, 5)
    np.testing.assert_allclose(found[:, :3], expected[:, :3], atol=0.1)
    np.testing.assert_allclose(found, expected, atol=0.5)


def test_a_shift_within_silence_hardly_changes_anything():
    inside = noise(1) * np.hanning(RATE).astype(np.float32)
    early, late = (np.pad(inside, (RATE + n, RATE - n)) for n in (0, 313))
    np.testing.assert_allclose(modulation.energies(late), modulation.energies(early), atol=0.05)


def test_long_audio_in_blocks_equals_audio_in_one(monkeypatch):
    samples = noise(4.03)
    whole = modulation.frames(samples)
    monkeypatch.setattr(modulation, "BLOCK", 16_384)
    blocks = modulation.frames(samples)
    assert blocks.shape == whole.shape == (1 + (4030 - 256) // 64, 19, 5)
    # Either end of what is transformed in one disturbs the other a little.
    np.testing.assert_allclose(10 * np.log10(blocks / whole)[3:-3], 0, atol=0.03)
    np.testing.assert_allclose(blocks.mean(0), whole.mean(0), rtol=0.005)
    assert np.any(blocks != whole)


def test_centre_frequencies_are_evenly_spaced_on_the_erb_scale():
    expected = "125 189 264 353 457 581 727 899 1102 1342 1625 1959 2353 2818 3366 4014 4778 5680"
    np.testing.assert_array_equal(
        np.round(modulation.CENTRE_FREQUENCIES), [*map(int, expected.split()), 6744]
    )
    rates = 21.4 * np.log10(1 + 0.00437 * np.append(modulation.CENTRE_FREQUENCIES, RATE / 2))
    np.testing.assert_allclose(np.diff(rates), (rates[-1] - rates[0]) / 19, rtol=1e-3)


def test_modulation_filters_reject_the_level_and_have_a_q_of_two():
    for (numerator, denominator), centre in zip(
        modulation._filters()[1], modulation.MODULATION_FREQUENCIES, strict=True
    ):
        # Q = 2: half the power at centre * (sqrt(1 + 1/16) +- 1/4).
        edges = centre * (np.sqrt(1 + 1 / 16) + np.array([-0.25, 0.25]))
        _, gains = signal.freqz(numerator, denominator, [0, *edges], fs=1000)
        np.testing.assert_allclose(abs(gains) ** 2, [0, 0.5, 0.5], atol=0.01)


@pytest.mark.parametrize(
    "samples",
    [
        np.ones(1),
        noise(0.1),
        noise(0.256),
        np.zeros(RATE),
        np.full(RATE, 0.5),
        np.clip(100 * noise(0.5), -1, 1),
        np.full(RATE, np.finfo(np.float32).max) * np.sign(noise(1)),
        np.full(RATE, np.finfo(np.float32).smallest_subnormal),
    ],
    ids=["one", "short", "frame", "silence", "offset", "clipped", "huge", "tiny"],
)
def test_any_finite_input_gives_finite_features(samples):
    samples = samples.astype(np.float32)
    before = samples.copy()
    found = modulation.with_measures(samples)
    assert found.shape == (118,)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    energies = modulation.energies(samples)
    assert energies.dtype == np.float32
    np.testing.assert_array_equal(energies, found[:95])
    np.testing.assert_array_equal(samples, before)


def test_short_audio_is_followed_by_silence():
    short = noise(0.1)
    np.testing.assert_array_equal(
        modulation.energies(short), modulation.energies(np.pad(short, (0, 2496)))
    )
    assert len(modulation.frames(short)) == 1


def test_silence_is_at_the_floor_and_flat():
    found = modulation.with_measures(np.zeros(RATE, np.float32))
    np.testing.assert_array_equal(found[:95], -120)
    flat = [1 / 95] * 5 + [0] * 3 + [10] * 3 + [3] * 4 + [0] * 8
    np.testing.assert_allclose(found[95:], flat, atol=1e-7, rtol=1e-6)


def test_measures_agree_with_loops_and_numpys_line():
    frames = np.random.default_rng(4).gamma(1, size=(3, 19, 5))
    found = modulation.measures(frames)
    assert found.shape == (3, 23)
    numbers, positions = np.arange(1, 20), np.arange(1, 6)
    for frame, row in zip(frames / frames.sum((1, 2), keepdims=True), found, strict=True):
        odd = [frame[:, band] for band in (0, 2, 4)]
        groups = [frame[a - 1 : b].sum(0) for a, b in ((1, 4), (5, 10), (11, 15), (16, 19))]
        lines = [np.polyfit(positions, group, 1) for group in groups]
        fitted = [np.polyval(line, positions) for line in lines]
        expected = [frame[:, band].mean() for band in range(5)]
        expected += [np.log10(stats.gmean(band) / band.mean()) for band in odd]
        expected += [np.average(numbers, weights=band) for band in odd]
        expected += [np.average(positions, weights=group) for group in groups]
        expected += [line[0] for line in lines]
        expected += [
            np.sqrt(np.mean((group - line) ** 2))
            for group, line in zip(groups, fitted, strict=True)
        ]
        np.testing.assert_allclose(row, expected, rtol=1e-9)


def test_statistics_of_measures_do_not_change_with_the_level():
    samples = noise(1.5)
    values = modulation.measures(modulation.frames(samples))
    statistics = modulation.statistics_of_measures(samples)
    assert (statistics.dtype, statistics.shape) == (np.float32, (46,))
    np.testing.assert_allclose(statistics[:23], values.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(statistics[23:], np.std(values, axis=0), rtol=1e-6)
    np.testing.assert_allclose(
        modulation.statistics_of_measures(samples / 2), statistics, rtol=1e-3
    )
