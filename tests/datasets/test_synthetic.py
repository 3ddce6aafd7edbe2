"""Synthetic speech has the published layouts, is the same every time, and can be learnt."""

import itertools
import re

import numpy as np
import pytest
import scipy.signal
import soundfile
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from datasets import synthetic
from ds_jax.data.labels import LABELS
from ds_jax.features import audio, spectrogram
from ds_jax.features.spectrogram import PictureSettings

SMALL = {"speakers": 2, "sentences": 1, "elra_sentences": 2}
RATE = 16_000
EMOMATCH = re.compile(
    r"^(?P<speaker>\d{1,2})_(?P<emotion>Ira|Asco|Miedo|Alegria|Neutro|Tristeza|Sorpresa)"
    r"_+(?P<sentence>\d{1,2})\.wav$",
    re.IGNORECASE,
)
ELRA = re.compile(
    r"^S0329/INTER1SP_01/(?P<speaker>[fm])/sess(?P<style>[adfjnshlwzu])00(?P<session>[12])/"
    r"sp(?P=speaker)(?P=session)(?P=style)\d{3}\.l16$"
)
EMOTIONS = {"Ira": "ANGER", "Asco": "DISGUST", "Miedo": "FEAR", "Alegria": "JOY"} | {
    "Neutro": "NEUTRAL",
    "Tristeza": "SADNESS",
    "Sorpresa": "SURPRISE",
}
STYLES = dict(zip("adfjnsuhlwz", (*LABELS, *["NEUTRAL"] * 4), strict=True))


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """The two corpora with every speaker of the defaults and fewer sentences."""
    folder = tmp_path_factory.mktemp("corpora")
    synthetic.write_corpora(folder, sentences=2, elra_sentences=2)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The smallest corpora."""
    folder = tmp_path_factory.mktemp("small")
    synthetic.write_corpora(folder, **SMALL)
    return folder


@pytest.fixture(scope="module")
def emomatch(corpora):
    """Samples, labels and speakers of the EmoMatch-like corpus."""
    paths = sounds(corpora / "emomatch_spanish_db")
    labels = np.asarray([EMOTIONS[EMOMATCH.match(path.name)["emotion"]] for path in paths])
    return [audio.read(path, RATE)[0] for path in paths], labels, [path.name[:2] for path in paths]


def sounds(folder):
    return sorted(path for path in folder.rglob("*") if path.suffix in (".WAV", ".l16"))


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def read(path):
    """int16 [samples, channels] and the rate in Hz."""
    if path.suffix == ".l16":
        return np.fromfile(path, "<i2")[:, None], RATE
    return soundfile.read(path, dtype="int16", always_2d=True)


def log_mel(samples):
    """float [32 bands x 24 times] in dB, from the maximum to 60 dB below it."""
    settings = PictureSettings(n_fft=640, hop=160, mel_bands=32, fmax=8000, floor_db=60)
    power = spectrogram.matrix(samples, RATE, settings)
    level = spectrogram.decibels(np, power / power.max(), 1.0, settings)
    columns = np.linspace(0, len(level), 25).astype(int)
    parts = [level[start:end].mean(axis=0) for start, end in itertools.pairwise(columns)]
    return np.concatenate(parts)


def centroid(samples):
    """Hz of the centre of the spectrum."""
    spectrum = np.abs(np.fft.rfft(samples))
    return np.average(np.fft.rfftfreq(len(samples), 1 / RATE), weights=spectrum)


def median_pitch(samples):
    """Hz of the highest peak of the autocorrelation from 60 to 400 Hz, the median over frames."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 1024)[::256]
    correlation = np.fft.irfft(np.abs(np.fft.rfft(frames, 2048)) ** 2)
    shortest = RATE // 400
    return RATE / (shortest + np.median(correlation[:, shortest : RATE // 60].argmax(axis=1)))


def test_layouts_are_the_published_ones_and_say_synthetic(corpora):
    emomatch = [path.name for path in sounds(corpora / "emomatch_spanish_db")]
    root = corpora / "elra_s0329"
    elra = [path.relative_to(root).as_posix() for path in sounds(root)]
    assert len(emomatch) == 8 * 7 * 2
    assert all(EMOMATCH.match(name) for name in emomatch)
    assert len(elra) == 2 * (7 * 2 * 2 + 4 * 1)
    assert all(ELRA.match(path) for path in elra)
    # Every speaker says every sentence with every emotion.
    assert len({(name[:2], EMOMATCH.match(name)["emotion"]) for name in emomatch}) == 8 * 7
    assert {STYLES[ELRA.match(path)["style"]] for path in elra} == set(LABELS)
    for name in synthetic.NAMES:
        (readme,) = (corpora / name).rglob("*.txt")
        assert "SYNTHETIC" in readme.read_text(encoding="utf-8")
        assert synthetic.is_synthetic(corpora / name)
    assert not synthetic.is_synthetic(corpora)


def test_recordings_have_sound_and_are_not_clipped(corpora):
    formats = {".WAV": (48000, 2), ".l16": (16000, 1)}
    seen = set()
    for path in sounds(corpora):
        samples, rate = read(path)
        assert (rate, samples.shape[1]) == formats[path.suffix], path
        assert 1.0 < len(samples) / rate < 2.7, path
        assert 0.05 < np.abs(samples.astype(int)).max() / 32768 < 0.98, path
        assert samples.astype(float).std() > 100, path
        seen.add(samples.tobytes())
    assert len(seen) == len(sounds(corpora))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path, small, corpora):
    synthetic.write_corpora(tmp_path, 4, **SMALL)
    expected, other = contents(small), contents(tmp_path)
    assert other.keys() == expected.keys()
    assert all(other[name] != expected[name] for name in other)
    larger = contents(corpora)
    for name, data in expected.items():
        assert name.endswith("README.txt") or larger[name] == data


def test_an_unfinished_corpus_is_written_again_and_a_complete_one_is_kept(
    tmp_path, monkeypatch, small
):
    synthesise, calls = synthetic.synthesise, []

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) == 70:  # the ELRA-like corpus has 64 recordings
            raise KeyboardInterrupt
        return synthesise(*arguments)

    monkeypatch.setattr(synthetic, "synthesise", killed)
    with pytest.raises(KeyboardInterrupt):
        synthetic.write_corpora(tmp_path, **SMALL)
    assert (tmp_path / "elra_s0329").is_dir()
    assert not (tmp_path / "emomatch_spanish_db").exists()
    synthetic.write_corpora(tmp_path, **SMALL)
    assert contents(tmp_path) == contents(small)
    assert len(calls) == 70 + 14
    synthetic.write_corpora(tmp_path, **SMALL)
    assert len(calls) == 70 + 14


def test_other_files_in_the_folder_are_an_error_and_stay(tmp_path):
    real = tmp_path / "elra_s0329" / "S0329" / "spf1a001.l16"
    real.parent.mkdir(parents=True)
    real.write_bytes(b"a recording")
    with pytest.raises(ValueError, match="elra_s0329"):
        synthetic.write_corpora(tmp_path, **SMALL)
    assert contents(tmp_path) == {"elra_s0329/S0329/spf1a001.l16": b"a recording"}


@pytest.mark.parametrize(
    ("size", "value"), [("speakers", 1), ("speakers", 21), ("sentences", 0), ("elra_sentences", 1)]
)
def test_a_size_out_of_range_is_named(tmp_path, size, value):
    with pytest.raises(ValueError, match=f"^{size} is {value}: "):
        synthetic.write_corpora(tmp_path, **SMALL | {size: value})
    assert not contents(tmp_path)


@pytest.mark.parametrize("shift", [0, 7])
def test_the_pitch_is_that_of_the_manner(shift):
    manner = synthetic.MANNERS["NEUTRAL"]._replace(pitch=shift, contour=(0, 0), accent=0, rate=2)
    speaker = synthetic.Speaker(pitch=120, tract=1, tilt=0)
    samples = synthetic.synthesise(speaker, manner, ["ma"] * 4, RATE, np.random.default_rng(0))
    assert median_pitch(samples) == pytest.approx(120 * 2 ** (shift / 12), rel=0.02)


@pytest.mark.parametrize(("vowel", "tract"), [("a", 1.0), ("e", 1.0), ("i", 1.0), ("a", 1.2)])
def test_formants_are_those_of_the_table(vowel, tract):
    whisper = synthetic.MANNERS["NEUTRAL"]._replace(breath=1, tilt=0, rate=1)
    speaker = synthetic.Speaker(pitch=100, tract=tract, tilt=0)
    syllables = ["m" + vowel] * 4
    samples = synthetic.synthesise(speaker, whisper, syllables, RATE, np.random.default_rng(0))
    frequencies, power = scipy.signal.welch(samples, RATE, nperseg=400)
    peaks = frequencies[scipy.signal.find_peaks(power)[0]]
    for formant in synthetic.VOWELS[vowel]:
        assert np.abs(peaks - tract * formant).min() < 50


def test_unknown_speakers_are_recognised_in_the_emomatch_like_corpus(corpora, emomatch):
    samples, labels, speakers = emomatch
    pictures = np.stack([log_mel(one) for one in samples])
    classifier = make_pipeline(StandardScaler(), RidgeClassifier(alpha=1000))
    predictions = cross_val_predict(classifier, pictures, labels, groups=speakers, cv=GroupKFold(4))
    assert np.mean(predictions == labels) > 0.7

    elra = sounds(corpora / "elra_s0329")
    others = [log_mel(audio.read(path, RATE)[0]) for path in elra]
    predictions = classifier.fit(pictures, labels).predict(others)
    elra_labels = np.asarray([STYLES[path.parent.name[4]] for path in elra])
    assert np.mean(predictions == elra_labels) > 0.4


def test_no_single_number_tells_the_emotions_apart(emomatch):
    samples, labels, speakers = emomatch
    numbers = []
    for one in samples:
        centre = np.log(centroid(one))
        numbers.append((len(one), np.abs(one).max(), median_pitch(one), centre))
    for number in np.transpose(numbers):
        predictions = cross_val_predict(
            LinearDiscriminantAnalysis(), number[:, None], labels, groups=speakers, cv=GroupKFold(4)
        )
        assert np.mean(predictions == labels) < 0.6
