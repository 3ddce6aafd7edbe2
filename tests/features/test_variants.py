"""Variants of a recording differ from it in one thing, by as much as they say."""

import librosa
import numpy as np
import pytest
from scipy import signal

from ds_jax.features import variants
from ds_jax.runtime.errors import ConfigError

RATE = 16_000


def tone(pitch, seconds=1.0):
    return (0.3 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * RATE)) / RATE)).astype("f4")


def pitch_of(samples):
    """The strongest frequency in Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return spectrum.argmax() * RATE / len(samples)


@pytest.mark.parametrize(
    ("variant", "pitch", "seconds"),
    [
        ("", 440, 1.0),
        ("speed=0.8", 352, 1.25),
        ("speed=1.25", 550, 0.8),
        ("pitch=12", 880, 1.0),
        ("pitch=-5", 440 * 2 ** (-5 / 12), 1.0),
        ("noise=20", 440, 1.0),
    ],
)
def test_speed_and_pitch_are_what_they_say(variant, pitch, seconds):
    varied = variants.vary(tone(440), RATE, variant)
    assert varied.dtype == np.float32
    assert len(varied) == pytest.approx(seconds * RATE, abs=2)
    assert pitch_of(varied) == pytest.approx(pitch, abs=3)


FORMANTS = np.array([650, 1400, 2500, 3500])  # Hz


def vowel(source, formants):
    """A source through a resonance of 100 Hz at each formant."""
    for formant in formants:
        pole = np.exp(np.pi / RATE * (-100 + 2j * formant))
        source = signal.lfilter([1], np.poly([pole, pole.conj()]).real, source)
    return (0.3 * source / np.abs(source).max()).astype("f4")


def voice(pitch):
    """A second of pulses."""
    return np.diff(np.floor(pitch * np.arange(RATE) / RATE), prepend=0)


def formants_of(samples, wanted):
    """The resonances in Hz that linear prediction finds nearest to the wanted ones."""
    poles = np.roots(librosa.lpc(samples.astype(float), order=12))
    found = np.abs(np.angle(poles)) * RATE / (2 * np.pi)
    return found[np.abs(found[:, None] - wanted).argmin(axis=0)]


def period_of(samples):
    """The lag in samples, from 2 to 20 ms, of the greatest autocorrelation."""
    correlation = signal.correlate(samples, samples)[len(samples) - 1 :]
    return 32 + correlation[32:320].argmax()


@pytest.mark.parametrize("factor", [0.8, 0.9, 1.1, 1.25])
@pytest.mark.parametrize("voiced", [True, False])
def test_another_tract_moves_the_formants(voiced, factor):
    source = voice(110) if voiced else np.random.default_rng(0).normal(size=2 * RATE)
    varied = variants.vary(vowel(source, FORMANTS), RATE, f"tract={factor}")
    found = formants_of(varied, factor * FORMANTS)
    np.testing.assert_allclose(found[1:], factor * FORMANTS[1:], rtol=0.03)
    # Envelopes are too smooth for the narrowest formant to move by the whole factor.
    assert (found[0] / FORMANTS[0] - 1) / (factor - 1) == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("factor", [0.8, 1.25])
@pytest.mark.parametrize("pitch", [100, 160, 250, 400])
def test_another_tract_is_like_a_vowel_of_such_formants_at_the_same_pitch(pitch, factor):
    plain, wanted = (vowel(voice(pitch), FORMANTS * scale) for scale in (1, factor))
    varied = variants.vary(plain, RATE, f"tract={factor}")
    assert varied.shape == plain.shape
    assert period_of(varied) == pytest.approx(RATE / pitch, abs=1)

    def distance(samples):
        """Of the harmonics below 5 kHz, in dB, without the level."""
        spectra = [np.abs(np.fft.rfft(each * np.hanning(RATE))) for each in (samples, wanted)]
        return np.std(20 * np.log10(spectra[0] / spectra[1])[pitch:5000:pitch])

    assert distance(varied) < 0.5 * distance(plain)


@pytest.mark.parametrize("level", [0.0, 0.3])
def test_silence_and_constants_stay_as_they_are_in_another_tract(level):
    varied = variants.vary(np.full(RATE, level, np.float32), RATE, "tract=0.8")
    np.testing.assert_allclose(varied[1000:-1000], level, rtol=0.1)


@pytest.mark.parametrize("snr", [-5, 10, 30])
def test_noise_lies_as_far_below_as_it_says_and_is_the_same_again(snr):
    samples = 0.1 * tone(440)
    varied = variants.vary(samples, RATE, f"noise={snr}")
    ratio = np.mean(np.square(samples)) / np.mean(np.square(varied - samples))
    assert 10 * np.log10(ratio) == pytest.approx(snr, abs=0.3)
    np.testing.assert_array_equal(varied, variants.vary(samples, RATE, f"noise={snr}"))


@pytest.mark.parametrize("variant", ["speed=1.5", "pitch=3", "tract=0.8", "noise=0"])
@pytest.mark.parametrize("count", [1, 20, 700])
def test_the_shortest_recordings_have_variants(variant, count):
    varied = variants.vary(np.ones(count, np.float32), RATE, variant)
    assert len(varied)
    assert np.isfinite(varied).all()
    assert np.abs(varied).max() <= 1


@pytest.mark.parametrize(
    "variant",
    [
        *("speed", "speed=", "speed=fast", "speed=3", "pitch=nan", "echo=1", "noise=1e9"),
        *("speed=1", "pitch=0.0", "tract=1", "tract=1.00", "tract=0.5"),
    ],
)
def test_an_impossible_variant_is_named(variant):
    with pytest.raises(ConfigError) as refused:
        variants.parse(variant)
    assert (refused.value.field, refused.value.value) == ("variants", variant)
