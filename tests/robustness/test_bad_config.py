"""Every field of every config, set to what it cannot be, is named before any work begins.

The fields, their types and what they are wrong by are taken from the configs themselves.
"""

import functools
import math
import re
from pathlib import Path

import pytest
import speech_models
import tiny
from ml_collections import ConfigDict
from refusals import refused_field

import launch
from configs import base
from ds_jax import cli
from ds_jax import config as configuration
from ds_jax.commands import evaluate, paper, predict, train
from ds_jax.features import embeddings, smart_turn
from ds_jax.runtime.errors import ConfigError
from ds_jax.systems import base as systems
from ds_jax.training.checkpoints import CARD

# A config of each kind in the default run, the others in the long one.
SHORT = ("paper", "quickstart", "ds_fc_elra", "ds_svc_elra", "compare_xgboost_emomatch")
CONFIGS = [
    pytest.param(path, id=path.stem, marks=() if path.stem in SHORT else pytest.mark.slow)
    for path in sorted(Path("configs").glob("*.py"))
    if path.stem not in ("base", "ladder")  # whose rows have the fields of the others
]
every_config = pytest.mark.parametrize("path", CONFIGS)


def load(name: str | Path) -> ConfigDict:
    return configuration.load(name if isinstance(name, Path) else f"configs/{name}.py")


def replaced(config: ConfigDict, changes: dict) -> ConfigDict:
    """Returns a config in which fields are what ConfigDict would not let them be."""
    content = config.to_dict()
    for name, value in changes.items():
        *groups, last = name.split(".")
        functools.reduce(dict.__getitem__, groups, content)[last] = value
        if name == "weights":  # which members follow, where it is given on the command line
            follow(content, value)
    return ConfigDict(content)


def follow(content: dict, weights: object) -> None:
    """Gives members of a config the weights of all."""
    for member in content.get("members", {}).values():
        if "weights" in member:
            member["weights"] = weights
            follow(member, weights)


def own_fields(config: ConfigDict) -> dict:
    """Returns the fields of a config, and of an ensemble's first member of each system.

    The members' folds are those of the run.
    """
    fields = configuration.flatten(config)
    own = {name: fields[name] for name in fields if not name.startswith("members.")}
    members = [*config.get("members", {}).items()]
    for name in {member.system: name for name, member in members[::-1]}.values():
        inner = own_fields(config.members[name])
        own |= {f"members.{name}.{x}": inner[x] for x in inner if not x.startswith("folds.")}
    return own


def check(config: ConfigDict, folder: Path, folds: list[int] | None = None) -> None:
    """Checks what launch.py checks before any work; nothing may be written meanwhile."""
    try:
        launch.check(config, "train", folder)
        if config.system == "paper":
            paper.check(config, load)
        else:
            train.check(config, folds)
    finally:
        assert not list(folder.iterdir())


def kind(value) -> type:
    return next(one for one in (bool, int, float, str, tuple) if isinstance(value, one))


OF_ANOTHER_TYPE = {
    bool: ["yes", 1, None, ()],
    int: ["3", 2.5, True, None, (1,), 3.0, {"a": 1}],
    float: ["3.0", True, None, (1.0,), math.nan, math.inf],
    str: [3, None, True, ("a",), b"bytes"],
    tuple: ["('a',)", 3, None, (None,), ((),), {"a": 1}],
}
# For bool nothing else is possible.
IMPOSSIBLE = {
    int: [-1, -(10**30), 10**30],
    float: [-1.0, -1e300, 10**400],
    str: ["no such thing", "../etc", "\n"],
    tuple: [("no such thing",)],
}
# Fields whose empty value means something, so that it is no mistake.
MAY_BE_EMPTY = ("weights", "folds.file", "model.freeze", "eval_on", "label_map", "variants")
MAY_BE_EMPTY += ("auxiliary", "emphasis")
MAY_BE_EMPTY += ("embeddings.model", "embeddings.sha256")  # in configs of other features
NAMED = ("microsoft/wavlm-large", smart_turn.NAME)  # speech models, by configs


@pytest.fixture(scope="module", autouse=True)
def speech_model(tmp_path_factory):
    """A folder in place of the speech models that configs name."""
    folder = speech_models.write(tmp_path_factory.mktemp("model"), num_hidden_layers=24)
    find = embeddings.find
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            *(embeddings, "find"),
            lambda model: folder if model in NAMED else find(model),
        )
        yield


@every_config
def test_a_wrong_type_is_named_with_what_is_wanted(path, tmp_path):
    config = load(path)
    check(replaced(config, {"seed": 1}), tmp_path)
    count = 0
    for name, value in own_fields(config).items():
        for wrong in OF_ANOTHER_TYPE[kind(value)]:
            with pytest.raises(ConfigError) as refused:
                check(replaced(config, {name: wrong}), tmp_path)
            assert (refused.value.field, repr(refused.value.value)) == (name, repr(wrong))
            count += 1
    assert count > 50


