"""Synthetic speech has the published layouts, is the same every time, and can be learnt."""

import itertools
import re

import librosa
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
from ds_jax.data.corpus import LABELS

SMALL = {"speakers": 2, "sentences": 1, "elra_sentences": 2}
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
    synthetic.write_corpora(folder, sentences=3, elra_sentences=3)
    return folder


def sounds(folder):
    return sorted(path for path in folder.rglob("*") if path.suffix in (".WAV", ".l16"))


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def read(path):
    """int16 [samples, channels] and the rate in Hz."""
    if path.suffix == ".l16":
        return np.fromfile(path, "<i2")[:, None], 16000
    return soundfile.read(path, dtype="int16", always_2d=True)


def log_mel(path):
    """float [32 bands x 24 times] in dB, of the file's maximum and 60 dB down at most."""
    samples, rate = read(path)
    hop = rate // 100
    power = librosa.feature.melspectrogram(
        y=samples.mean(axis=1) / 32768,
        sr=rate,
        n_fft=4 * hop,
        hop_length=hop,
        n_mels=32,
        fmax=8000,
    )
    level = librosa.power_to_db(power, ref=np.max, top_db=60)
    columns = np.linspace(0, level.shape[1], 25).astype(int)
    return np.stack(
        [level[:, start:end].mean(axis=1) for start, end in itertools.pairwise(columns)]
    ).ravel()


def classifier():
    return make_pipeline(StandardScaler(), RidgeClassifier(alpha=1000))


def emomatch_labels(paths):
    return np.asarray([EMOTIONS[EMOMATCH.match(path.name)["emotion"]] for path in paths])


def test_layouts_are_the_published_ones(corpora):
    emomatch = [path.name for path in sounds(corpora / "emomatch_spanish_db")]
    elra = [
        path.relative_to(corpora / "elra_s0329").as_posix()
        for path in sounds(corpora / "elra_s0329")
    ]
    assert len(emomatch) == 8 * 7 * 3
    assert all(EMOMATCH.match(name) for name in emomatch)
    assert len(elra) == 2 * (7 * 2 * 3 + 4 * 1)
    assert all(ELRA.match(path) for path in elra)
    # Every speaker says every sentence with every emotion.
    assert len({(name[:2], EMOMATCH.match(name)["emotion"]) for name in emomatch}) == 8 * 7
    assert {STYLES[ELRA.match(path)["style"]] for path in elra} == set(LABELS)


def test_each_folder_says_that_it_is_synthetic(corpora):
    for name in ("elra_s0329", "emomatch_spanish_db"):
        others = [path for path in (corpora / name).rglob("*.*") if path.suffix == ".txt"]
        assert [path.name for path in others] == ["README.txt"]
        assert "SYNTHETIC" in others[0].read_text(encoding="utf-8")


def test_recordings_are_sound_and_not_clipped(corpora):
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


def test_same_seed_same_bytes_and_another_seed_others(tmp_path):
    for folder, seed in (("one", 3), ("two", 3), ("other", 4)):
        synthetic.write_corpora(tmp_path / folder, seed, **SMALL)
    one, other = contents(tmp_path / "one"), contents(tmp_path / "other")
    assert one == contents(tmp_path / "two")
    assert one.keys() == other.keys()
    assert all(one[name] != other[name] for name in one)


def test_a_larger_corpus_holds_the_smaller_one(tmp_path, corpora):
    synthetic.write_corpora(tmp_path, **SMALL)
    larger = contents(corpora)
    for name, data in contents(tmp_path).items():
        assert name.endswith("README.txt") or larger[name] == data


