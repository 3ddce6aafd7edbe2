"""Pictures equal those that librosa and matplotlib plot, as DeepSpectrum does."""

import io
import os
import re
import warnings
from dataclasses import fields, replace
from pathlib import Path

import librosa
import librosa.display
import matplotlib
import matplotlib.image
import numpy as np
import pytest
import soundfile
from matplotlib.figure import Figure
from signals import sound

from ds_jax.features import mel, spectrogram
from ds_jax.features.spectrogram import PictureSettings, draw, matrix
from ds_jax.runtime.errors import ConfigError

VIRIDIS = np.round(matplotlib.colormaps["viridis"](np.arange(256))[:, :3] * 255)
NATIVE = PictureSettings(sample_rate=0)


def frame(rate):
    return 2 ** int(np.ceil(np.log2(int(0.025 * rate))))


def by_librosa(samples, rate, mode):
    """The matrix that DeepSpectrum plots in each mode: dB below the maximum, or pitch classes."""
    frames = {"n_fft": frame(rate), "hop_length": frame(rate) // 2, "center": False}
    if mode == "mel":
        power = librosa.feature.melspectrogram(y=samples, sr=rate, n_mels=128, **frames)
        return librosa.power_to_db(power, ref=np.max, top_db=None)
    spectrum = np.abs(librosa.stft(samples, **frames))
    if mode == "spectrogram":
        return librosa.amplitude_to_db(spectrum, ref=np.max, top_db=None)
    return librosa.feature.chroma_stft(S=spectrum**2, sr=rate)


def plotted(samples, rate, mode):
    """The picture that matplotlib paints, [227, 227, 3] in 0..255."""
    figure = Figure(figsize=(1, 1), frameon=False)
    axes = figure.add_axes([0, 0, 1, 1])
    axes.set_axis_off()
    librosa.display.specshow(
        by_librosa(samples, rate, mode),
        sr=rate,
        hop_length=frame(rate) // 2,
        fmax=rate / 2,
        cmap="viridis",
        x_axis="time",
        y_axis={"mel": "mel", "spectrogram": "linear", "chroma": "chroma"}[mode],
        ax=axes,
    )
    if mode == "spectrogram":
        axes.set_ylim(0, rate / 2)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=227)
    png.seek(0)
    return matplotlib.image.imread(png)[:, :, :3] * 255


def share_unlike(samples, rate, mode="mel"):
    """The share of pixels further than 3 of 255 from the plotted ones in any channel.

    It is not zero: with an even number of frames an edge falls on the centres of the middle column,
    and rounding noise in matplotlib chooses the colour.
    """
    ours = VIRIDIS[draw(samples, rate, replace(NATIVE, mode=mode))]
    return np.mean(np.abs(ours - plotted(samples, rate, mode)).max(axis=2) > 3)


@pytest.mark.parametrize(
    ("mode", "seconds", "rate"),
    [
        *((mode, *how) for mode in ("mel", "spectrogram") for how in ((0.7, 16000), (8, 48000))),
        ("mel", 35, 16000),
        ("chroma", 2, 16000),
    ],
)
def test_equals_the_plotted_picture(mode, seconds, rate):
    assert share_unlike(sound(seconds, rate), rate, mode) < 0.01


