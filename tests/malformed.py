"""Hundreds of malformed recordings, made from a seed and laid out as any corpus.

`usable` is True for a recording that must be used, False for one that must be skipped with its name
and a reason, and None where both are right, as for a header with random bytes.
"""

import io
import itertools
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

RATE = 16_000
RATES = (8000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 176_400, 192_000)
# Names of recordings whose content is without fault.
NAMES = (
    "with spaces",
    " leading and trailing ",
    "ñandú voló 你好 😀",
    "e\N{COMBINING ACUTE ACCENT} decomposed",
    "'single'",
    '"double"',
    "comma, semicolon; tab\t",
    "new\nline",
    "carriage\rreturn",
    "red \x1b[31m\x1b]0;title\x07",
    "right \N{RIGHT-TO-LEFT OVERRIDE}to left",
    "=1+1",
    "+cmd|'C calc'!A0",
    "-rf",
    "--mode=train",
    "@SUM(1)",
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned",
    "| touch pwned",
    "<img src=x onerror=alert(1)>",
    "<script>alert(2)<",
    "{{7*7}}{% raw %}",
    "%s%n%x",
    "back\\slash",
    "star*",
    "question?",
    "[1]",
    "a.wav",
    "CON",
    "#hash",
    "~",
    "x" * 200,
    os.fsdecode(b"\xff\xfe not UTF-8"),
    os.fsdecode(b"latin-1 \xf1"),
)


class Case(NamedTuple):
    """A file.

    Attributes:
        kind: The fault or the oddity of the file.
        suffix: The suffix of its name.
        content: The bytes of the file, or a function that makes it at a path.
        usable: Whether it must be used, see above.
        name: The stem of its name; empty for any stem.
    """

    kind: str
    suffix: str
    content: bytes | Callable[[Path], object]
    usable: bool | None
    name: str = ""

    def make(self, path: Path) -> None:
        """Writes the file."""
        self.content(path) if callable(self.content) else path.write_bytes(self.content)


def speech(seconds: float = 0.4, rate: int = RATE, channels: int = 1, seed: int = 0) -> np.ndarray:
    """float64 [n, channels]: a gliding tone in noise."""
    time = np.arange(max(1, int(seconds * rate)))[:, None] / rate
    noise = np.random.default_rng(seed).normal(0, 0.02, (len(time), channels))
    return 0.4 * np.sin(2 * np.pi * (150 + 300 * time) * time) + noise


def encoded(samples=None, rate=RATE, form="WAV", subtype="PCM_16") -> bytes:
    """The bytes of an audio file."""
    file = io.BytesIO()
    soundfile.write(file, speech() if samples is None else samples, rate, subtype, format=form)
    return file.getvalue()


def cases(seed: int = 0) -> list[Case]:
    """Returns more than 300 cases, the same ones for the same seed."""
    rng = np.random.default_rng(seed)
    found = [*_fuzzed(rng), *_cut(rng), *_no_audio(rng), *_without_sound()]
    found += [*_of_every_format(), *_lying_headers(), *_no_files()]
    found += [
        Case(f"called {name[:20]!r}", ".wav", encoded(speech(seed=index)), True, name)
        for index, name in enumerate(NAMES)
    ]
    return found


def write_long(path: Path, minutes: int) -> None:
    """Writes a .flac of some minutes, which are alike."""
    minute = speech(60)
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16", format="FLAC") as file:
        for _ in range(minutes):
            file.write(minute)


def _fuzzed(rng: np.random.Generator) -> Iterator[Case]:
    for form, suffix, header, count in (("WAV", ".wav", 48, 80), ("FLAC", ".flac", 60, 60)):
        whole = np.frombuffer(encoded(form=form), np.uint8)
        for where, end, times in (("header", header, count), ("body", len(whole), 12)):
            for index in range(times):
                changed = whole.copy()
                places = rng.integers(0, end, rng.integers(1, 9))
                changed[places] = rng.integers(0, 256, len(places))
                yield Case(f"{suffix} {where} fuzzed {index}", suffix, changed.tobytes(), None)