def test_a_complete_corpus_is_kept_and_an_unfinished_one_is_written_again(tmp_path, monkeypatch):
    synthetic.write_corpora(tmp_path / "whole", **SMALL)
    synthesise, calls = synthetic.synthesise, []

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) == 70:  # the ELRA-like corpus has 64 recordings
            raise KeyboardInterrupt
        return synthesise(*arguments)

    monkeypatch.setattr(synthetic, "synthesise", killed)
    with pytest.raises(KeyboardInterrupt):
        synthetic.write_corpora(tmp_path / "cut", **SMALL)
    assert (tmp_path / "cut" / "elra_s0329").is_dir()
    assert not (tmp_path / "cut" / "emomatch_spanish_db").exists()
    synthetic.write_corpora(tmp_path / "cut", **SMALL)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    assert len(calls) == 70 + 14
    synthetic.write_corpora(tmp_path / "cut", **SMALL)
    assert len(calls) == 70 + 14


def test_anything_else_in_the_folder_is_an_error_and_left_alone(tmp_path):
    real = tmp_path / "elra_s0329" / "S0329" / "spf1a001.l16"
    real.parent.mkdir(parents=True)
    real.write_bytes(b"a recording")
    with pytest.raises(ValueError, match="elra_s0329 does not hold the synthetic corpus"):
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
def test_pitch_is_what_was_asked_for(shift):
    manner = synthetic.MANNERS["NEUTRAL"]._replace(pitch=shift, contour=(0, 0), accent=0, rate=2)
    speaker = synthetic.Speaker(pitch=120, tract=1, tilt=0)
    samples = synthetic.synthesise(speaker, manner, ["ma"] * 4, 16000, np.random.default_rng(0))
    measured = librosa.yin(samples, fmin=60, fmax=400, sr=16000, frame_length=1024)
    assert np.median(measured) == pytest.approx(120 * 2 ** (shift / 12), rel=0.02)


@pytest.mark.parametrize(("vowel", "tract"), [("a", 1.0), ("e", 1.0), ("i", 1.0), ("a", 1.2)])
def test_formants_are_where_the_table_has_them(vowel, tract):
    whisper = synthetic.MANNERS["NEUTRAL"]._replace(breath=1, tilt=0, rate=1)
    speaker = synthetic.Speaker(pitch=100, tract=tract, tilt=0)
    syllables = ["m" + vowel] * 4
    samples = synthetic.synthesise(speaker, whisper, syllables, 16000, np.random.default_rng(0))
    frequencies, power = scipy.signal.welch(samples, 16000, nperseg=400)
    peaks = frequencies[scipy.signal.find_peaks(power)[0]]
    for formant in synthetic.VOWELS[vowel]:
        assert np.abs(peaks - tract * formant).min() < 50


def test_unknown_speakers_are_recognised_in_the_emomatch_like_corpus(corpora):
    paths = sounds(corpora / "emomatch_spanish_db")
    pictures = np.stack([log_mel(path) for path in paths])
    labels, speakers = emomatch_labels(paths), [path.name[:2] for path in paths]
    predictions = cross_val_predict(
        classifier(), pictures, labels, groups=speakers, cv=GroupKFold(4)
    )
    assert np.mean(predictions == labels) > 0.7

    elra = sounds(corpora / "elra_s0329")
    predictions = classifier().fit(pictures, labels).predict([log_mel(path) for path in elra])
    elra_labels = np.asarray([STYLES[path.parent.name[4]] for path in elra])
    assert np.mean(predictions == elra_labels) > 0.4


def test_no_single_number_tells_the_emotions_apart(corpora):
    paths = sounds(corpora / "emomatch_spanish_db")
    labels, speakers = emomatch_labels(paths), [path.name[:2] for path in paths]
    numbers = []
    for path in paths:
        samples, rate = read(path)
        mono = samples.mean(axis=1) / 32768
        pitch = librosa.yin(mono[::4], fmin=70, fmax=600, sr=rate // 4, frame_length=1024)
        centroid = librosa.feature.spectral_centroid(y=mono, sr=rate).mean()
        numbers.append((len(mono), np.abs(mono).max(), np.median(pitch), np.log(centroid)))
    for number in np.transpose(numbers):
        predictions = cross_val_predict(
            LinearDiscriminantAnalysis(), number[:, None], labels, groups=speakers, cv=GroupKFold(4)
        )
        assert np.mean(predictions == labels) < 0.6
