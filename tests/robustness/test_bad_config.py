"""Every field of every config, set to what it cannot be, is named before any work begins.

The fields, their types and what they are wrong by are taken from the configs themselves.
"""

import functools
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import ml_collections
import pytest
import tiny

from configs import base
from datasets import prepare
from ds_jax import config as configuration
from ds_jax.commands import evaluate, paper_config, predict, train
from ds_jax.models import pretrained
from ds_jax.systems import base as systems
from ds_jax.systems import network
from ds_jax.training.checkpoints import CARD

CONFIGS = sorted(path for path in Path("configs").glob("*.py") if path.stem != "base")
IDS = [path.stem for path in CONFIGS]


def load(path: Path) -> ml_collections.ConfigDict:
    return configuration.load(path)


def fields(config) -> dict:
    """`x.y` and its value of every field."""
    flat = {}
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            flat |= {f"{name}.{inner}": one for inner, one in fields(value).items()}
        else:
            flat[name] = value
    return flat


def replaced(config, name: str, value):
    """A config in which a field is what ConfigDict would not let it be."""
    content = config.to_dict()
    *groups, last = name.split(".")
    within = content
    for group in groups:
        within = within[group]
    within[last] = value
    return ml_collections.ConfigDict(content)


def check(config, corpora: Path) -> None:
    """What launch.py does before any work."""
    prepare.complete_names(config)
    if config.get("system") == "paper":
        paper_config.check(config, lambda name: configuration.load(f"configs/{name}.py"))
        named = {field: config[field] for field in ("elra", "emomatch")}
    else:
        train.check(config)
        named = {"corpus": config.corpus} | {f"eval_on {name}": name for name in config.eval_on}
    prepare.check_names(config, named, corpora)


def kind(value) -> type:
    return next(one for one in (bool, int, float, str, tuple) if isinstance(value, one))


OF_ANOTHER_TYPE = {
    bool: ["yes", 1, None, ()],
    int: ["3", 2.5, True, None, (1,), 3.0],
    float: ["3.0", True, None, (1.0,), math.nan, math.inf],
    str: [3, None, True, ("a",), b"bytes"],
    tuple: ["('a',)", 3, None, (None,), ((),), {"a": 1}],
}
# Of bool nothing else is possible.
IMPOSSIBLE = {
    int: [-1, -(10**30), 10**30],
    float: [-1.0, -1e300],
    str: ["no such thing", "../etc", "\n"],
    tuple: [("no such thing",)],
}
# Fields whose empty value means something, so that it is no mistake.
MAY_BE_EMPTY = ("weights", "folds.file", "model.freeze", "eval_on")


