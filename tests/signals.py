"""Signals, and files of them."""

import numpy as np
import soundfile

TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(4800) / 48_000)).astype(np.float32)
PCM = (20_000 * TONE).astype(np.int16)


def write(path, samples, rate=48_000, subtype="FLOAT"):
    """Writes samples, [n] or [n, channels], and returns the path."""
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def noise(seconds, rate, channels=1, seed=0):
    """White noise, float32 [n, channels]."""
    shape = (int(seconds * rate), channels)
    return np.random.default_rng(seed).normal(0, 0.1, shape).astype(np.float32)


def padded(before, speech, after, rate=16_000):
    """A tone of -9 dB between noise of -70 dB, float32 [n]; the arguments are seconds."""
    tone = 0.5 * np.sin(np.arange(int(speech * rate)) * 0.17)
    quiet = 3e-4 * np.random.default_rng(0).normal(0, 1, int((before + after) * rate))
    start = int(before * rate)
    return np.concatenate([quiet[:start], tone, quiet[start:]]).astype(np.float32)


def write_sizes(path, whole, samples, content=PCM, rate=48_000):
    """Writes a wav with other sizes in its header: without 8 bytes, and of the samples."""
    bytes_of = write(path, content, rate, subtype="PCM_16").read_bytes()
    assert bytes_of[36:40] == b"data"
    whole, samples = (size.to_bytes(4, "little") for size in (whole, samples))
    path.write_bytes(bytes_of[:4] + whole + bytes_of[8:40] + samples + bytes_of[44:])
    return path


def sound(seconds, rate=16000):
    """A rising tone, a gliding voice-like harmonic series that comes and goes, and noise."""
    time = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(0).normal(size=len(time))
    tone = np.sin(2 * np.pi * (100 + 0.2 * rate * time / seconds) * time)
    phase = 2 * np.pi * np.cumsum(140 + 40 * np.sin(3 * time)) / rate
    voice = sum(np.sin(k * phase) / k for k in range(1, 20)) * np.maximum(0, np.sin(5 * time))
    return (0.05 * tone + 0.1 * voice + 0.003 * noise).astype(np.float32)
