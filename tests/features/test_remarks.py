"""What is odd about a recording is heard while it is read, and said in a line for each kind."""

import numpy as np
import pytest
import soundfile
import soxr
from signals import noise, padded, write, write_sizes

from ds_jax.features import audio, remarks
from ds_jax.features.audio import Windowing
from ds_jax.features.extract import FeatureSettings
from ds_jax.features.remarks import Heard, Remark
from ds_jax.features.spectrogram import PictureSettings

PICTURES = PictureSettings()
EIGHT = PictureSettings(sample_rate=8000)


def remarked(path, settings=PICTURES):
    """The remarks on a recording; they are the same whole and in windows."""
    heard = Heard(), Heard()
    source = settings.source(path)
    audio.read(source, settings.sample_rate, heard[0])
    for _ in audio.windows(source, settings.sample_rate, Windowing(0.5), settings.trim, heard[1]):
        pass
    found, in_windows = (each.remarks(settings) for each in heard)
    assert found == in_windows
    return found


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT", "ULAW"])
def test_recordings_without_high_frequencies_are_remarked_on(tmp_path, subtype):
    wide = noise(2, 16_000)
    narrow = soxr.resample(wide, 16_000, 8000)
    for name, samples, rate, expected in (
        ("wide", wide, 16_000, []),
        ("at 8 kHz", narrow, 8000, [Remark("rate", "8000 Hz")]),
        ("at 12 kHz", soxr.resample(wide, 16_000, 12_000), 12_000, [Remark("rate", "12000 Hz")]),
        ("up to 7 kHz", soxr.resample(wide, 16_000, 14_000), 14_000, [Remark("rate", "14000 Hz")]),
        ("at 16 kHz", soxr.resample(narrow, 8000, 16_000), 16_000, ["band"]),
        ("at 48 kHz", soxr.resample(narrow, 8000, 48_000), 48_000, ["band"]),
    ):
        if subtype == "ULAW" and expected == ["band"]:  # whose noise is white
            continue
        path = write(tmp_path / f"{name}.wav", samples, rate, subtype)
        if expected == ["band"]:
            ((kind, detail),) = remarked(path)
            assert kind == "band"
            assert 3700 < int(detail.split()[2]) <= 4200, name
        else:
            assert remarked(path) == expected, name
        assert remarked(path, EIGHT) == []
    assert remarked(tmp_path / "at 8 kHz.wav", PictureSettings(sample_rate=0)) == []


def test_a_wideband_telephone_is_not_remarked_on(tmp_path):
    """It transmits up to 7 kHz, which is most of what models at 16 kHz hear."""
    wide = soxr.resample(soxr.resample(noise(2, 16_000), 16_000, 14_000), 14_000, 48_000)
    path = write(tmp_path / "a.wav", wide, 48_000)
    for rate in (16_000, 48_000):
        assert remarked(path, PictureSettings(sample_rate=rate)) == []


ONE, OTHER = noise(1, 16_000), noise(1, 16_000, seed=1)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ((ONE, ONE), []),
        ((ONE, 0.5 * ONE + 0.02 * OTHER + 0.3), []),
        ((ONE, OTHER), [Remark("channels")]),
        ((ONE, 0.1 * OTHER), [Remark("channels")]),
        ((ONE, -0.5 * ONE), [Remark("channels")]),
        ((ONE, ONE, OTHER), [Remark("channels")]),
        ((ONE, 0 * ONE), [Remark("dead", "right")]),
        ((0 * ONE + 0.01, ONE), [Remark("dead", "left")]),
        ((1e-4 * OTHER, ONE), [Remark("dead", "left")]),
        ((ONE, 0 * ONE, ONE), [Remark("dead", "2")]),
        ((np.r_[ONE[:8000], 0 * ONE[:8000]], np.r_[0 * ONE[:8000], ONE[:8000]]), ["channels"]),
    ],
)
def test_channels_that_differ_and_dead_ones_are_remarked_on(tmp_path, columns, expected):
    for subtype in ("FLOAT", "PCM_16"):
        path = write(tmp_path / "a.wav", np.concatenate(columns, axis=1), 16_000, subtype)
        found = remarked(path)
        assert found == [Remark(one) if isinstance(one, str) else one for one in expected]
        living = "right" if Remark("dead", "left") in expected else "left"
        assert remarked(path, PictureSettings(channel=living)) == []