@pytest.mark.parametrize("path", CONFIGS, ids=IDS)
def test_a_wrong_type_is_named_with_what_is_wanted(path, tmp_path):
    config = load(path)
    check(replaced(config, "seed", 1), tmp_path)
    count = 0
    for name, value in fields(config).items():
        for wrong in OF_ANOTHER_TYPE[kind(value)]:
            with pytest.raises(ValueError, match=rf"^{re.escape(name)}=") as refusal:
                check(replaced(config, name, wrong), tmp_path)
            assert repr(wrong)[:20] in str(refusal.value)
            assert re.search(r"must be|is not one of|needs|give", str(refusal.value))
            count += 1
    assert count > 50
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", CONFIGS, ids=IDS)
def test_an_impossible_value_is_named(path, tmp_path):
    config, seen = load(path), 0
    for name, value in fields(config).items():
        tried = list(IMPOSSIBLE.get(kind(value), ()))
        if kind(value) is tuple and value:
            tried.append((-1.0,) * len(value) if isinstance(value[0], float) else (-1,))
        if kind(value) in (tuple, str) and name not in MAY_BE_EMPTY and config.system != "paper":
            tried.append(type(value)())
        for wrong in tried:
            with pytest.raises((ValueError, FileNotFoundError)) as refusal:
                check(replaced(config, name, wrong), tmp_path)
            said, last = str(refusal.value), name.rpartition(".")[2]
            named = {"weights": "file of weights", "folds.file": "file of folds"}.get(name, last)
            assert named in said, (name, wrong, said)
            assert "\n" in str(wrong) or str(wrong).strip("(),'")[:10] in said, (name, wrong, said)
            seen += 1
    assert seen > 20
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", CONFIGS, ids=IDS)
def test_a_misspelt_name_is_told_with_the_nearest_that_exists(path, tmp_path):
    config = load(path)
    for name, value in fields(config).items():
        group, dot, last = name.rpartition(".")
        for wrong in (f"{group}{dot}{last[:-1]}", f"{group}{dot}{last}s"):
            # As another field of the same config: on the command line, or in the file.
            with pytest.raises(ValueError, match=re.escape(f"--config.{wrong}; the nearest is --")):
                configuration.check_arguments(["launch.py", f"--config.{wrong}=3"], str(path))
            spelt = replaced(config, wrong, value)
            # "seeds", which holds fields, is there beside "seed".
            said = rf"no field {re.escape(wrong)} .*nearest is|^seeds=.* must hold fields"
            with pytest.raises(ValueError, match=said):
                check(spelt, tmp_path)
        missing = config.to_dict()
        within = functools.reduce(dict.__getitem__, group.split(".") if group else [], missing)
        del within[last]
        with pytest.raises(
            ValueError, match=rf"{re.escape(name)} is missing|{name}=None|needs the"
        ):
            check(ml_collections.ConfigDict(missing), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("system", systems.SYSTEMS)
def test_the_fields_of_a_system_are_those_of_its_configs(system):
    of_system = fields(base.of_system(system))
    configs = [load(path) for path in CONFIGS if load(path).system == system]
    assert configs
    for config in configs:
        assert list(fields(config)) == list(of_system)
        assert [kind(v) for v in fields(config).values()] == [kind(v) for v in of_system.values()]


# Fields that do not agree with each other.


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("ds_am_elra", {"model.freeze": "block5"}, "model.freeze='block5' lies above the gate on"),
        ("ds_am_elra", {"model.gates": ("block5_pool",)}, r"model.loss_weights=\(1.0, 0.8\) needs"),
        ("ds_am_elra", {"model.loss_weights": (0.0, 0.0)}, "model.loss_weights=.* not all 0"),
        ("ds_am_elra", {"picture.size": 31}, "picture.size=31 is out of range"),
        ("ds_am_elra", {"picture.window_hop": 1.0}, "picture.window_hop=1.0 needs a window"),
        ("ds_am_elra", {"picture.fmax": 9000.0}, "picture.fmax=9000.0 is above half the rate"),
        ("ds_am_elra", {"picture.fmin": 8000.0}, "picture.fmin=8000.0 is not below"),
        ("ds_fc_elra", {"picture.size": 128}, "model.head='fc' needs picture.size=224, not 128"),
        ("ds_svc_elra", {"model.layers": ("fc2",), "picture.size": 96}, "model.layers=.*size=224"),
        ("ds_svc_elra", {"picture.colour_map": "virdis"}, "picture.colour_map='virdis'"),
        ("ds_svc_elra", {"select_on": "test"}, "select_on='test' .* system='ds_svc' has none"),
        ("ds_am_emodb", {"folds.protocol": "whole_corpus", "select_on": "test"}, "no test side"),
        ("ds_am_emodb", {"folds.protocol": "custom"}, "folds.protocol='custom' is that of a file"),
        (
            "ds_am_emodb",
            {"folds.protocol": "whole_corpus", "eval_on": ("emovo", "emodb")},
            r"eval_on=\('emovo', 'emodb'\) names 'emodb', on all of which",
        ),
        ("ds_am_emodb", {"folds.count": 1}, "folds.count=1: 'speakers' needs at least 2 folds"),
        ("mfcc_svc_elra", {"features": "mfcc_frames"}, "features='mfcc_frames' are sequences"),
    ],
)
def test_conflicts_are_told_before_any_work(name, changes, said, tmp_path):
    config = load(Path(f"configs/{name}.py"))
    for field, value in changes.items():
        config = replaced(config, field, value)
    with pytest.raises(ValueError, match=said):
        check(config, tmp_path)