def _cut(rng: np.random.Generator) -> Iterator[Case]:
    for form, suffix, count in (("WAV", ".wav", 16), ("FLAC", ".flac", 12), ("RF64", ".wav", 8)):
        whole = encoded(form=form)
        for length in sorted(rng.integers(1, len(whole) - 16, count)):
            yield Case(f"{form} cut at {length}", suffix, whole[:length], False)
        yield Case(f"{form} and rubbish", suffix, whole + rng.bytes(1001), None)
    yield Case("l16 with half a sample", ".l16", b"\0\1\2", False)


def _no_audio(rng: np.random.Generator) -> Iterator[Case]:
    contents = {
        "nothing": b"",
        "one byte": b"R",
        "only RIFF": b"RIFF",
        "text": b"this is no audio\n" * 40,
        "HTML": b"<html><body>404 Not Found</body></html>",
        "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "a ZIP": b"PK\3\4" + rng.bytes(500),
        "ones": b"\xff" * 4096,
        "zeros": b"\0" * 4096,
    }
    for suffix in (".wav", ".flac"):
        for kind, content in contents.items():
            yield Case(f"{kind} as {suffix}", suffix, content, False)
        for index in range(8):
            yield Case(f"bytes {index} as {suffix}", suffix, rng.bytes(2000), None)
    # With ffmpeg or without; libsndfile would take any bytes of the last ones for samples.
    of_ffmpeg = (".m4a", ".mp4", ".aac", ".amr", ".wma", ".webm", ".3ga", ".m4r", ".qcp", ".dts")
    for suffix in (*of_ffmpeg, ".ts", ".mp3", ".au", ".snd", ".gsm", ".vox"):
        for kind in ("text", "HTML", "zeros", "only RIFF"):
            yield Case(f"{kind} as {suffix}", suffix, contents[kind], False)
    for kind, beginning in (
        ("MP4", b"\0\0\0\x18ftypM4A "),
        ("Matroska", b"\x1aE\xdf\xa3"),
        ("ADTS", b"\xff\xf1\x50\x80"),
        ("Windows Media", b"0&\xb2u\x8ef\xcf\x11"),
    ):
        yield Case(f"the beginning of {kind} as .wav", ".wav", beginning + rng.bytes(500), False)
    yield Case("nothing as .l16", ".l16", b"", False)
    for suffix in (".l16", ".pcm"):
        yield Case(f"bytes as {suffix}", suffix, rng.bytes(8000), True)


def _without_sound() -> Iterator[Case]:
    flat = {"zeros": 0.0, "DC": 0.25, "negative DC": -0.5, "almost zero": 0.0}
    for kind, level in flat.items():
        samples = np.full((4000, 1), level)
        samples[::2] += 1e-6 * (kind == "almost zero")
        for subtype in ("PCM_16", "PCM_24", "FLOAT", "DOUBLE"):
            content = encoded(samples, RATE, "WAV", subtype)
            yield Case(f"{kind} in {subtype}", ".wav", content, False)
    yield Case("opposite channels", ".wav", encoded(speech() * [1, -1]), False)
    impossible = {"NaN": np.nan, "infinity": np.inf, "-infinity": -np.inf, "1e30": 1e30}
    for kind, value in impossible.items():
        for place in (0, 100, -1):
            samples = speech()
            samples[place] = value
            for subtype in ("FLOAT", "DOUBLE"):
                content = encoded(samples, RATE, "WAV", subtype)
                yield Case(f"{kind} at {place} in {subtype}", ".wav", content, False)
    for count in (1, 2, 3, 10, 100, 399, 400):
        for rate in (RATE, 192_000):
            content, usable = (
                encoded(speech()[100 : 100 + count], rate),
                None if count > 1 else False,
            )
            yield Case(f"{count} samples at {rate} Hz", ".wav", content, usable)