@every_config
def test_an_impossible_value_is_named(path, tmp_path):
    config, seen = load(path), 0
    for name, value in own_fields(config).items():
        tried = list(IMPOSSIBLE.get(kind(value), ()))
        if kind(value) is tuple and value:
            tried.append((-1.0,) * len(value) if isinstance(value[0], float) else (-1,))
        own = re.sub(r"^(members\.\w+\.)+", "", name)
        if own in ("folds.protocol", "folds.count") and config.folds.get("file"):
            continue  # which has its own, so that nobody reads these
        if kind(value) in (tuple, str) and own not in MAY_BE_EMPTY and config.system != "paper":
            tried.append(type(value)())
        for wrong in tried:
            with pytest.raises((ValueError, FileNotFoundError)) as refused:
                check(replaced(config, {name: wrong}), tmp_path)
            sentence = str(refused.value)
            files = {"weights": "file of weights", "folds.file": "file of folds"}
            assert files.get(name, name.rpartition(".")[2]) in sentence, (name, wrong, sentence)
            assert "\n" in str(wrong) or str(wrong).strip("(),'")[:10] in sentence, (name, sentence)
            seen += 1
    assert seen > 20


@every_config
def test_a_misspelt_or_missing_field_is_named(path, tmp_path):
    config = load(path)
    for name, value in own_fields(config).items():
        for wrong in (name[:-1], f"{name}s"):
            # As another field of the same config: on the command line, or in the file.
            assert (
                refused_field(cli.check_config, ["launch.py", f"--config.{wrong}=3"], path) == wrong
            )
            assert refused_field(check, replaced(config, {wrong: value}), tmp_path) == wrong
        missing = config.to_dict()
        *groups, last = name.split(".")
        del functools.reduce(dict.__getitem__, groups, missing)[last]
        with pytest.raises(ConfigError) as refused:
            check(ConfigDict(missing), tmp_path)
        assert (refused.value.field, refused.value.value) == (name, None)


@pytest.mark.parametrize("system", sorted({*systems.SYSTEMS} - {"ridge", "ds_ridge"}))
def test_the_fields_of_a_system_are_those_of_its_configs(system):
    schema = configuration.flatten(base.SCHEMAS[system]())
    configs = [config for each in CONFIGS if (config := load(each.values[0])).system == system]
    assert configs
    for config in map(configuration.flatten, configs):
        assert list(config) == list(schema)
        assert list(map(kind, config.values())) == list(map(kind, schema.values()))


@pytest.mark.parametrize(
    ("name", "changes", "named"),
    [
        ("ds_am_elra", {"train.epochs": 0}, "train.epochs"),
        ("ds_am_elra", {"picture.window_hop": 1.0}, "picture.window_hop"),
        ("ds_am_elra", {"picture.fmin": 8000.0}, "picture.fmin"),
        ("ds_fc_elra", {"picture.size": 128}, "picture.size"),
        ("ds_am_emodb", {"select_on": "test"}, "select_on"),
        ("ds_am_emodb", {"generate.share": 1.0, "parallel": "folds"}, "parallel"),
        ("ds_am_emodb", {"folds.protocol": "whole_corpus", "eval_on": ("emodb",)}, "eval_on"),
        ("ds_am_mesd", {"folds.count": 1}, "folds.count"),
        ("ds_am_emodb", {"classes": ("Freude", "FREUDE")}, "classes"),
        ("quickstart", {"eval_on": ("emodb",)}, "eval_on"),  # synthetic speech has two corpora
        ("paper", {"model.freeze": "block9"}, "model.freeze"),
    ],
)
def test_conflicts_are_named_before_any_work(name, changes, named, tmp_path):
    with pytest.raises(ValueError, match=rf"{re.escape(named)}\b") as refused:
        check(replaced(load(name), changes), tmp_path)
    assert getattr(refused.value, "field", named) == named


@pytest.mark.parametrize(
    ("name", "layers"), [("ds_fc_elra", {}), ("ds_svc_elra", {"model.layers": ("fc2",)})]
)
def test_missing_fully_connected_layers_are_named_before_any_work(
    name, layers, weights_file, tmp_path
):
    with pytest.raises(ValueError, match=r"vgg16\.h5 .*fc1/bias.*fc2/bias"):
        check(replaced(load(name), layers | {"weights": str(weights_file)}), tmp_path)


