"""Files that may be recordings are known by their names, and read as the settings say."""

import dataclasses
import mimetypes
from pathlib import Path

import pytest
import soundfile

from ds_jax.features.extract import FeatureSettings
from ds_jax.features.source import HEADERLESS, SUFFIXES, Reading, Source

NO_SOUND = (".ass", ".mid", ".midi", ".rmi", ".kar", ".m3u", ".pls")  # subtitles, notes and lists
# Of what libsndfile knows, these hold the sounds of an instrument, numbers, or no header.
NO_RECORDINGS = ("XI", "MPC2K", "MAT4", "MAT5", "RAW")
OTHER_NAMES = {"WAVEX": "WAV", "NIST": "SPH", "IRCAM": "SF"}


def test_every_usual_suffix_of_audio_is_looked_for():
    kinds = mimetypes.MimeTypes().types_map[True]
    usual = {suffix for suffix, kind in kinds.items() if kind.startswith("audio/")}
    assert ".wav" in usual
    assert usual - {*NO_SOUND} <= {*SUFFIXES}
    decoded = {*soundfile.available_formats()} - {*NO_RECORDINGS}
    assert {f".{OTHER_NAMES.get(name, name).lower()}" for name in decoded} <= {*SUFFIXES}
    assert len({*SUFFIXES}) == len(SUFFIXES)
    assert {*HEADERLESS} <= {*SUFFIXES}


@pytest.mark.parametrize(("field", "value"), [("channel", "right"), ("raw_rate", 8000)])
def test_a_recording_is_read_as_the_settings_say(field, value):
    settings = dataclasses.replace(FeatureSettings("mfcc"), **{field: value})
    source = settings.source(Path("a.raw"), 1.0, 2.5)
    assert source == Source(Path("a.raw"), 1.0, 2.5)._replace(**{field: value})
    assert FeatureSettings("mfcc").source(Path("a.raw")) == Source(Path("a.raw"))
    assert settings.key() != FeatureSettings("mfcc").key()


def test_what_is_not_read_otherwise_leaves_names_of_folders_as_they_are():
    assert Reading().reading_key() == ""
    keys = {Reading(trim=30).reading_key(), Reading(trim=30.0).reading_key()}
    assert len(keys) == 1
