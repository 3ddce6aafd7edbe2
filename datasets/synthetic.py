"""Synthetic speech in the layouts of ELRA-S0329 and EmoMatchSpanishDB.

It lets the whole program run without a download or a licence. It is never evidence: a score on it
shows that the program works, and nothing about speech, emotion or any method.

A voice is a pulse train and noise through formant resonances (source and filter, Fant 1960).
An emotion moves pitch, its contour, speech rate, pauses, spectral tilt, breathiness and level.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from ds_jax.runtime import files, locks, progress

NAMES = ("elra_s0329", "emomatch_spanish_db")  # the corpora that are written

# F1 and F2 in Hz of male speakers from Madrid: Bradlow 1995, JASA 97(3), doi 10.1121/1.412064.
VOWELS = {"a": (638, 1353), "e": (458, 1814), "i": (286, 2147), "o": (460, 1019), "u": (322, 992)}
HIGHER_FORMANTS = (2500, 3500)  # Hz, the even spacing of a neutral tube of 17.5 cm
BANDWIDTHS = (80, 100, 140, 200)  # Hz, round values for F1 to F4
FORMANT_GAINS = (1.0, 0.6, 0.35, 0.25)

# Segments before the vowel: (seconds, voicing, noise); then the centre of the noise in Hz.
CONSONANTS = {
    "p": (((0.06, 0.0, 0.0), (0.02, 0.0, 0.5)), 900),
    "t": (((0.06, 0.0, 0.0), (0.02, 0.0, 0.5)), 4000),
    "k": (((0.06, 0.0, 0.0), (0.02, 0.0, 0.5)), 1800),
    "s": (((0.09, 0.0, 0.35),), 5500),
    "f": (((0.08, 0.0, 0.2),), 6500),
    "m": (((0.07, 0.25, 0.0),), 900),
    "l": (((0.06, 0.45, 0.0),), 900),
    "d": (((0.05, 0.12, 0.0),), 900),
}


class Manner(NamedTuple):
    """A way of speaking, relative to the speaker's voice.

    Attributes:
        pitch: Shift of the mean, semitones.
        contour: Pitch over the utterance at evenly spaced times, semitones.
        accent: Rise and fall of pitch within each vowel, semitones.
        tremor: Depth of a 6 Hz modulation of pitch, semitones.
        rate: Syllables a second.
        pause: Silence in the middle of the utterance, seconds.
        ending: Factor on the length of the last vowel.
        tilt: Slope of the source's spectrum with the lips' radiation, dB per octave.
        breath: Share of noise in the voice, 0 to 1.
        jitter: Standard deviation of a period against its length; shimmer is four times that.
        tract: Factor on all formants (spread lips raise them).
        level: Peak of the recording, dB below full scale.
    """

    pitch: float
    contour: tuple[float, ...]
    accent: float
    tremor: float
    rate: float
    pause: float
    ending: float
    tilt: float
    breath: float
    jitter: float
    tract: float
    level: float


# For anger, fear, joy and sadness the directions are those that Juslin and Laukka 2003
# (doi 10.1037/0033-2909.129.5.770) find in the literature. The rest and every size are invented.
MANNERS = {
    "ANGER": Manner(4, (3, 4, 2, 1, -4), 4, 0, 5.2, 0.0, 0.8, -2, 0.05, 0.03, 1.0, -3),
    "DISGUST": Manner(-3, (3, 0, -2, 0, -3), 0, 0, 3.8, 0.1, 1.3, -5, 0.3, 0.06, 0.92, -9),
    "FEAR": Manner(9, (0, 0, 0, 0, 1), 0, 1.2, 5.6, 0.06, 0.9, -7, 0.4, 0.02, 1.03, -9),
    "JOY": Manner(5, (0, 2, 0, 2, 0), 7, 0, 5.0, 0.0, 1.2, -4, 0.05, 0.005, 1.07, -5),
    "NEUTRAL": Manner(0, (1, 1, 0, -1, -3), 1, 0, 4.6, 0.0, 1.0, -6, 0.08, 0.01, 1.0, -9),
    "SADNESS": Manner(-1, (2, 1, 0, -2, -4), 0, 0, 3.5, 0.15, 1.4, -11, 0.2, 0.01, 0.98, -18),
    "SURPRISE": Manner(4, (-3, -3, -1, 4, 10), 1, 0, 4.4, 0.0, 2.0, -5, 0.12, 0.01, 1.03, -6),
}


class Speaker(NamedTuple):
    """A voice: mean pitch in Hz, factor on all formants, and spectral tilt in dB per octave."""

    pitch: float
    tract: float
    tilt: float


FRAME = 0.01  # seconds between two states of the vocal tract
MARGIN = 0.1  # seconds of silence before and after the speech
ROOM = -66.0  # dB below full scale, RMS of the background noise of each channel
ELRA_STYLES = {
    **{"a": "ANGER", "d": "DISGUST", "f": "FEAR", "j": "JOY", "n": "NEUTRAL", "s": "SADNESS"},
    **{"u": "SURPRISE", "h": "NEUTRAL", "l": "NEUTRAL", "w": "NEUTRAL", "z": "NEUTRAL"},
}
EMOMATCH_EMOTIONS = {
    **{"Ira": "ANGER", "Asco": "DISGUST", "Miedo": "FEAR", "Alegria": "JOY"},
    **{"Neutro": "NEUTRAL", "Tristeza": "SADNESS", "Sorpresa": "SURPRISE"},
}
# Ids whose gender is public, men and women in turn.
EMOMATCH_SPEAKERS = (1, 3, 2, 4, 5, 6, 9, 7, 12, 8, 13, 10, 22, 11, 23, 20, 31, 25, 35, 29)
README = """SYNTHETIC