@pytest.mark.parametrize(
    ("changes", "folds", "highest"),
    [
        ({}, [6], 5),  # a table
        ({"folds.file": "", "folds.protocol": "whole_corpus"}, [0, 1], 0),
        ({"folds.file": "", "folds.count": 3}, [3], 2),
    ],
)
def test_a_fold_beyond_the_count_is_named_before_any_work(changes, folds, highest, tmp_path):
    config = replaced(load("ds_am_ravdess"), changes)
    check(config, tmp_path, [0])
    with pytest.raises(ValueError, match=rf"--fold={folds[-1]} .* {highest}$"):
        check(config, tmp_path, folds)


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("folds.json", None, FileNotFoundError),
        ("folds.csv", "", ValueError),
        ("folds.csv", "utterance:fold\na:1\nb:2\n", ValueError),
        ("folds.csv", "Datei;Gruppe\na;1\nb;2\n", ValueError),
        ("folds.csv", "file,subset,split\na,train,1\nb,test,2\n", ValueError),
        ("folds.tsv", "file\tfold\na\t1\na\t2\n", ValueError),
        ("folds.tsv", "file\tis_test\na\tno\nb\tmaybe\n", ValueError),
        ("folds.txt", "file,fold\na,1\nb,1.0\n", ValueError),
    ],
)
def test_a_file_of_folds_is_checked_before_any_work(name, content, error, tmp_path):
    config, path = load("ds_am_emodb"), tmp_path / name
    config.folds.file = str(path)
    if content is not None:
        path.write_text(content)
    with pytest.raises(error, match=re.escape(name)):
        train.check(config)


def test_a_field_that_some_cells_of_the_paper_can_take_passes(tmp_path):
    config = load("paper")
    config.picture.size = 128  # not of DS-FC's cells, unless model.head is "gap" as well
    config.folds.count, config.model.freeze = 5, "block4"
    check(config, tmp_path)


# Runs whose files were edited by hand, or are of several experiments.


def edit(path: Path, **changes) -> None:
    def change(content: dict) -> None:
        for name, value in changes.items():
            *groups, last = name.split("__")
            functools.reduce(dict.__getitem__, groups, content)[last] = value

    tiny.tamper(path, change)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"picture__size": "64"}, "picture.size"),
        ({"picture__sise": 64}, "picture.sise"),
        ({"select_on": "train"}, "select_on"),
        ({"system": ["ds_am"]}, "system"),
        ({"train": 3}, "train"),
    ],
)
def test_a_config_json_edited_by_hand_is_checked(run_copy, changes, field, tmp_path):
    edit(run_copy / "config.json", **changes)
    assert refused_field(launch.check, configuration.read(run_copy), "report", tmp_path) == field


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"picture__mel_bands": 64}, "picture.mel_bands"),
        ({"model__merging": "early_fusion"}, "model.merging"),
        ({"picture__preprocessing": "deepspectrum"}, "picture.preprocessing"),
    ],
)
def test_models_of_another_config_than_the_run_s_are_refused(run_copy, changes, field):
    edit(run_copy / "config.json", **changes)
    with pytest.raises(ValueError, match=rf"config\.json .*{field} "):
        evaluate.run(run_copy, tiny.corpus(21))


def edit_model(fold: Path, **changes) -> None:
    """Changes the card of a fold's model."""
    edit(fold / "checkpoints" / CARD, **changes)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"config__picture__mel_bands": 64}, "picture.mel_bands"),
        ({"config__model__gates": ["block5_pool"]}, "model.gates"),
        ({"config__classes": ["ANGER", "BOREDOM"]}, "classes"),
    ],
)
def test_folds_of_several_experiments_are_not_averaged(run_copy, changes, named):
    edit_model(run_copy / "fold_01", **changes)
    with pytest.raises(ValueError, match=named):
        predict.run(run_copy, ["a.wav"])


@pytest.mark.parametrize(
    "changes",
    [
        {"config": {}},
        {"config__system": 3},
        {"config__picture": 3},
        {"config__picture__sise": 64},
        {"config__picture__size": "64"},
        {"config__train__epochs": "many"},
        {"config__folds": {}},
        {"config__model": {}},
        {"config__model__gates": None},
    ],
)
def test_a_model_whose_config_has_wrong_fields_is_named(run_copy, changes):
    checkpoints = run_copy / "fold_00" / "checkpoints"
    edit_model(run_copy / "fold_00", **changes)
    with pytest.raises(ValueError, match=str(checkpoints)):
        systems.load_config([checkpoints])


def test_fewer_speakers_than_folds_are_reported(tmp_path, capsys, tiny_weights):
    config = tiny.run_config(**{"folds.count": 10})
    train.run(config, tiny.corpus(21), tmp_path, [])
    assert "folds.count=10, but tiny has 3 speakers" in capsys.readouterr().out
