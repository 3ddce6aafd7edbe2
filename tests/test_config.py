"""Fields are checked before any work, and a workdir holds one experiment."""

import re
import runpy
from pathlib import Path

import pytest

import launch
from configs import base
from ds_jax import config as configuration
from ds_jax.commands import paper
from ds_jax.runtime import files
from ds_jax.systems import base as systems

CONFIGS = sorted(
    path for path in Path("configs").glob("*.py") if path.stem not in ("base", "paper")
)
QUICKSTART = "configs/quickstart.py"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_possible_and_says_its_command(path):
    config = configuration.load(path)
    configuration.check(config)
    systems.check(config)
    assert systems.title(config)
    command = "python launch.py" if path.stem == "quickstart" else f"--config=configs/{path.name}"
    assert command in runpy.run_path(str(path))["__doc__"]


def test_every_cell_of_the_paper_s_tables_is_possible():
    config = configuration.load("configs/paper.py")
    cells = paper.plan(config, lambda name: configuration.load(f"configs/{name}.py"))
    assert {name for name, _ in cells} | {"ds_svc_emodb", "deepspectrum"} == {
        path.stem for path in CONFIGS if not path.stem.startswith(("ds_am_e", "ds_am_r", "quick"))
    } | {"ds_am_elra", "ds_am_emomatch"}
    for cell in cells.values():
        configuration.check(cell.experiment)
        systems.check(cell.experiment)


@pytest.mark.parametrize(
    ("argument", "nearest"),
    [
        ("--config.picture.sice=3", "--config.picture.size"),
        ("--config.modle.freeze=block1", "--config.model.freeze"),
        ("--config.zz=3", "--config."),
    ],
)
def test_an_unknown_field_names_the_nearest(argument, nearest):
    with pytest.raises(ValueError, match=nearest.replace(".", r"\.")):
        configuration.check_arguments(["launch.py", argument], QUICKSTART)


def test_known_fields_pass_for_the_config_that_is_given():
    fc = ["--config", "configs/ds_fc_elra.py", "--config.model.head=gap"]
    configuration.check_arguments(["launch.py", *fc], QUICKSTART)
    with pytest.raises(ValueError, match=r"model\.head"):
        configuration.check_arguments(["launch.py", "--config.model.head=gap"], QUICKSTART)


def test_a_recording_may_be_called_like_a_field():
    configuration.check_arguments(["launch.py", "config.flac"], QUICKSTART)


def test_a_file_that_is_no_config_is_named(tmp_path):
    (tmp_path / "empty.py").write_text("")
    for path in ("README.md", tmp_path / "empty.py"):
        with pytest.raises(ValueError, match="is no config"):
            configuration.check_arguments(["launch.py", f"--config={path}"], QUICKSTART)


def test_a_mistake_in_a_config_file_is_found(tmp_path):
    path = tmp_path / "mine.py"
    for text, said in (
        ("def get_config():\n    return bose.get_config()\n", "line 2 is no config.*'bose' is not"),
        ("def get_config(:\n", "is no config.*SyntaxError.*line 1"),
        ("def get_config():\n    return None\n", "must return a ConfigDict"),
        ("import nothing_like_it\n", "line 1 is no config.*nothing_like_it"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=said):
            configuration.load(path)


def test_help_tells_of_every_flag_there_is():
    help_text = configuration.HELP.read_text(encoding="utf-8")
    told = set(re.findall(r"--([a-z_]+)(?=[=\s,)])", help_text)) - {"help", "helpfull"}
    there = {flag.name for flag in launch.flags.FLAGS.get_flags_for_module("launch")}
    assert told == there
    assert set(configuration.MODES) == set(re.findall(r"^  (\w+)  ", help_text, re.MULTILINE))
    assert max(map(len, help_text.splitlines())) <= 100


def test_a_missing_config_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"configs/nothing\.py"):
        configuration.check_arguments(["launch.py", "--config=configs/nothing.py"], QUICKSTART)