A program computed these sounds: nobody speaks in them and nobody feels anything. They prove that
the plumbing works and nothing else. They are never evidence; a score on them must not be quoted.

{recipe}
"""


def write_corpora(
    folder: Path, seed: int = 0, speakers: int = 8, sentences: int = 4, elra_sentences: int = 4
) -> None:
    """Writes two small corpora of synthetic speech, which is never evidence of anything.

    `<folder>/elra_s0329` is 16 kHz mono and headerless; `<folder>/emomatch_spanish_db` 48 kHz
    stereo WAV; both are 16-bit. They share no speaker and no sentence. The same arguments give the
    same bytes, and an existing corpus is kept. Of two processes one waits.

    Args:
        folder: The folder of the two corpora; each is written completely or not at all.
        seed: The seed of voices, sentences and noise; not negative.
        speakers: 2 to 20 speakers of the EmoMatch-like corpus, men and women in turn.
        sentences: 1 to 99 sentences of the EmoMatch-like corpus, which each speaker says once with
            each emotion.
        elra_sentences: 2 to 184 sentences of the ELRA-like corpus, which a man and a woman say in
            two sessions with each emotion; half of them also in one session in each of the loud,
            soft, slow and fast styles.

    Raises:
        ValueError: A size is out of its range, the seed is negative, or a corpus' folder exists and
            holds other files.
    """
    for name, value, low, high in (
        ("speakers", speakers, 2, len(EMOMATCH_SPEAKERS)),
        ("sentences", sentences, 1, 99),
        ("elra_sentences", elra_sentences, 2, 184),
    ):
        if not low <= value <= high:
            raise ValueError(f"{name} is {value}: synthetic corpora have {low} to {high}")
    folder = Path(folder)
    with locks.hold(folder.with_name(f"{folder.name}.lock"), f"{folder}", wait=True):
        _write_corpus(
            folder / NAMES[0],
            f"seed {seed}, 2 speakers, {elra_sentences} sentences",
            _elra(seed, elra_sentences),
            2 * (14 * elra_sentences + 4 * (elra_sentences // 2)),
        )
        _write_corpus(
            folder / NAMES[1],
            f"seed {seed}, {speakers} speakers, {sentences} sentences",
            _emomatch(seed, speakers, sentences),
            speakers * len(EMOMATCH_EMOTIONS) * sentences,
        )


def is_synthetic(folder: Path) -> bool:
    """Tells whether `write_corpora` has written a corpus' folder."""
    note = folder / "README.txt"
    return note.is_file() and note.read_text("utf-8", "replace").startswith("SYNTHETIC\n")