def test_the_fully_connected_layers_are_missed_before_any_work(weights_file, tmp_path):
    for name, changes in (("ds_fc_elra", {}), ("ds_svc_elra", {"model.layers": ("fc2",)})):
        config = replaced(load(Path(f"configs/{name}.py")), "weights", str(weights_file))
        for field, value in changes.items():
            config = replaced(config, field, value)
        with pytest.raises(ValueError, match=r"vgg16\.h5 does not hold .*fc1/bias.*fc2/bias"):
            check(config, tmp_path)


@pytest.mark.parametrize(
    ("changes", "chosen", "highest"),
    [({}, [5], 4), ({"folds.protocol": "whole_corpus"}, [0, 1], 0), ({"folds.count": 3}, [3], 2)],
)
def test_a_fold_beyond_the_count_is_told_before_any_work(changes, chosen, highest):
    config = load(Path("configs/ds_am_emodb.py"))
    for field, value in changes.items():
        config = replaced(config, field, value)
    train.check(config, [0])
    with pytest.raises(ValueError, match=rf"--fold={chosen[-1]}: .* numbered 0 to {highest}"):
        train.check(config, chosen)


def test_a_file_of_folds_is_looked_at_before_any_work(tmp_path):
    config = load(Path("configs/ds_am_emodb.py"))
    path = tmp_path / "folds.json"
    config.folds.file = str(path)
    for content, said in (
        (None, r"no file of folds at .*folds\.json"),
        ("{", "is not a JSON file"),
        ('{"folds": []}', "at least one fold"),
        ('{"protocol": "speker", "folds": [{}]}', "did you mean 'speakers'"),
    ):
        if content is not None:
            path.write_text(content)
        with pytest.raises((ValueError, FileNotFoundError), match=said):
            train.check(config)


def test_a_paper_s_field_that_some_cells_can_take_passes(tmp_path):
    config = load(Path("configs/paper.py"))
    config.picture.size = 128  # not of DS-FC's cells, unless model.head is "gap" as well
    config.folds.count, config.model.freeze = 5, "block4"
    check(config, tmp_path)
    config.model.freeze = "block9"
    with pytest.raises(ValueError, match=r"model\.freeze='block9'"):
        check(config, tmp_path)


def test_synthetic_speech_has_two_corpora(tmp_path):
    config = load(Path("configs/quickstart.py"))
    config.eval_on = ("emodb",)
    with pytest.raises(ValueError, match="'emodb': synthetic speech is tested on elra_s0329 and"):
        check(config, tmp_path)