@pytest.mark.skipif("DS_JAX_CORPORA" not in os.environ, reason="DS_JAX_CORPORA names no recordings")
@pytest.mark.parametrize("corpus", ["emodb", "emovo"])
def test_equals_the_plotted_picture_of_recordings(corpus):
    files = sorted(
        Path(os.environ["DS_JAX_CORPORA"], corpus).rglob("*.flac"),
        key=lambda path: path.stat().st_size,
    )
    for path in files[:: max(1, (len(files) - 1) // 4)]:  # from the shortest to the longest
        assert share_unlike(*soundfile.read(path, dtype="float32")) < 0.01, path


@pytest.mark.parametrize(("seconds", "rate"), [(0.7, 16000), (3, 48000)])
def test_matrix_equals_librosa(seconds, rate):
    samples = sound(seconds, rate)
    ours = librosa.power_to_db(matrix(samples, rate, NATIVE).T, ref=np.max, top_db=None)
    np.testing.assert_allclose(ours, by_librosa(samples, rate, "mel"), atol=0.01)


def test_blocks_do_not_show(monkeypatch):
    samples = sound(1)
    whole = matrix(samples, 16000, NATIVE)
    monkeypatch.setattr("ds_jax.features.spectrogram.BLOCK", 7)
    np.testing.assert_allclose(matrix(samples, 16000, NATIVE), whole, rtol=1e-4)


@pytest.mark.parametrize("mode", ["mel", "spectrogram"])
def test_plain_layout_has_equal_cells(mode):
    samples = sound(1.2)
    cells = by_librosa(samples, 16000, mode)
    cells = np.floor((cells - cells.min()) / np.ptp(cells) * 256).clip(0, 255)[::-1]
    side = (np.arange(227) + 0.5) / 227
    rows, columns = (np.floor(side * count).astype(int) for count in cells.shape)
    difference = np.abs(
        draw(samples, 16000, replace(NATIVE, mode=mode, layout="plain")) - cells[rows][:, columns]
    )
    difference = np.delete(np.delete(difference, 113, 0), 113, 1)  # edges fall on these centres
    assert difference.max() <= 1  # the Fourier transforms round differently
    assert np.mean(difference > 0) < 0.01


TIMELINE = PictureSettings(layout="timeline", mel_bands=64, floor_db=80.0, colour_map="gray")


def test_floor_ends_the_colours():
    samples = sound(1.2)
    db = np.sort(by_librosa(samples, 16000, "mel").ravel())
    expected = np.floor((db + 30) / 30 * 256).clip(0, 255)
    floored = draw(samples, 16000, replace(NATIVE, floor_db=30.0))
    assert np.mean(expected == 0) > 0.2, "the sound must have something below the floor"
    assert set(np.unique(floored)) <= set(expected)
    np.testing.assert_array_equal(
        draw(samples, 16000, replace(NATIVE, floor_db=500.0)), draw(samples, 16000, NATIVE)
    )


@pytest.mark.parametrize("mode", ["mel", "spectrogram", "chroma"])
def test_loudness_does_not_show(mode):
    samples, settings = sound(1), replace(NATIVE, mode=mode)
    picture = draw(samples, 16000, settings)
    np.testing.assert_array_equal(draw(samples * 4, 16000, settings), picture)
    quieter = draw(samples / 3, 16000, settings).astype(int)
    assert np.abs(quieter - picture).max() <= 1


@pytest.mark.parametrize("layout", ["deepspectrum", "plain"])
@pytest.mark.parametrize(("mode", "height"), [("mel", np.log2(1.5)), ("spectrogram", 0.5)])
def test_frequency_limits_end_the_axis(mode, height, layout):
    tone = np.sin(2 * np.pi * 1500 * np.arange(16000) / 16000)
    settings = replace(NATIVE, mode=mode, layout=layout, fmin=1000.0, fmax=2000.0, mel_bands=32)
    mean = draw(tone, 16000, settings).mean(axis=1)
    row = np.flatnonzero(mean == mean.max()).mean() + 0.5
    assert abs(row - 227 * (1 - height)) < 227 / 32  # a cell's height


def test_tones_within_the_limits_light_their_pitch_classes():
    time = np.arange(16000) / 16000
    tones = np.sin(2 * np.pi * 440 * time) + 3 * np.sin(2 * np.pi * 1480 * time)
    # Of the twelve classes A is the tenth from the bottom, F sharp the seventh, C the first.
    a, f_sharp = round(227 * (12 - 9.5) / 12), round(227 * (12 - 6.5) / 12)
    for settings, row in ((NATIVE, f_sharp), (replace(NATIVE, fmax=1000.0), a)):
        assert (draw(tones, 16000, replace(settings, mode="chroma"))[row] == 255).all()


def test_axis_below_zero_mirrors_the_axis_above():
    picture = draw(sound(1), 16000, replace(NATIVE, mel_bands=2))
    # Cells about 0 and 8000 Hz have edges at -4000, 4000 and 12000 Hz.
    upper, lower = np.log2(12) - np.log2(4), 2 * (2 + np.log2(4))
    changes = np.flatnonzero((np.diff(picture.astype(int), axis=0) != 0).any(axis=1)) + 1
    assert changes == round(227 * upper / (upper + lower))


@pytest.mark.parametrize(("field", "value"), [("fmax", 8001.0), ("fmin", 8000.0)])
def test_the_band_must_fit_the_rate(field, value):
    for attempt in (
        lambda: PictureSettings(sample_rate=16000, **{field: value}),
        lambda: draw(sound(0.1), 16000, replace(NATIVE, **{field: value})),
    ):
        with pytest.raises(ConfigError) as error:
            attempt()
        assert (error.value.field, error.value.value) == (f"picture.{field}", value)


@pytest.mark.parametrize("mode", ["mel", "spectrogram", "chroma"])
@pytest.mark.parametrize("layout", ["deepspectrum", "plain"])
def test_short_and_constant_audio_is_drawn(mode, layout):
    settings = replace(NATIVE, mode=mode, layout=layout, canvas=64)
    for samples in (np.ones(1), sound(0.05)[:511], sound(0.05)[:513], np.zeros(900)):
        picture = draw(samples, 16000, settings)
        assert picture.shape == (64, 64)
        assert picture.dtype == np.uint8
        if len(samples) <= 513:
            assert (picture == picture[:, :1]).all()  # one frame fills the whole width
    assert not draw(np.zeros(900), 16000, settings).any()


def test_a_band_narrower_than_a_bin_is_drawn():
    for fmin, fmax in ((7999.0, 8000.0), (0.0, 1.0), (1000.0, 1001.0), (999.0, 1000.0)):
        settings = replace(NATIVE, mode="spectrogram", layout="plain", fmin=fmin, fmax=fmax)
        assert matrix(sound(1), 16000, settings).shape[1] == 2
        assert np.ptp(draw(sound(1), 16000, settings)) == 255


@pytest.mark.parametrize("samples", [np.zeros(0), np.zeros((2, 900))])
def test_only_one_channel_is_drawn(samples):
    with pytest.raises(ValueError, match="one channel"):
        draw(samples, 16000, NATIVE)


OTHER = {
    "trim": 40.0,
    "channel": "left",
    "raw_rate": 8000,
    "variant": "speed=0.9",
    "sample_rate": 8000,
    "mode": "chroma",
    "layout": "plain",
    "n_fft": 1024,
    "hop": 100,
    "mel_bands": 64,
    "fmin": 50.0,
    "fmax": 4000.0,
    "floor_db": 80.0,
    "subtract_band_means": True,
    "window": 4.0,
    "window_hop": 2.0,
    "canvas": 64,
    "colour_map": "magma",
    "size": 64,
    "preprocessing": "deepspectrum",
}


def test_the_key_changes_with_stored_pictures_and_their_version(monkeypatch):
    default = PictureSettings()
    base = replace(default, window=3.0)  # a window_hop needs one
    assert set(OTHER) == {field.name for field in fields(PictureSettings)}
    others = OTHER.items() - {("subtract_band_means", True)}  # of timelines alone
    keys = {name: replace(base, **{name: value}).key() for name, value in others}
    same = {name for name, key in keys.items() if key == base.key()}
    assert replace(TIMELINE, subtract_band_means=True).key() != TIMELINE.key()
    assert same == {"colour_map", "size", "preprocessing"}
    assert replace(default, floor_db=80).key() == replace(default, floor_db=80.0).key()
    assert re.fullmatch(r"[a-z0-9-]+", base.key())
    # Prepared corpora are found by it: a change here prepares all of them again.
    assert default.key() == "mel-deepspectrum-227-64f8761b"
    monkeypatch.setattr(spectrogram, "VERSION", 2)
    assert re.fullmatch(r"[a-z0-9-]+", default.key())
    assert default.key() not in {*keys.values(), "mel-deepspectrum-227-64f8761b"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, -1) for name in ("sample_rate", "n_fft", "hop", "mel_bands")),
        *((name, 0.5) for name in ("sample_rate", "n_fft", "canvas", "size")),
        *((name, "1") for name in ("mel_bands", "fmin", "window", "size")),
        *((name, -1.0) for name in ("fmin", "fmax", "floor_db", "window", "window_hop")),
        *((name, float("nan")) for name in ("fmin", "floor_db", "window")),
        *((name, "other") for name in ("mode", "layout", "preprocessing")),
        *((name, None) for name in ("mode", "n_fft", "colour_map")),
        ("n_fft", 511),
        ("mel_bands", True),
        ("canvas", 0),
        ("subtract_band_means", 1),
        ("subtract_band_means", True),  # of a picture that is no timeline
        ("size", 16),
        ("colour_map", ""),
        ("window", float("inf")),
        ("window_hop", 1.0),
    ],
)
def test_an_impossible_value_is_an_error_with_its_field(name, value):
    with pytest.raises(ConfigError) as error:
        PictureSettings(**{name: value})
    assert (error.value.field, repr(error.value.value)) == (f"picture.{name}", repr(value))


SHAPES = [
    (16_000, 512, 128, 0.0, 8000.0),
    (16_000, 512, 64, 0.0, 8000.0),
    (16_000, 400, 40, 50.0, 3700.0),
    (44_100, 2048, 128, 1500.0, 22_050.0),
    (8000, 256, 300, 0.0, 900.0),  # more bands than bins: some are empty
]


@pytest.mark.parametrize("shape", SHAPES)
def test_bands_and_frequencies_are_those_of_librosa(shape):
    rate, n_fft, count, low, high = shape
    expected = librosa.mel_frequencies(count, fmin=low, fmax=high)
    np.testing.assert_array_equal(mel.frequencies(count, low, high), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # librosa warns of empty bands
        expected = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=count, fmin=low, fmax=high)
    found = mel.bands(*shape)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("n_fft", [2, 400, 512, 2048])
def test_frames_are_weighted_by_librosa_s_window(n_fft):
    settings = PictureSettings(n_fft=n_fft, mode="spectrogram")
    expected = librosa.filters.get_window("hann", n_fft, fftbins=True).astype(np.float32)
    np.testing.assert_array_equal(spectrogram.plan(settings, 16_000).hann, expected)