def _of_every_format() -> Iterator[Case]:
    shapes = [*((rate, 1) for rate in RATES), *((RATE, channels) for channels in range(1, 9))]
    for (rate, channels), form in itertools.product(shapes, ("WAV", "FLAC")):
        content = encoded(speech(0.4, rate, channels), rate, form)
        yield Case(f"{channels} channels, {rate} Hz {form}", f".{form.lower()}", content, True)
    for form, suffix, subtypes in (
        ("WAV", ".wav", "PCM_U8 PCM_16 PCM_24 PCM_32 FLOAT DOUBLE"),
        ("WAV", ".wav", "ULAW ALAW IMA_ADPCM MS_ADPCM GSM610"),
        ("WAVEX", ".wav", "PCM_16 PCM_24 FLOAT ULAW"),
        ("RF64", ".wav", "PCM_16 FLOAT"),
        ("FLAC", ".flac", "PCM_S8 PCM_16 PCM_24"),
        # As something else than their suffix says.
        ("AIFF", ".wav", "PCM_16"),
        ("FLAC", ".wav", "PCM_16"),
        ("OGG", ".wav", "VORBIS"),
        ("WAV", ".flac", "PCM_16"),
    ):
        for subtype in subtypes.split():
            content = encoded(speech(), RATE, form, subtype)
            yield Case(f"{form} {subtype} as {suffix}", suffix, content, True)
    gsm = encoded(speech(0.4, 8000), 8000, "RAW", "GSM610")
    yield Case("GSM without a header", ".gsm", gsm, True)
    both = np.concatenate([speech(), speech(seed=1)[::-1]], axis=1)
    for kind, samples in {
        "channels that differ": both,
        "a dead channel": both * [1, 0],
        "a channel of DC": both * [0, 1] + [0.2, 0],
        "opposite channels of other levels": speech() * [1, -0.5],
        "long silence": np.concatenate([np.zeros((40_000, 1)), speech(), np.zeros((40_000, 1))]),
    }.items():
        yield Case(kind, ".wav", encoded(samples), True)
    loud = encoded(32_768 * speech(), RATE, "WAV", "FLOAT")
    yield Case("floats in the range of integers", ".wav", loud, True)
    bytes_of = (10_000 * speech()).astype("<i2").tobytes()
    yield Case("headerless", ".l16", bytes_of, True)


def _lying_headers() -> Iterator[Case]:
    """WAV headers with one wrong field: format, channels, rate, and so on."""

    def wav(tag=1, channels=1, rate=RATE, align=2, bits=16, data=None, riff=None):
        content = (10_000 * speech()[:, 0]).astype("<i2").tobytes()
        data = len(content) if data is None else data
        head = struct.pack("<HHIIHH", tag, channels, rate, rate * 2 % (1 << 32), align, bits)
        riff = 36 + len(content) if riff is None else riff
        whole = b"RIFF" + struct.pack("<I", riff) + b"WAVEfmt " + struct.pack("<I", 16)
        return whole + head + b"data" + struct.pack("<I", data) + content

    for kind, fields, usable in (
        ("no channels", {"channels": 0}, False),
        ("1,024 channels", {"channels": 1024, "align": 2048}, None),
        ("65,535 channels", {"channels": 65_535, "align": 65_534}, False),
        ("0 Hz", {"rate": 0}, False),
        ("3 Hz", {"rate": 3}, False),
        ("999 Hz", {"rate": 999}, False),
        ("1 MHz", {"rate": 1_000_000}, False),
        ("4 GHz", {"rate": (1 << 32) - 1}, False),
        ("0 bits", {"bits": 0}, None),
        ("64 bits", {"bits": 64}, None),
        ("alignment 0", {"align": 0}, None),
        ("an unknown format", {"tag": 0x1234}, False),
        ("MP3 that is none", {"tag": 0x55}, None),
        ("no length of data", {"data": 0}, True),
        ("no length", {"data": 0, "riff": 0}, True),
        ("no length of the file", {"riff": 0}, True),
        ("open sizes", {"data": (1 << 32) - 1, "riff": (1 << 32) - 1}, True),
        ("the sizes of a stream", {"data": 2_000_000_000, "riff": 2_000_000_036}, True),
        ("a data chunk of 2 GB", {"data": (1 << 31) - 1}, True),
        ("an open file whose data is cut", {"data": 1 << 20, "riff": (1 << 32) - 1}, False),
        ("a file of 1 GB", {"riff": 1 << 30}, False),
    ):
        yield Case(f"{kind} in the header", ".wav", wav(**fields), usable)