def test_a_channel_that_was_quiet_for_long_is_not_dead(tmp_path, monkeypatch):
    monkeypatch.setattr("ds_jax.features.source.BLOCK", 1000)
    second = np.concatenate([np.zeros((15_000, 1)), ONE[15_000:]])
    path = write(tmp_path / "a.wav", np.concatenate([ONE, second], axis=1), 16_000)
    assert [kind for kind, _ in remarked(path)] == ["channels"]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [(2.0, 0.1, "1.9 s"), (0.1, 2.0, "1.9 s"), (1.0, 1.0, ""), (0.1, 9.0, "8.9 s")],
)
def test_long_silence_is_remarked_on_unless_it_is_cut_off(
    tmp_path, monkeypatch, before, after, expected
):
    monkeypatch.setattr("ds_jax.features.source.BLOCK", 16_000)  # the end is heard too
    path = write(tmp_path / "a.wav", padded(before, 0.5, after), 16_000)
    assert remarked(path, EIGHT) == ([Remark("silence", expected)] if expected else [])
    assert remarked(path, PictureSettings(sample_rate=8000, trim=30.0)) == []


def test_a_recording_may_be_remarked_on_twice(tmp_path):
    samples = (10_000 * noise(1, 8000)[:, 0]).astype(np.int16)
    path = write_sizes(tmp_path / "a.wav", 0, 0, samples, 8000)
    assert remarked(path) == [Remark("open"), Remark("rate", "8000 Hz")]


def test_remarks_take_no_decoding_of_their_own(tmp_path, monkeypatch):
    opened = []
    made = soundfile.SoundFile.__init__
    monkeypatch.setattr(
        soundfile.SoundFile,
        "__init__",
        lambda self, *given, **how: opened.append(given) or made(self, *given, **how),
    )
    path = write(tmp_path / "a.wav", np.concatenate([ONE, OTHER], axis=1), 8000)
    opened.clear()
    heard = Heard()
    audio.read(path, 16_000, heard)
    assert len(heard.remarks(PICTURES)) == 2
    assert len(opened) == 1


def test_a_kind_has_one_line_with_a_count_and_the_first_names():
    pairs = [[f"{number}.wav", f"{8000 + 1000 * number} Hz"] for number in range(7)]
    (line,) = remarks.lines({"rate": pairs}, PICTURES)
    assert line.startswith("note: 7 recordings of a lower rate than 16000 Hz")
    assert line.endswith(
        ": 0.wav (8000 Hz), 1.wav (9000 Hz), 2.wav (10000 Hz), "
        "3.wav (11000 Hz), 4.wav (12000 Hz) and 2 more"
    )
    found = {kind: [["a\n.wav", ""]] for kind in ("channels", "open", "silence", "dead")}
    shown = list(remarks.lines(found, PICTURES))
    assert len(shown) == 4
    assert all(line.startswith("note: 1 recording ") and line.isprintable() for line in shown)
    assert list(remarks.lines({}, PICTURES)) == []


@pytest.mark.parametrize(("kind", "rate"), [("rate", 11_025), ("band", 8000)])
def test_the_advice_exists_for_the_system(kind, rate):
    found = {kind: [["a.wav", "12000 Hz"], ["b.wav", "11025 Hz"]]}
    (pictures,), (features,) = (
        remarks.lines(found, settings) for settings in (PICTURES, FeatureSettings("mfcc"))
    )
    assert f"--config.picture.sample_rate={rate}, " in pictures
    assert "--config" not in features
    assert f"{rate} Hz" in features
