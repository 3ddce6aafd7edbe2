"""What libsndfile does not decode is what ffmpeg answers; small programs stand in for it."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from signals import TONE, noise, write

from ds_jax.features import audio, ffmpeg
from ds_jax.features.audio import Windowing
from ds_jax.features.source import Source


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A function that puts a program called ffmpeg on the PATH, and nothing else."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def install(program):
        (folder / "ffmpeg").write_text(f"#!{sys.executable}\n{program}")
        (folder / "ffmpeg").chmod(0o755)

    return install


BEGINNINGS = (
    *(b"\0\0\0\x18ftypM4A ", b"\0\0\0\x14ftyp3gp4", b"\x1aE\xdf\xa3", b"#!AMR\n", b"#!AMR-WB\n"),
    *(b"0&\xb2u\x8ef\xcf\x11", b"\xff\xf1\x50\x80", b"\xff\xf9\x50\x80"),
)

# It answers with the samples in a file, and leaves its arguments and its process there.
ANSWER = """
import os, pathlib, sys
folder = pathlib.Path(__file__).parent
(folder / "arguments").write_text("\\n".join(sys.argv))
(folder / "process").write_text(str(os.getpid()))
sys.stdout.buffer.write((folder / "a.au").read_bytes())
"""


@pytest.mark.parametrize("name", ["a.m4a", "a.MP4", "a.3ga", "a.qcp", "a.dts", "a.wav"])
@pytest.mark.parametrize("channels", [1, 2])
def test_formats_of_ffmpeg_are_what_it_answers(tmp_path, stand_in, name, channels):
    stand_in(ANSWER)
    path, rate = tmp_path / name, 44_100
    path.write_bytes(b"of a format that only ffmpeg knows")
    answer = write(tmp_path / "programs/a.au", noise(0.5, rate, channels), rate)
    np.testing.assert_allclose(audio.read(path, 0)[0], audio.read(answer, 0)[0], atol=1e-7)
    arguments = (tmp_path / "programs/arguments").read_text().split("\n")
    assert arguments[arguments.index("-i") + 1] == f"file:{path}"
    part, whole = Source(path, 0.1, 0.3), Source(answer, 0.1, 0.3)
    np.testing.assert_allclose(audio.read(part, 16_000)[0], audio.read(whole, 16_000)[0], atol=1e-6)
    windows = list(audio.windows(path, 16_000, Windowing(0.2)))
    expected = list(audio.windows(answer, 16_000, Windowing(0.2)))
    assert [window[:3] for window in windows] == [window[:3] for window in expected]
    with pytest.raises(ValueError, match=r"0\.4 to 0\.6 s cannot be read"):
        audio.read(Source(path, 0.4, 0.6), 0)


def test_a_format_of_ffmpeg_under_another_name_is_known_by_its_beginning(tmp_path, stand_in):
    stand_in(ANSWER)
    write(tmp_path / "programs/a.au", noise(0.1, 16_000), 16_000)
    for index, beginning in enumerate(BEGINNINGS):
        path = tmp_path / f"{index}.wav"
        path.write_bytes(beginning + bytes(100))
        assert ffmpeg.is_needed(path)
        assert len(audio.read(path, 0)[0]) == 1600
    for name in ("a.wav", "a.flac", "a.mp3", "a.ogg"):  # which libsndfile decodes
        soundfile.write(tmp_path / name, noise(0.1, 16_000), 16_000)
        assert not ffmpeg.is_needed(tmp_path / name)


def test_what_is_called_as_ffmpeg_s_and_is_libsndfile_s_needs_no_ffmpeg(tmp_path, stand_in):
    path = write(tmp_path / "a.wav", TONE).rename(tmp_path / "a.m4a")
    assert len(audio.read(path, 0)[0]) == len(TONE)


def test_libsndfile_and_ffmpeg_are_both_quoted(tmp_path, stand_in):
    stand_in("import sys; sys.exit('Invalid data found')")
    (tmp_path / "a.wav").write_bytes(b"no sound at all")
    with pytest.raises(
        ValueError, match=r"a\.wav .*libsndfile .*not recognised.*Invalid data found"
    ):
        audio.read(tmp_path / "a.wav", 0)


@pytest.mark.parametrize("name", ["a.au", "a.snd", "a.gsm", "a.vox", "a.mp3"])
def test_a_text_is_no_sound_whatever_its_name(tmp_path, stand_in, name):
    (tmp_path / name).write_text("this is no audio\n" * 99)
    with pytest.raises(ValueError, match="not recognised"):
        audio.read(tmp_path / name, 0)


def test_a_rate_is_not_guessed(tmp_path, stand_in):
    stand_in(ANSWER)
    write(tmp_path / "programs/a.au", noise(0.1, 44_100), 44_100)
    (tmp_path / "a.UL").write_bytes(bytes(1000))
    with pytest.raises(ValueError, match=r"a\.UL has no header that gives its rate: convert"):
        audio.read(tmp_path / "a.UL", 0)


def test_gsm_without_a_header_is_read(tmp_path):
    content = soundfile.SoundFile(tmp_path / "a.gsm", "w", 8000, 1, "GSM610", format="RAW")
    with content as file:
        file.write(noise(0.4, 8000))
    samples, rate = audio.read(tmp_path / "a.gsm", 0)
    assert (len(samples), rate) == (3200, 8000)


def test_a_part_is_sought_where_that_is_exact(tmp_path, stand_in):
    """The filter of ffmpeg has cut the answer already."""
    stand_in(ANSWER)
    write(tmp_path / "programs/a.au", noise(0.5, 16_000), 16_000)
    for beginning, start, expected in (
        (b"\0\0\0\x18ftypM4A ", 100.0, {"-ss": "99.000000", "-af": "atrim=start=100.000000000"}),
        (b"\0\0\0\x18ftypM4A ", 0.5, {"-ss": None, "-af": "atrim=start=0.500000000"}),
        (b"\x1aE\xdf\xa3", 0.1, {"-ss": None, "-af": None}),
    ):
        path = tmp_path / "a.m4a"
        path.write_bytes(beginning + bytes(100))
        length = 0.5 if expected["-af"] else 0.4
        samples, _ = audio.read(Source(path, start, start + length), 0)
        assert len(samples) == 16_000 * length
        arguments = (tmp_path / "programs/arguments").read_text().split("\n")
        found = {n: arguments[arguments.index(n) + 1] if n in arguments else None for n in expected}
        if expected["-af"]:
            expected["-af"] += f":end={start + 0.5:.9f}"
            assert arguments.index("-copyts") < arguments.index("-i") < arguments.index("-af")
        assert found == expected


def test_without_ffmpeg_its_formats_are_refused_with_advice(tmp_path, stand_in):
    (tmp_path / "a.m4a").write_bytes(b"of a format that only ffmpeg knows")
    with pytest.raises(ValueError, match=r"a\.m4a .*ffmpeg, .*install"):
        audio.read(tmp_path / "a.m4a", 0)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import sys; sys.exit('[mov @ 0x1] moov atom not found\\nmore')", "moov atom not found'$"),
        ("import sys; sys.exit(3)", "exit status 3'$"),
        ("", "has no sound"),
        (f"{ANSWER}\nsys.exit('[aac] partial file')", "partial file'$"),
        (f"{ANSWER}\nprint('[aac] partial file', file=sys.stderr)", "partial file'$"),
        ("import time; time.sleep(60)", "was ended after 2 s without sound$"),
        (f"{ANSWER}\nimport time; sys.stdout.close(); time.sleep(60)", "ended after 2 s without"),
        ("import os; os.kill(os.getpid(), 9)", "was ended from outside by signal 9$"),
        ("import os; os.kill(os.getpid(), 24)", "was ended after 600 s of CPU: cut the recording$"),
        ("import sys; sys.stdout.buffer.write(b'.snd' + bytes(40))", "unknown encoding"),
    ],
)
def test_what_ffmpeg_says_is_the_reason(tmp_path, stand_in, monkeypatch, program, reason):
    monkeypatch.setattr(ffmpeg, "STALLED", 2.0)
    stand_in(program)
    write(tmp_path / "programs/a.au", noise(0.1, 16_000), 16_000)
    (tmp_path / "a.m4a").write_bytes(b"of a format that only ffmpeg knows")
    with pytest.raises(ValueError, match=rf"a\.m4a .*{reason}"):
        audio.read(tmp_path / "a.m4a", 0)


def test_ffmpeg_is_ended_with_the_reading(tmp_path, stand_in, monkeypatch):
    monkeypatch.setattr(audio, "LONGEST", 1.0)
    stand_in(f"{ANSWER}\nwhile True: sys.stdout.buffer.write(bytes(9999))")
    write(tmp_path / "programs/a.au", noise(0.1, 16_000), 16_000)
    (tmp_path / "a.m4a").write_bytes(b"of a format that only ffmpeg knows")
    with pytest.raises(ValueError, match="too long"):
        audio.read(tmp_path / "a.m4a", 0)
    process = int((tmp_path / "programs/process").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_ffmpeg_reads_containers_of_sound_alone_and_no_other_files(tmp_path, stand_in):
    stand_in(ANSWER)
    write(tmp_path / "programs/a.au", noise(0.1, 16_000), 16_000)
    (tmp_path / "a.m4a").write_text("ffconcat version 1.0\nfile secret.wav\n")
    audio.read(tmp_path / "a.m4a", 0)
    arguments = (tmp_path / "programs/arguments").read_text().split("\n")
    given = {name: arguments.index(name) for name in ("-format_whitelist", "-protocol_whitelist")}
    assert all(place < arguments.index("-i") for place in given.values())
    formats = {*arguments[given["-format_whitelist"] + 1].split(",")}
    assert {"mov", "matroska", "aac", "amr", "asf"} <= formats
    assert not formats & {"concat", "hls", "dash", "image2", "imf", "sdp", "webm_dash_manifest"}
    assert arguments[given["-protocol_whitelist"] + 1] == "file"
    assert int(arguments[arguments.index("-timelimit") + 1]) == ffmpeg.LONGEST


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not on the PATH")
@pytest.mark.parametrize(
    "playlist", ["ffconcat version 1.0\nfile {}\n", "#EXTM3U\n#EXTINF:1,\n{}\n"]
)
def test_a_real_ffmpeg_reads_no_playlist(tmp_path, playlist):
    write(tmp_path / "secret.wav", TONE)
    for name in ("a.m4a", "a.m3u8"):
        (tmp_path / name).write_text(playlist.format("secret.wav"))
        with pytest.raises(ffmpeg.NotDecoded, match=r"a\.m"):
            audio.read(tmp_path / name, 0)


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not on the PATH")
@pytest.mark.parametrize("name", ["a.m4a", "a.mp4", "a.aac", "a.wma", "a.webm", "a.mka"])
def test_real_files_of_ffmpeg_are_read(tmp_path, name):
    tone = write(tmp_path / "tone.wav", np.tile(TONE, 10))
    path = tmp_path / f"-it's {name}"
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-i",
        f"file:{tone}",
        *("-c:a", "libopus")[: 2 * (name == "a.webm")],
    ]
    subprocess.run([*command, f"file:{path}"], check=True)
    samples, rate = audio.read(path, 16_000)
    assert (rate, samples.dtype) == (16_000, np.float32)
    assert len(samples) / rate == pytest.approx(1.0, abs=0.1)
    whole, rate = audio.read(path, 0)
    part, _ = audio.read(Source(path, 0.3, 0.7), 0)
    np.testing.assert_array_equal(part, whole[round(0.3 * rate) : round(0.7 * rate)])
    spectrum = np.abs(np.fft.rfft(samples[4000:12_000]))
    assert spectrum.argmax() * 2 == 440
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(ValueError, match="ffmpeg says"):
        audio.read(path, 16_000)
