"""The wording of errors, and which errors keep their traceback."""

import errno
import tempfile

import jax.numpy as jnp
import pytest
from absl import flags
from ml_collections import ConfigDict

import launch  # which defines the flags
from ds_jax import config as configuration
from ds_jax.runtime import errors
from ds_jax.runtime.errors import ConfigError
from ds_jax.systems import fields


def test_an_error_of_a_field_names_field_value_and_what_is_allowed():
    error = ConfigError("select_on", "train", errors.one_of(("dev", "test")))
    assert str(error) == "select_on='train' must be one of 'dev', 'test'"
    assert (error.field, error.value, error.allowed) == (
        "select_on",
        "train",
        "one of 'dev', 'test'",
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"a": {"text": 3}}, "a.text=3 must be text"),
        ({"a": {"whole": 2.5}}, "a.whole=2.5 must be a whole number"),
        ({"a": {"number": "1"}}, "a.number='1' must be a finite number"),
        ({"a": {"flag": 1}}, "a.flag=1 must be True or False"),
        ({"a": {"names": "x"}}, "a.names='x' must be a tuple, of text each"),
        ({"a": {"names": ("x", 1)}}, "a.names=('x', 1) must be a tuple, of text each"),
        ({"a": 1}, "a=1 must be a group of fields, such as a.flag"),
        (
            {"a": {"txt": 1}},
            "a.txt=1 must be left out: there is no such field; the nearest is a.text",
        ),
        ({"system": "y"}, "system='y' must be one of 'x'"),
    ],
)
def test_a_wrong_field_is_described(changes, sentence):
    known = {"text": "", "whole": 1, "number": 0.5, "flag": True, "names": ()}
    schema = {"system": "x", "a": known}
    wrong = schema | changes
    if isinstance(wrong["a"], dict):
        wrong["a"] = known | wrong["a"]
    with pytest.raises(ConfigError) as refused:
        configuration.check_fields(ConfigDict(wrong), {"x": lambda: ConfigDict(schema)})
    assert str(refused.value) == sentence


def test_a_missing_field_and_a_number_out_of_range_are_described():
    with pytest.raises(ConfigError) as refused:
        configuration.check_fields(ConfigDict({"system": "ds_am"}), launch.SCHEMAS)
    assert str(refused.value) == "adapt=None must be given: start from a config of the same system"
    config = launch.SCHEMAS["ds_am"]()
    config.train.batch_size = 0
    with pytest.raises(ConfigError) as refused:
        fields.check(config)
    assert str(refused.value) == "train.batch_size=0 must be a whole number from 1 to 65536"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            "--checkpont=x",
            "there is no flag --checkpont; the nearest is --checkpoint; --help shows ",
        ),
        ("--noaudoi", "there is no flag --noaudoi; the nearest is --audio; --help shows them"),
        ("--mode=trian", "--mode=trian is not one of train, evaluate, "),
        ("--window=long", "--window=long must be a number"),
        ("--audio=maybe", "--audio=maybe must be true or false"),
        ("--fold", "--fold needs a value: --fold=VALUE"),
    ],
)
def test_a_flag_that_cannot_be_parsed_is_described(arguments, sentence):
    values = flags.FlagValues()
    for flag in flags.FLAGS.get_flags_for_module("launch"):
        if flag.name != "config":
            flags.DEFINE_flag(flag, values)
    with pytest.raises(flags.Error) as refused:
        values(["launch.py", arguments])
    assert errors.sentence(refused.value).startswith(sentence)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file", "a.wav"), "a.wav: No such file"),
        (
            OSError(errno.ENOSPC, "No space left on device", "b"),
            "b: No space left on device: free some space, then start again",
        ),
        (OSError("in words"), "in words"),
        (BlockingIOError(), "BlockingIOError"),
    ],
)
def test_errors_of_the_system_name_the_file(error, sentence):
    assert errors.sentence(error) == sentence


def test_a_full_memory_is_described():
    with pytest.raises(RuntimeError) as raised:
        jnp.zeros(1 << 46).block_until_ready()
    assert "memory is full" in errors.sentence(raised.value)
    assert "--config.train.batch_size" in errors.sentence(raised.value)
    assert "the machine's memory is full" in errors.sentence(MemoryError())
    assert errors.sentence(RuntimeError("anything else")) is None


def test_a_missing_package_is_described():
    with pytest.raises(ModuleNotFoundError) as raised:
        import a_package_that_is_not_there.below  # noqa: F401
    sentence = errors.sentence(raised.value)
    assert sentence.startswith("the package a_package_that_is_not_there is not installed: pip ")
    with pytest.raises(ModuleNotFoundError) as raised:
        import ds_jax.nothing_of_the_kind  # noqa: F401
    assert errors.sentence(raised.value) is None


def test_without_a_temporary_folder_it_says_which_variable_helps(monkeypatch):
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/nowhere"])
    monkeypatch.setattr(tempfile, "tempdir", None)
    with pytest.raises(FileNotFoundError) as raised:
        tempfile.gettempdir()
    sentence = errors.sentence(raised.value)
    assert "/proc/nowhere" in sentence
    assert "TMPDIR" in sentence