def _no_files() -> Iterator[Case]:
    def pair(path: Path) -> None:
        other = path.with_name("." + path.name)
        path.symlink_to(other.name)
        other.symlink_to(path.name)

    def listens(path: Path) -> None:
        # The name of a socket has 108 bytes at most, and this folder's may have more.
        own = os.getcwd()
        os.chdir(path.parent)
        try:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(path.name)
        finally:
            os.chdir(own)

    def forbidden(path: Path) -> None:
        path.write_bytes(encoded())
        path.chmod(0)

    kinds = {
        "a dangling link": lambda path: path.symlink_to("nowhere"),
        "a link to itself": lambda path: path.symlink_to(path.name),
        "two links to each other": pair,
        "a link into nothing": lambda path: path.symlink_to(f"../../../nowhere/{path.name}"),
        "a pipe": os.mkfifo,
        "a socket": listens,
        "/dev/zero": lambda path: path.symlink_to("/dev/zero"),
        "/dev/null": lambda path: path.symlink_to("/dev/null"),
        "/dev/urandom": lambda path: path.symlink_to("/dev/urandom"),
    }
    for suffix in (".wav", ".flac"):
        for kind, make in kinds.items():
            yield Case(f"{kind} {suffix}", suffix, make, False)
    if os.geteuid():  # the superuser may read everything
        yield Case("a file that may not be read", ".wav", forbidden, False)


# Layouts.

EMOTIONS = {
    "emodb": ("W", "E", "A", "F", "N", "T"),
    "emovo": ("rab", "dis", "pau", "gio", "neu", "tri", "sor"),
    "emomatch_spanish_db": ("Ira", "Asco", "Miedo", "Alegria", "Neutro", "Tristeza", "Sorpresa"),
    "mesd": ("Anger", "Disgust", "Fear", "Happiness", "Neutral", "Sadness"),
    "ravdess": ("01", "03", "04", "05", "06", "07", "08"),
    "elra_s0329": "adfjsn",
}
EMODB_SPEAKERS = ("03", "08", "09", "10", "11", "12", "13", "14", "15", "16")


def place(corpus: str, index: int, case: Case) -> str:
    """Returns the path of a case below the folder of a corpus, named as in that corpus."""
    if corpus not in EMOTIONS:
        return f"{case.name or f'{index:03}'}{case.suffix}"
    emotions, suffix = EMOTIONS[corpus], case.suffix
    emotion, number = emotions[index % len(emotions)], index // len(emotions)
    match corpus:
        case "emodb":
            return f"wav/{EMODB_SPEAKERS[number % 10]}a{number // 10:02}{emotion}a{suffix}"
        case "emovo":
            speaker, number = f"{'fm'[number % 2]}{1 + number % 3}", number // 6
            return f"{speaker}/{emotion}-{speaker}-{chr(97 + number // 10)}{number % 10}{suffix}"
        case "emomatch_spanish_db":
            return f"{1 + number % 50:02}_{emotion}_{1 + number // 50:02}{suffix}"
        case "mesd":
            return f"{emotion}_{'FMC'[number % 3]}_A_{number // 3:03}{suffix}"
        case "ravdess":
            actor, number = 1 + number % 24, number // 24
            return f"Actor_{actor:02}/03-01-{emotion}-01-{number:02}-01-{actor:02}{suffix}"
    suffix = ".wav" if case.suffix == ".flac" else case.suffix  # it has no .flac
    stem = case.name or f"spf1{emotion}{number:03}"
    return f"S0329/INTER1SP_01/f/sess{emotion}001/{stem}{suffix}"


def lay_out(folder: Path, corpus: str, chosen: list[Case]) -> dict[str, Case]:
    """Writes cases as a corpus, with circles of links among its folders.

    Returns:
        The cases by their paths below the folder, without those that the corpus cannot have.
    """
    found = {}
    for index, case in enumerate(chosen):
        relative = place(corpus, index, case)
        if corpus == "manifest" and not _can_be_listed(relative):
            continue
        if case.suffix == ".l16" and corpus in EMOTIONS and corpus != "elra_s0329":
            continue
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        case.make(path)
        found[relative] = case
    if corpus != "manifest":
        (folder / "circle").symlink_to(folder)
        (folder / "other circle").symlink_to(".")
        (folder / "a folder.wav").mkdir()
    return found


def _can_be_listed(name: str) -> bool:
    """Tells whether a manifest can list a name: it is UTF-8, and its fields are stripped."""
    return name == name.strip() and not any("\udc80" <= character <= "\udcff" for character in name)
