"""Flags, modes and fields on the command line are checked before anything is imported for them."""

import re
from pathlib import Path

import pytest

import launch
from ds_jax import cli
from ds_jax.runtime.errors import ConfigError

QUICKSTART = "configs/quickstart.py"


@pytest.mark.parametrize(
    ("argument", "field", "nearest"),
    [
        ("--config.picture.sice=3", "picture.sice", "picture.size"),
        ("--config.modle.freeze=block1", "modle.freeze", "model.freeze"),
        ("-config.zz=3", "zz", ""),
        ("--noconfig.synthetics", "synthetics", "synthetic"),
        ("--config.picture=3", "picture", "picture."),
        ("--config.model.head=gap", "model.head", "model."),  # a field of another system
    ],
)
def test_an_unknown_field_names_the_nearest(argument, field, nearest):
    with pytest.raises(ConfigError) as refused:
        cli.check_config(["launch.py", argument], QUICKSTART)
    assert refused.value.field == field
    assert f"the nearest is {nearest}" in refused.value.allowed


@pytest.mark.parametrize(
    ("argument", "path"),
    [("--config.model.head=gap", "configs/ds_fc_elra.py"), ("config.flac", QUICKSTART)],
)
def test_fields_of_the_config_and_recordings_pass(argument, path):
    cli.check_config(["launch.py", argument], path)


def test_help_lists_all_flags_and_modes():
    text = cli.HELP.read_text(encoding="utf-8")
    listed = set(re.findall(r"--([a-z_]+)(?=[=\s,)])", text)) - {"help", "helpfull", "version"}
    assert listed == {flag.name for flag in launch.flags.FLAGS.get_flags_for_module("launch")}
    assert set(cli.MODES) == set(re.findall(r"^  (\w+)  ", text, re.MULTILINE))
    assert max(map(len, text.splitlines())) <= 100


def test_every_flag_of_a_mode_exists():
    flags = {flag.name for flag in launch.flags.FLAGS.get_flags_for_module("launch")} | {"config."}
    taken = {name for names in cli.MODES.values() for name in names}
    assert taken == flags - {"mode", "debug"}


@pytest.mark.parametrize("mode", cli.MODES)
def test_a_mode_takes_its_own_flags_alone(mode):
    paths = [Path("a")] * (mode in cli.MODES_WITH_PATHS)
    for flag in {flag for flags in cli.MODES.values() for flag in flags}:
        name = "config.seed" if flag == "config." else flag
        if flag in cli.MODES[mode]:
            many = (mode, flag) == ("train", "figures")  # which one experiment alone does not draw
            cli.check_flags(mode, [name, "mode", "debug"], paths, many)
        else:
            with pytest.raises(ValueError, match=f"^--{name} .*--mode={mode}$"):
                cli.check_flags(mode, [name], paths, False)


@pytest.mark.parametrize(
    ("mode", "flags", "paths", "many", "named"),
    [
        ("predict", ["checkpoint", "workdir"], ["a.wav"], False, "--workdir"),
        ("predict", ["checkpoint", "config"], ["a.wav"], False, "--config"),
        ("export", ["checkpoint", "config", "workdir"], [], False, "--config"),
        ("train", [], ["a.wav"], False, "'a.wav'"),
        ("train", [], ["predict", "a.wav"], False, "--mode=predict"),
        ("corpus", [], [], True, "--mode=corpus"),
        ("train", ["fold"], [], True, "--fold"),
        ("train", ["audio"], [], True, "--audio"),
        ("train", ["figures"], [], False, "--figures"),
    ],
)
def test_what_does_not_go_together_is_refused(mode, flags, paths, many, named):
    with pytest.raises(ValueError, match=named):
        cli.check_flags(mode, flags, list(map(Path, paths)), many)


@pytest.mark.parametrize(
    ("text", "folds"),
    [
        ("", None),
        ("3", [3]),
        ("0-4", [0, 1, 2, 3, 4]),
        ("0,2", [0, 2]),
        ("5,0-2,1", [0, 1, 2, 5]),
    ],
)
def test_folds_are_parsed(text, folds):
    assert cli.parse_folds(text) == folds


@pytest.mark.parametrize(
    "text", ["x", "3-1", "-1", "1,", ",", "1-", "0-2-4", "1 2", "0-99999", "²"]
)
def test_other_texts_are_no_folds(text):
    with pytest.raises(ValueError, match=f"^--fold={text}:"):
        cli.parse_folds(text)


def test_formats_belong_to_modes():
    assert cli.choose_format("train", None) == ""
    for mode, formats in cli.FORMATS.items():
        assert cli.choose_format(mode, None) == formats[0]
        assert [cli.choose_format(mode, form) for form in formats] == [*formats]
    for mode, form in (("predict", "onnx"), ("export", "csv"), ("train", "csv")):
        with pytest.raises(ValueError, match=f"^--format={form}: --mode={mode} "):
            cli.choose_format(mode, form)
