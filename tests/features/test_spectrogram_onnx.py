"""The picture that an ONNX graph draws is that of `spectrogram`."""

import numpy as np
import onnxruntime
import pytest
import scipy.fft

from ds_jax.features import silence, spectrogram, spectrogram_onnx
from ds_jax.features.spectrogram import PictureSettings
from ds_jax.runtime.graphs import Graph, expand

RATE = 16_000


def run(build, samples, lengths):
    """Runs a graph of two inputs; `build` returns its outputs, with their numbers of axes."""
    graph = Graph()
    inputs = graph.input("samples", np.float32, ("batch", "n"))
    for number, (value, axes) in enumerate(
        build(inputs, graph.input("lengths", np.int64, ("batch",)))
    ):
        graph.output(f"output_{number}", value, [f"size_{number}_{axis}" for axis in range(axes)])
    session = onnxruntime.InferenceSession(graph.serialize("test", "0", {}))
    return session.run(None, {"samples": samples, "lengths": np.asarray(lengths, np.int64)})


def sounds():
    """float32 [batch, n] of noise whose level rises, and how long each is; 7 follows the end.

    The last one has a telephone's band: its upper bands are at the floor throughout.
    """
    lengths = (7, 511, 512, 513, 5000, 40_001, 3000, 30_000)
    samples = np.full((len(lengths), 50_001), 7, np.float32)
    rng = np.random.default_rng(0)
    for row, length in zip(samples, lengths, strict=True):
        row[:length] = rng.normal(0, 0.1, length) * np.linspace(0, 1, length)
    samples[5, 9000:20_000] = 0  # digital silence
    samples[6, :3000] = 0
    low = scipy.signal.butter(12, 2000, fs=RATE, output="sos")
    said = scipy.signal.sosfilt(low, rng.normal(0, 0.1, lengths[7]))
    samples[7, : lengths[7]] = said * np.hanning(lengths[7])  # an end that is cut has all bands
    return samples, lengths


@pytest.mark.parametrize(
    "settings",
    [
        PictureSettings(),
        PictureSettings(mode="spectrogram", layout="plain", canvas=64, floor_db=80.0),
        PictureSettings(n_fft=1024, hop=160),
        PictureSettings(layout="timeline", mel_bands=64),
        PictureSettings(layout="timeline", mel_bands=32, subtract_band_means=True, floor_db=70.0),
    ],
    ids=["mel", "spectrogram", "1024", "timeline", "differences"],
)
def test_every_pixel_is_that_of_the_picture(settings):
    samples, lengths = sounds()

    def build(samples, lengths):
        pictures, seen = spectrogram_onnx.draw(samples, lengths, settings)
        return [(pictures, 3)] + ([(seen, 4)] if settings.is_timeline else [])

    pictures, *seen = run(build, samples, lengths)
    for row, (sound, length) in enumerate(zip(samples, lengths, strict=True)):
        expected = spectrogram.draw(sound[:length], RATE, settings)
        width = expected.shape[1]
        np.testing.assert_array_equal(pictures[row, :, :width], expected)
        if settings.is_timeline:
            wanted = np.arange(pictures.shape[2]) < width
            np.testing.assert_array_equal(seen[0][row, 0, 0], wanted)


def transform(frames):
    """The real and the imaginary parts of frames' spectra, float32 [frames, bins]."""

    def build(samples, _):
        spectra = spectrogram_onnx._spectra(expand(samples, 0), frames.shape[1])
        return [(part, 3) for part in spectra]

    (real,), (imaginary,) = run(build, frames, [frames.shape[1]] * len(frames))
    return real, imaginary


@pytest.mark.parametrize("n_fft", [2, 4, 8, 128, 512, 2048])
def test_the_fourier_transform_rounds_as_scipy_s(n_fft):
    frames = np.random.default_rng(0).normal(0, 1, (3, n_fft)).astype(np.float32)
    real, imaginary = transform(frames)
    expected = scipy.fft.rfft(frames, axis=1)
    np.testing.assert_array_equal(real, expected.real)
    np.testing.assert_array_equal(imaginary, expected.imag)


@pytest.mark.parametrize("n_fft", [6, 50, 400, 882])
def test_other_lengths_are_transformed_as_precisely(n_fft):
    frames = np.random.default_rng(0).normal(0, 1, (3, n_fft)).astype(np.float32)
    real, imaginary = transform(frames)
    expected = np.fft.rfft(frames.astype(float), axis=1)
    np.testing.assert_allclose(real + 1j * imaginary, expected, atol=1e-6 * n_fft**0.5)


def test_silence_is_cut_off_as_elsewhere():
    samples, lengths = sounds()
    samples[4, :3000] *= 1e-4
    settings = PictureSettings(trim=30.0)

    def build(samples, lengths):
        speech, counts = spectrogram_onnx.trim(samples, lengths, settings)
        return [(speech, 2), (counts, 1)]

    speech, counts = run(build, samples, lengths)
    for row, (sound, length) in enumerate(zip(samples, lengths, strict=True)):
        first, stop = silence.find_speech([sound[:length]], RATE, settings.trim)
        assert counts[row] == stop - first
        np.testing.assert_array_equal(speech[row, : counts[row]], sound[first:stop])


def test_windows_are_those_of_training():
    samples, lengths = sounds()
    settings = PictureSettings(window=0.5, window_hop=0.3)

    def build(samples, lengths):
        parts, counts, real = spectrogram_onnx.split_windows(samples, lengths, settings)
        return [(parts, 2), (counts, 1), (real, 2)]

    parts, counts, real = run(build, samples, lengths)
    parts, counts = parts.reshape(*real.shape, -1), counts.reshape(real.shape)
    for row, (sound, length) in enumerate(zip(samples, lengths, strict=True)):
        expected = settings.windowing.split(sound[:length], RATE)
        assert real[row].sum() == len(expected)
        for part, count, wanted in zip(parts[row], counts[row], expected, strict=False):
            np.testing.assert_array_equal(part[:count], wanted)
