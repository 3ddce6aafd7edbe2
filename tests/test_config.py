"""Configs are checked before any work, and a workdir holds one experiment."""

import functools
import runpy
from pathlib import Path

import pytest
from ml_collections import ConfigDict
from refusals import refused_field

from configs import base
from ds_jax import config as configuration
from ds_jax.commands import paper
from ds_jax.runtime import files
from ds_jax.systems import base as systems

CONFIGS = sorted(
    path for path in Path("configs").glob("*.py") if path.stem not in ("base", "ladder", "paper")
)


def check(config):
    configuration.check_fields(config, base.SCHEMAS)
    systems.check(config)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_possible_and_says_its_command(path):
    config = configuration.load(path)
    check(config)
    assert systems.title(config)
    command = "python launch.py" if path.stem == "quickstart" else f"--config=configs/{path.name}"
    assert command in runpy.run_path(str(path))["__doc__"]


def test_every_cell_of_the_paper_s_tables_is_possible():
    config = configuration.load("configs/paper.py")
    cells = paper.plan(config, lambda name: configuration.load(f"configs/{name}.py"))
    of_the_paper = {path.stem for path in CONFIGS if path.stem.endswith(("_elra", "_emomatch"))}
    of_the_paper -= {"ds_am_best_elra", "ds_am_best_emomatch"}
    assert {name for name, _ in cells} == of_the_paper
    for cell in cells.values():
        check(cell.experiment)


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("configs/nothing.py", ""),
        ("configs/ds_am_embodb.py", "configs/ds_am_emodb.py"),
        ("ds_am_emodb.py", "configs/ds_am_emodb.py"),
    ],
)
def test_a_missing_config_file_is_named(path, nearest):
    with pytest.raises(FileNotFoundError, match=rf"^--config={path}:.*{nearest}"):
        configuration.load(path)


@pytest.mark.parametrize(
    ("program", "named"),
    [
        ("", "KeyError"),
        ("def get_config(:\n", "SyntaxError.*line 2"),
        ("import nothing_like_it\n", "line 2 .*nothing_like_it"),
        ("def get_config():\n    return None\n", "ConfigDict"),
        ("def get_config():\n    return bose.get_config()\n", "line 3 .*'bose'"),
        ("def get_config():\n    base.get_config().seed = 'x'\n", "line 3 .*TypeError .*seed"),
        ("def get_config():\n    base.get_config().modle.freeze = ''\n", "line 3 .*AttributeError"),
        ("def get_config():\n    1 / 0\n", "line 3 .*ZeroDivisionError"),
    ],
)
def test_a_config_file_that_fails_is_named_with_the_line(program, named, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from configs import base\n" + program)
    with pytest.raises(ValueError, match=rf"(?s)^--config={path}.*{named}"):
        configuration.load(path)


def test_a_report_shows_every_field_and_no_folder_of_the_machine():
    config = base.get_config()
    config.weights, config.folds.file = "/home/ana/vgg16.h5", "mine/folds.json"
    values = configuration.describe(config)
    assert (values["weights"], values["folds.file"]) == ("vgg16.h5", "folds.json")
    assert (values["model.gates"], values["picture.size"]) == (["block4_pool", "block5_pool"], 224)
    config.weights = ""
    assert configuration.describe(config)["weights"] == ""


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("folds.count", "3", "folds.count"),  # which the members share
        ("seed", -1, "seed"),
        ("members.timeline_0.eval_on", ("emodb",), "members.timeline_0.eval_on"),
    ],
)
def test_an_impossible_field_of_an_ensemble_is_named(field, value, named):
    content = configuration.load("configs/ds_am_best.py").to_dict()
    *groups, last = field.split(".")
    functools.reduce(dict.__getitem__, groups, content)[last] = value
    config = ConfigDict(content)
    assert refused_field(check, config) == named


def test_a_workdir_holds_one_experiment(tmp_path):
    config = base.get_config()
    configuration.check_same(config, tmp_path)  # nothing there yet
    configuration.write(config, tmp_path)
    config.eval_on = ("emovo",)  # changes no fold
    configuration.check_same(config, tmp_path)
    assert configuration.read(tmp_path).train.to_dict() == config.train.to_dict()
    config.train.batch_size = 7
    with pytest.raises(ValueError, match=r"train\.batch_size .*32 .*7 .*--workdir"):
        configuration.check_same(config, tmp_path)


def test_reading_without_a_run_names_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "config.json")):
        configuration.read(tmp_path)


def test_each_seed_can_be_set_alone_and_follows_the_common_one():
    for name in ("initialisation", "order", "dropout"):
        config = base.get_config()
        config.seeds[name] = 7
        others = {other: seed for other, seed in config.seeds.items() if other != name}
        assert {config.seed, config.folds.seed, *others.values()} == {0}
    config = base.get_config()
    config.seed = 5
    assert {*config.seeds.values()} == {5}
    assert config.folds.seed == 0


def test_older_runs_and_their_members_took_everybody_as_they_come(tmp_path):
    config = base.get_config()
    base.use_ds_am_fused(config)
    configuration.write(config, tmp_path)
    content = files.read_json(tmp_path / "config.json")
    for each in (content, *content["members"].values()):
        del each["adapt"]
    for inner in content["members"].values():
        for each in inner["members"].values():
            del each["adapt"]
    files.write_json(tmp_path / "config.json", content, sealed=True)
    before = configuration.read(tmp_path)
    assert {each.adapt for each in configuration.experiments(before)} == {"none"}
    systems.check(before)
    configuration.check_same(config, tmp_path)
    config.adapt = "speaker"
    with pytest.raises(ValueError, match="adapt is 'none' there and 'speaker'"):
        configuration.check_same(config, tmp_path)


def test_a_run_that_is_older_than_the_seed_of_augmentation_goes_on(tmp_path):
    config = base.get_config()
    config.seed = 3
    configuration.write(config, tmp_path)
    content = files.read_json(tmp_path / "config.json")
    del content["seeds"]["augmentation"]
    files.write_json(tmp_path / "config.json", content, sealed=True)
    assert configuration.read(tmp_path).seeds.augmentation == 3
    configuration.check_same(config, tmp_path)


def test_a_run_that_is_older_than_the_choice_of_augmentation_goes_on(tmp_path):
    config = configuration.load("configs/ds_am_best.py")
    configuration.write(config, tmp_path)
    content = files.read_json(tmp_path / "config.json")
    for member in content["members"].values():
        for name in ("mixup", "least_share", "most_hidden"):
            del member["train"][name]
    files.write_json(tmp_path / "config.json", content, sealed=True)
    configuration.check_same(config, tmp_path)