def synthesise(
    speaker: Speaker, manner: Manner, syllables: list[str], rate: int, rng: np.random.Generator
) -> np.ndarray:
    """Synthesises syllables (a consonant and a vowel each) in a voice and a manner.

    Returns:
        float64 [samples] at `rate` Hz, peak `manner.level` dB below full scale, without room noise.
    """
    voicing, noise, noise_centre, formants, semitones = _score(speaker, manner, syllables)
    hop = round(FRAME * rate)
    frame_times = hop * np.arange(len(voicing))
    times = np.arange(hop * len(voicing))
    pitch = speaker.pitch * 2 ** (np.interp(times, frame_times, semitones) / 12)
    hiss = rng.standard_normal(times.size)
    voice = (1 - manner.breath) * _pulses(pitch / rate, manner.jitter, rng) + manner.breath * hiss

    frequencies = np.fft.rfftfreq(4 * hop, 1 / rate)
    tilt = (np.maximum(frequencies, 100) / 500) ** (
        (manner.tilt + speaker.tilt) / (20 * np.log10(2))
    )
    tract = tilt * sum(
        gain * _resonance(frequencies, formants[:, [index]], width)
        for index, (gain, width) in enumerate(zip(FORMANT_GAINS, BANDWIDTHS, strict=True))
    )
    friction = 0.3 * _resonance(frequencies, noise_centre[:, None], 2000)
    samples = _filter(voice * np.interp(times, frame_times, voicing), tract, hop)
    samples += _filter(hiss * np.interp(times, frame_times, noise), friction, hop)
    return samples * 10 ** (manner.level / 20) / np.abs(samples).max()


def _score(speaker: Speaker, manner: Manner, syllables: list[str]) -> tuple[np.ndarray, ...]:
    """Returns voicing, noise, the noise's centre, formants and semitones at each frame."""
    rows = [(MARGIN, 0.0, 0.0, 900, VOWELS[syllables[0][1]], 0)]
    for index, (consonant, vowel) in enumerate(syllables):
        segments, centre = CONSONANTS[consonant]
        rows += [(*segment, centre, VOWELS[vowel], 0) for segment in segments]
        # Consonants hardly shorten in fast speech, vowels do.
        seconds = max(1 / manner.rate - sum(segment[0] for segment in segments), 0.05)
        if index == len(syllables) - 1:
            seconds *= manner.ending
        rows.append((seconds, 1.0, 0.0, centre, VOWELS[vowel], 1))
        if index == len(syllables) // 2 - 1:
            rows.append((manner.pause, 0.0, 0.0, centre, VOWELS[vowel], 0))
    rows.append((MARGIN, 0.0, 0.0, 900, VOWELS[syllables[-1][1]], 0))

    lengths = [round(row[0] / FRAME) for row in rows]
    voicing, noise, centre, low_formants = (
        np.repeat(np.asarray([row[column] for row in rows], float), lengths, axis=0)
        for column in (1, 2, 3, 4)
    )
    accents = [
        np.sin(np.pi * np.arange(length) / length) if row[5] else np.zeros(length)
        for row, length in zip(rows, lengths, strict=True)
    ]
    frames = len(voicing)
    higher = np.broadcast_to(HIGHER_FORMANTS, (frames, 2))
    formants = np.concatenate([_smooth(low_formants, 7), higher], axis=1)
    position = np.linspace(0, 1, frames)
    semitones = (
        manner.pitch
        + np.interp(position, np.linspace(0, 1, len(manner.contour)), manner.contour)
        + manner.accent * (np.concatenate(accents) - 0.5)
        + manner.tremor * np.sin(2 * np.pi * 6 * FRAME * np.arange(frames))
    )
    scale = speaker.tract * manner.tract
    return (
        _smooth(voicing[:, None], 3)[:, 0],
        noise,
        centre * scale,
        formants * scale,
        _smooth(semitones[:, None], 5)[:, 0],
    )