def test_flags_of_another_mode_are_refused():
    configuration.check_flags("train", ["config", "fold", "workdir", "config.seed"], [], "ds_am")
    configuration.check_flags("evaluate", ["config", "eval_on", "data_dir"], [], "ds_am")
    for mode, flag, wanted in (
        ("train", "eval_on", "evaluate"),
        ("train", "checkpoint", "predict and --mode=export"),
        ("export", "eval_on", "evaluate"),
        ("corpus", "checkpoint", "predict"),
        ("export", "config.seed", "train and --mode=features"),
        ("evaluate", "config.picture.size", "train"),
        ("predict", "fold", "train"),
        ("compare", "config", "train and --mode=evaluate"),
        ("features", "workdir", "train and --mode=evaluate"),
        *((mode, "corpora_dir", "train") for mode in ("predict", "features", "compare", "export")),
        *((mode, "data_dir", "train") for mode in ("predict", "features", "compare", "export")),
    ):
        with pytest.raises(ValueError, match=f"--{flag} is for --mode={wanted}"):
            configuration.check_flags(mode, [flag], [], "ds_am")
    configuration.check_flags("predict", ["window", "hop", "format"], [Path("a.wav")], "ds_am")
    configuration.check_flags("predict", ["config", "workdir"], [Path("a.wav")], "ds_am")
    with pytest.raises(ValueError, match=r"--workdir does nothing .* beside --checkpoint"):
        configuration.check_flags("predict", ["checkpoint", "workdir"], [Path("a.wav")], "ds_am")
    for mode in ("train", "evaluate", "report", "corpus"):
        everywhere = ["config", "workdir", "corpora_dir", "data_dir"]
        configuration.check_flags(mode, everywhere, [], "ds_am")
    configuration.check_flags("features", ["config.picture.size", "output"], [Path("a")], "ds_svc")
    for mode, flag in (("train", "window"), ("features", "format"), ("predict", "labels")):
        with pytest.raises(ValueError, match=f"--{flag} is for .* nothing in --mode={mode}"):
            configuration.check_flags(mode, [flag], [], "ds_am")
    with pytest.raises(ValueError, match="--mode=train and --mode=evaluate"):
        configuration.check_flags("predict", ["distributed"], [], "ds_am")
    with pytest.raises(ValueError, match=r"'a\.wav' is no flag"):
        configuration.check_flags("train", [], [Path("a.wav")], "ds_am")
    configuration.check_flags("export", ["checkpoint", "workdir"], [], "ds_am")
    configuration.check_flags("corpus", ["config", "config.corpus", "workdir"], [], "ds_am")
    with pytest.raises(ValueError, match="--mode=corpus is for one experiment"):
        configuration.check_flags("corpus", [], [], "paper")
    with pytest.raises(ValueError, match="--fold is for one experiment"):
        configuration.check_flags("train", ["fold"], [], "paper")
    for mode, system in (("train", "ds_am"), ("evaluate", "ds_am")):
        configuration.check_flags(mode, ["audio"], [], system)
    for mode, system in (("predict", "ds_am"), ("compare", "ds_am"), ("train", "paper")):
        with pytest.raises(ValueError, match="--audio is for"):
            configuration.check_flags(mode, ["audio"], [], system)


def test_a_report_tells_every_field_and_no_folder_of_the_machine():
    config = base.get_config()
    config.weights, config.folds.file = "/home/ana/vgg16.h5", "mine/folds.json"
    told = configuration.described(config)
    assert (told["weights"], told["folds.file"]) == ("vgg16.h5", "folds.json")
    assert (told["model.gates"], told["picture.size"]) == (["block4_pool", "block5_pool"], 224)
    config.weights = ""
    assert configuration.described(config)["weights"] == ""


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("select_on", "train"),
        ("seed", -1),
        ("train.batch_size", 0),
        ("train.epochs", 0),
        ("train.new_learning_rate", float("nan")),
        ("train.stop_patience", -3),
    ],
)
def test_an_impossible_value_is_named(field, value):
    config = base.get_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=f"{field}="):
        configuration.check(config)


def test_a_workdir_holds_one_experiment(tmp_path):
    config = base.get_config()
    configuration.check_same(config, tmp_path)  # nothing there yet
    configuration.write(config, tmp_path)
    config.eval_on = ("emovo",)  # changes no fold
    configuration.check_same(config, tmp_path)
    assert configuration.read(tmp_path).train.to_dict() == config.train.to_dict()
    config.train.batch_size = 7
    with pytest.raises(ValueError, match=r"train.batch_size is 32 .* 7 now.*--workdir"):
        configuration.check_same(config, tmp_path)


def test_reading_without_a_run_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="train first"):
        configuration.read(tmp_path)


def test_chosen_folds():
    assert configuration.chosen_folds("") is None
    assert configuration.chosen_folds("3") == [3]
    assert configuration.chosen_folds("0-4") == [0, 1, 2, 3, 4]
    for text in ("x", "3-1", "-1", "1,2"):
        with pytest.raises(ValueError, match=f"--fold={text}"):
            configuration.chosen_folds(text)


def test_each_seed_is_apart_and_follows_the_one_of_all():
    for name in ("initialisation", "order", "dropout"):
        config = base.get_config()
        config.seeds[name] = 7
        others = {other: seed for other, seed in config.seeds.items() if other != name}
        assert {config.seed, config.folds.seed, *others.values()} == {0}
    config = base.get_config()
    config.seed = 5
    assert {*config.seeds.values()} == {5}
    assert config.folds.seed == 0


def test_a_run_that_is_older_than_the_seed_of_augmentation_goes_on(tmp_path):
    config = base.get_config()
    config.seed = 3
    configuration.write(config, tmp_path)
    content = files.read_json(tmp_path / "config.json")
    del content["seeds"]["augmentation"]
    files.write_json(tmp_path / "config.json", content, sealed=True)
    assert configuration.read(tmp_path).seeds.augmentation == 3
    configuration.check_same(config, tmp_path)