# A config file is a program.


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("config.seed = 'x'", "TypeError .*seed"),
        ("config.modle.freeze = 'block1'", "AttributeError"),
        ("config = {}", "must return a ConfigDict"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_config_file_that_fails_is_one_sentence(program, said, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from configs import base\n"
        f"def get_config():\n    config = base.get_config()\n    {program}\n    return config\n"
    )
    with pytest.raises(ValueError, match=rf"--config=.*mine\.py.*{said}"):
        configuration.load(path)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--config.seed=abc", "config.seed=abc must be a whole number"),
        ("--config.train.new_learning_rate=x", "new_learning_rate=x must be a number"),
        ("--config.synthetic=maybe", "config.synthetic=maybe must be true or false"),
        ("--modle=train", "there is no flag --modle; the nearest is --mode"),
    ],
)
def test_a_flag_that_cannot_be_read_is_one_sentence(argument, said):
    done = subprocess.run(
        [sys.executable, "launch.py", argument], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    assert re.fullmatch(rf"error: .*{said}.*\n", done.stderr.replace("\n", " ").strip() + "\n")


# Runs whose files were edited by hand, or are of several experiments.


@pytest.fixture(scope="module")
def finished(tmp_path_factory, run, narrow):
    """The run of conftest.py, to be spoilt."""
    return shutil.copytree(run, tmp_path_factory.mktemp("copy") / "run")


def edit(path: Path, **changes) -> None:
    def change(content: dict) -> None:
        for name, value in changes.items():
            *groups, last = name.split("__")
            functools.reduce(dict.__getitem__, groups, content)[last] = value

    tiny.tamper(path, change)


@pytest.fixture
def spoilt(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"picture__size": "64"}, "picture.size='64' must be a whole number"),
        ({"picture__sise": 64}, "no field picture.sise .* nearest is picture.size"),
        ({"select_on": "train"}, "select_on='train' is not one of"),
        ({"model__freeze": "block5"}, "model.freeze='block5' lies above"),
        ({"system": ["ds_am"]}, r"system=.*'ds_am'.* is not one of"),
        ({"train": 3}, "train=3 must hold fields, such as train.batch_size"),
    ],
)
def test_a_config_json_edited_by_hand_is_checked(spoilt, changes, said):
    edit(spoilt / "config.json", **changes)
    config = configuration.read(spoilt)
    with pytest.raises(ValueError, match=said):
        systems.check(config)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"picture__mel_bands": 64}, "picture.mel_bands is 128 there and 64 here"),
        ({"model__merging": "early_fusion"}, "model.merging is 'multi_loss' there"),
        ({"picture__preprocessing": "deepspectrum"}, "picture.preprocessing is 'caffe' there"),
    ],
)
def test_models_of_another_preprocessing_or_architecture_are_refused(spoilt, changes, said):
    edit(spoilt / "config.json", **changes)
    with pytest.raises(ValueError, match=rf"config\.json is not what the models .*{said}"):
        evaluate.run(spoilt, tiny.corpus(21))


def metadata_of(fold: Path) -> Path:
    return fold / "checkpoints" / CARD


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"config__picture__mel_bands": 64}, "models of two experiments: picture.mel_bands"),
        ({"config__model__gates": ["block5_pool"]}, "models of two experiments: model.gates"),
        ({"labels": ["ANGER", "BOREDOM"]}, "it is of another label set"),
    ],
)
def test_folds_of_several_experiments_are_not_averaged(spoilt, changes, said):
    edit(metadata_of(spoilt / "fold_01"), **changes)
    with pytest.raises(ValueError, match=said):
        predict.run(spoilt, ["a.wav"])


def test_a_checkpoint_of_another_architecture_is_refused(spoilt):
    for fold in range(3):
        edit(
            metadata_of(spoilt / f"fold_{fold:02}"),
            config__model__merging="early_fusion",
        )
    with pytest.raises(ValueError, match="is of another network than its config describes"):
        network.load(spoilt / "fold_00" / "checkpoints")


def test_training_does_not_go_on_from_a_checkpoint_of_another_experiment(
    spoilt, monkeypatch, tmp_path
):
    monkeypatch.setattr(pretrained, "load", lambda path, full: tiny.pretrained())
    config = configuration.read(spoilt)
    config.picture.mel_bands = 64  # drawn otherwise, and of the same shape
    shutil.copytree(spoilt / "fold_00" / "checkpoints", tmp_path / "new/fold_00/checkpoints")
    with pytest.raises(ValueError, match=r"of another experiment: picture\.mel_bands is 128"):
        train.run(config, tiny.corpus(21), tmp_path / "new", [0])


def test_fewer_speakers_than_folds_are_told(tmp_path, capsys, monkeypatch, narrow):
    monkeypatch.setattr(pretrained, "load", lambda path, full: tiny.pretrained())
    config = tiny.config()
    config.corpus, config.folds.protocol, config.folds.count = "tiny", "speakers", 10
    train.run(config, tiny.corpus(21), tmp_path, [])
    assert "folds.count=10, but tiny has 3 speakers: there are 3 folds" in capsys.readouterr().out


def test_a_fold_that_does_not_exist_leaves_nothing(tmp_path, narrow):
    config = tiny.config()
    config.corpus, config.folds.protocol = "tiny", "leave_one_speaker_out"
    with pytest.raises(ValueError, match="--fold=3: the folds are numbered 0 to 2"):
        train.run(config, tiny.corpus(21), tmp_path / "run", [3])
    assert not (tmp_path / "run").exists()