def _smooth(track: np.ndarray, width: int) -> np.ndarray:
    """Returns the moving average of each column over an odd number of frames."""
    padded = np.pad(track, ((width // 2, width // 2), (0, 0)), mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, width, axis=0).mean(axis=-1)


def _pulses(cycles: np.ndarray, jitter: float, rng: np.random.Generator) -> np.ndarray:
    """Returns a glottal pulse of unit power for each period; `cycles` are periods a sample."""
    phase = np.cumsum(cycles)
    when = np.interp(np.arange(1, phase[-1]), phase, np.arange(len(phase)))
    period = 1 / cycles[when.astype(int)]
    when = np.clip(when + jitter * period * rng.standard_normal(len(when)), 0, len(cycles) - 2)
    height = np.sqrt(period) * (1 + 4 * jitter * rng.standard_normal(len(when)))
    # A pulse between two samples is divided between them.
    before = when.astype(int)
    pulses = np.bincount(before, height * (1 - when + before), len(cycles))
    return pulses + np.bincount(before + 1, height * (when - before), len(cycles))


def _resonance(frequencies: np.ndarray, centre: np.ndarray, width: float) -> np.ndarray:
    """Returns the gain [frames, frequencies] of a resonance of unit height, `width` Hz at -3 dB."""
    return 1 / np.sqrt(1 + ((frequencies - centre) / (width / 2)) ** 2)


def _filter(samples: np.ndarray, gains: np.ndarray, hop: int) -> np.ndarray:
    """Filters frame by frame: Hann windows of two hops, transforms of four, overlap and add."""
    window = np.hanning(2 * hop + 1)[:-1]
    padded = np.pad(samples, (hop, hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, 2 * hop)[::hop][: len(gains)]
    # The gains have no phase and act in both directions: frames need zeros on either side.
    spectra = np.fft.rfft(np.pad(frames * window, ((0, 0), (hop, hop))))
    pieces = np.fft.irfft(spectra * gains).reshape(len(gains), 4, hop)
    filtered = np.zeros((len(gains) + 3, hop))
    for index in range(4):
        filtered[index : index + len(gains)] += pieces[:, index]
    return filtered[2:-1].ravel()


def _speaker(rng: np.random.Generator, gender: str) -> Speaker:
    low, high, tract = (95, 135, 1.0) if gender == "m" else (175, 235, 1.17)
    return Speaker(rng.uniform(low, high), tract * rng.uniform(0.95, 1.05), rng.uniform(-2, 2))


def _sentence(rng: np.random.Generator) -> list[str]:
    return [rng.choice(list(CONSONANTS)) + rng.choice(list(VOWELS)) for _ in range(6)]


def _vary(manner: Manner, rng: np.random.Generator) -> Manner:
    """Varies a manner at random, since nobody speaks twice in the same way."""
    neutral, force = MANNERS["NEUTRAL"], rng.uniform(0.5, 1.1)
    mixed = [
        np.asarray(plain) + force * (np.asarray(felt) - np.asarray(plain))
        for plain, felt in zip(neutral, manner, strict=True)
    ]
    manner = Manner(*mixed)
    return manner._replace(
        pitch=manner.pitch + rng.normal(0, 1),
        contour=tuple(manner.contour + rng.normal(0, 0.8, len(manner.contour))),
        rate=manner.rate * rng.uniform(0.9, 1.1),
        tilt=manner.tilt + rng.normal(0, 1),
        breath=manner.breath * rng.uniform(0.6, 1.4),
        level=manner.level + rng.uniform(-4, 0),
    )


def _in_style(manner: Manner, style: str) -> Manner:
    """Applies ELRA's neutral styles loud, soft, slow and fast; other letters change nothing."""
    changes = {
        "h": {"pitch": manner.pitch + 2, "tilt": manner.tilt + 2, "level": manner.level + 5},
        "l": {"pitch": manner.pitch - 1, "tilt": manner.tilt - 2, "level": manner.level - 7},
        "w": {"rate": manner.rate * 0.65, "pause": 0.2},
        "z": {"rate": manner.rate * 1.4},
    }
    return manner._replace(**changes.get(style, {}))


def _elra(seed: int, sentences: int) -> Iterator[tuple[str, np.ndarray, int]]:
    """Yields path below the corpus, int16 [samples, 1] and rate in Hz of each recording."""
    for gender in "fm":
        speaker = _speaker(np.random.default_rng([seed, 1, 0, ord(gender)]), gender)
        for style, label in ELRA_STYLES.items():
            few = style in "hlwz"
            for session in (1,) if few else (1, 2):
                for number in range(1, 1 + (sentences // 2 if few else sentences)):
                    rng = np.random.default_rng(
                        [seed, 1, 2, *f"{gender}{style}".encode(), session, number]
                    )
                    syllables = _sentence(np.random.default_rng([seed, 1, 1, number]))
                    manner = _in_style(_vary(MANNERS[label], rng), style)
                    samples = synthesise(speaker, manner, syllables, 16000, rng)
                    name = f"sp{gender}{session}{style}{number:03d}.l16"
                    path = f"S0329/INTER1SP_01/{gender}/sess{style}00{session}/{name}"
                    yield path, _recorded(samples, 1, rng), 16000


def _emomatch(seed: int, speakers: int, sentences: int) -> Iterator[tuple[str, np.ndarray, int]]:
    """Yields path below the corpus, int16 [samples, 2] and rate in Hz of each recording."""
    for position, identity in enumerate(EMOMATCH_SPEAKERS[:speakers]):
        gender = "mf"[position % 2]
        speaker = _speaker(np.random.default_rng([seed, 2, 0, identity]), gender)
        for index, (emotion, label) in enumerate(EMOMATCH_EMOTIONS.items()):
            for number in range(1, 1 + sentences):
                rng = np.random.default_rng([seed, 2, 2, identity, index, number])
                syllables = _sentence(np.random.default_rng([seed, 2, 1, number]))
                samples = synthesise(speaker, _vary(MANNERS[label], rng), syllables, 48000, rng)
                path = f"{identity:02d}_{emotion}_{number:02d}.WAV"
                yield path, _recorded(samples, 2, rng), 48000


def _recorded(samples: np.ndarray, channels: int, rng: np.random.Generator) -> np.ndarray:
    """Returns the sound in each channel with other room noise, int16 [samples, channels]."""
    room = 10 ** (ROOM / 20) * rng.standard_normal((len(samples), channels))
    return np.round(32767 * (samples[:, None] + room)).astype(np.int16)


def _write_corpus(
    folder: Path, recipe: str, recordings: Iterator[tuple[str, np.ndarray, int]], count: int
) -> None:
    readme = README.format(recipe=recipe)
    if folder.exists():
        note = folder / "README.txt"
        if not note.is_file() or note.read_text(encoding="utf-8") != readme:
            raise ValueError(
                f"{folder} does not hold the synthetic corpus of {recipe}: choose another folder"
                " for synthetic speech, or remove it"
            )
        return
    unfinished = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    bar = progress.bar(f"speaking {folder.name}", count, "recordings", recordings)
    for path, samples, rate in bar:
        target = unfinished / path
        files.make_folder(target.parent)
        if target.suffix == ".l16":
            target.write_bytes(samples.astype("<i2").tobytes())
        else:
            soundfile.write(target, samples, rate, subtype="PCM_16", format="WAV")
    (unfinished / "README.txt").write_text(readme, encoding="utf-8")
    os.replace(unfinished, folder)
