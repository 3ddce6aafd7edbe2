"""What is read: a file, a part of it, and which of its channels."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ds_jax.features import variants
from ds_jax.runtime.errors import check_choice, check_number

HEADERLESS = (".l16", ".raw", ".pcm")  # 16-bit little-endian PCM, mono, as ELRA-S0329's .l16
HEADERLESS_RATE = 16_000  # Hz
BLOCK = 1 << 17  # samples of all channels that are decoded at a time
RATES = (1000, 768_000)  # Hz; a header with another rate is damaged
CHANNELS = ("mix", "left", "right")  # the mean of all channels, the first one or the second one
# The suffixes that are looked for in folders. Whether a file can be decoded shows when it is read.
SUFFIXES = (
    *HEADERLESS,
    # libsndfile decodes these,
    *(".wav", ".wave", ".bwf", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".aifc"),
    *(".au", ".snd", ".caf", ".w64", ".rf64", ".sph", ".nist", ".nis", ".voc", ".gsm", ".8svx"),
    *(".svx", ".avr", ".htk", ".ircam", ".sf", ".paf", ".pvf", ".sd2", ".sds", ".wve"),
    # ffmpeg, where it is installed, these,
    *(".m4a", ".m4b", ".m4p", ".m4r", ".mp4", ".m4v", ".mov", ".3ga", ".3gp", ".3gpp", ".3g2"),
    *(".aac", ".adts", ".latm", ".loas", ".amr", ".awb", ".qcp", ".evrc", ".wma", ".wmv"),
    *(".asf", ".webm", ".weba", ".mka", ".mkv", ".ac3", ".eac3", ".ac4", ".dts", ".mlp", ".ape"),
    *(".tta", ".tak", ".wv", ".shn", ".mpc", ".mp1", ".mp2", ".m2a", ".mpa", ".mpg", ".mpeg"),
    *(".vob", ".ts", ".m2ts", ".mts", ".qt", ".avi", ".flv", ".f4a", ".f4v", ".ra", ".rm", ".spx"),
    *(".ogv", ".ogm", ".ogx", ".mxf", ".dsf", ".dff", ".aa", ".aax", ".g722", ".g726", ".g729"),
    *(".oma", ".at3", ".mmf", ".aptx", ".sbc", ".lc3", ".3gpp2"),
    # and dictation machines and telephone exchanges leave these.
    *(".dss", ".ds2", ".dvf", ".msv", ".vox", ".sln", ".ul", ".ulaw", ".al", ".alaw"),
)


class Source(NamedTuple):
    """A recording, or a part of one, and how it is read.

    Attributes:
        path: The file.
        start: The part's start in seconds.
        end: The part's end in seconds; infinity for that of the file.
        raw_rate, channel: As in `Reading`.
    """

    path: Path
    start: float = 0.0
    end: float = math.inf
    raw_rate: int = HEADERLESS_RATE
    channel: str = "mix"

    @property
    def is_part(self) -> bool:
        """Whether this is not the whole file."""
        return self.start > 0 or self.end < math.inf

    @property
    def is_headerless(self) -> bool:
        """Whether the file has samples alone."""
        return self.path.suffix.lower() in HEADERLESS

    def __str__(self) -> str:
        return (
            f"{self.path} from {self.start:g} to {self.end:g} s" if self.is_part else f"{self.path}"
        )


class Decoded(NamedTuple):
    """What a decoder gives.

    Attributes:
        rate: Hz.
        blocks: The samples of all channels, int16 or float32 [n, channels].
        full_scale: The value of the largest sample.
        is_open: Whether the header of the file gives no length.
    """

    rate: int
    blocks: Iterator[np.ndarray]
    full_scale: int = 1
    is_open: bool = False


def check_rate(source: Source, rate: int) -> None:
    """Checks that a header gives a possible rate in Hz.

    Raises:
        ValueError: The rate is none of a recording.
    """
    if not RATES[0] <= rate <= RATES[1]:
        raise ValueError(f"{source} is damaged: its header gives a rate of {rate} Hz")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How recordings are read, whatever is made of them: fields of the config itself.

    Attributes:
        trim: Before and after the speech is cut off what lies this many dB below the loudest, see
            `silence.find_speech`; 0 cuts nothing off.
        channel: One of `CHANNELS`; a recording of one channel has this one for each.
        raw_rate: The rate in Hz of files with a suffix of `HEADERLESS`.
        variant: What is prepared of a recording in its place, see `variants.vary`; "" nothing. It
            is none of a config's fields, which has `variants`.

    Raises:
        ConfigError: A field has the wrong type or is out of its range.
    """

    trim: float = 0.0
    channel: str = "mix"
    raw_rate: int = HEADERLESS_RATE
    variant: str = ""
    in_threads = False  # whether many recordings are worked on in threads, which share a model

    def __post_init__(self):
        check_number("trim", self.trim, float, 0.0, 200.0)
        check_choice("channel", self.channel, CHANNELS)
        check_number("raw_rate", self.raw_rate, int, *RATES)
        if self.variant:
            variants.parse(self.variant)
        object.__setattr__(self, "trim", float(self.trim))  # 30 and 30.0 give one key

    def source(self, path: Path, start: float = 0.0, end: float = math.inf) -> Source:
        """Returns how a file, or a part of it, is read."""
        return Source(path, start, end, self.raw_rate, self.channel)

    def advise(self, rate: int) -> str:
        """Returns what helps where recordings lack what is above half of a rate in Hz."""
        return f"train on recordings that were converted to {rate} Hz"

    def reading_key(self) -> str:
        """Returns a part of the name of a folder; it differs if recordings are read otherwise."""
        values = [
            f"-{field.name}{getattr(self, field.name)}"
            for field in fields(Reading)
            if field.name != "variant" and getattr(self, field.name) != field.default
        ]
        if self.variant:
            values.append(f"-{variants.key(self.variant)}")
        return "".join(values).replace("_", "")


def reading_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of `Reading` that a config has; those of earlier versions lack some."""
    return {field.name: config[field.name] for field in fields(Reading) if field.name in config}
