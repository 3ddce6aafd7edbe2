"""Experiments of a page are run once, and go on or are left alone, whatever others do."""

import paper_runs
import pytest
import tiny
from paper_runs import all_cells, cell, corpus, experiment, run, section
from refusals import refused_field

from ds_jax import config as configuration
from ds_jax.commands import paper, train
from ds_jax.commands.cells import MISSING, WAITING, state
from ds_jax.runtime import files
from ds_jax.systems import base as systems


def test_a_missing_corpus_leaves_its_cells_empty(tmp_path, calls, few, capsys):
    def load(name):
        if name == "elra_s0329":
            raise FileNotFoundError(f"{name}: there are no recordings")
        return corpus(name)

    content, page = run(tmp_path, calls, load=load)
    for one in content["cells"]:
        missing = one["place"] == "elra"
        assert one["status"] == (MISSING if missing else "done")
        assert (one["ours"] is None) == (one["contains"] is None) == missing
    assert [one["status"] for one in content["ds_am"]] == [MISSING] * 3 + ["done"]
    assert not any(name.endswith("_elra") for name in calls["run"])
    assert "whole_corpus/ds_am_emomatch" not in calls["run"]  # its test would be missing
    assert MISSING in section(page, "Table 1")
    assert "70.6" in section(page, "Table 1")
    assert [comparison["place"] for comparison in content["comparisons"]] == ["emomatch"] * 2
    assert "elra_s0329: there are no recordings" in capsys.readouterr().out


def test_a_run_of_pictures_of_the_backbone_s_size_goes_on(tmp_path):
    made = tiny.run_config(**{"picture.size": 224})
    configuration.write(made, tmp_path)
    made.picture.size = 0
    assert state(made, tmp_path, tmp_path) == WAITING
    assert made.picture.size == 224
    made.picture.size = 96
    assert state(made, tmp_path, tmp_path).startswith("failed")


def test_layers_of_a_rival_on_keras_are_checked_before_any_work():
    pytest.importorskip("keras")

    def read(name):
        config = configuration.load("configs/ds_svc_emodb.py")
        config.model.backbone, config.model.layers = "mobilenet_v2", ("block4_pool",)
        config.picture.size = 32
        return config if name == "mine" else paper_runs.read_experiment(name)

    assert (
        refused_field(paper.check, experiment(rivals=("mine",)), read)
        == "model.layers (of the rival mine)"
    )


def test_cells_that_fail_say_why_and_the_rest_goes_on(tmp_path, calls, few, monkeypatch):
    working = train.run
    errors = {
        "clean/msf_mlr_elra": ValueError("<b>no</b>\n good"),
        "paper/ds_am_elra": OSError("disk"),
        "paper/ds_am_emomatch": FloatingPointError("diverged"),
        "whole_corpus/ds_am_elra": ImportError("nothing"),
    }

    def failing(config, corpus, workdir, numbers):
        if error := errors.get(f"{workdir.parent.name}/{workdir.name}"):
            raise error
        return working(config, corpus, workdir, numbers)

    monkeypatch.setattr(train, "run", failing)
    content, page = run(tmp_path, calls)
    assert cell(content, "msf_mlr_elra", "clean")["status"] == "failed: <b>no</b> good"
    assert [one["status"] for one in content["ds_am"]] == [
        *("failed: disk", "failed: nothing", "done", "failed: diverged")
    ]
    assert sum(one["status"] == "done" for one in content["cells"]) == 2 * 4 - 3
    assert "failed: &lt;b&gt;no&lt;/b&gt; good" in page
    assert "<b>no" not in page


def test_a_cell_that_cannot_be_loaded_or_checked_is_not_run(tmp_path, calls, few, monkeypatch):
    def load(name):
        raise ImportError("opensmile is not installed")

    content, _ = run(tmp_path / "load", calls, load=load)
    states = {one["status"] for one in content["cells"]}
    assert states == {"not run: opensmile is not installed"}
    calls["loaded"].clear()

    def check(config):
        raise ValueError("picture.size=3 is too small")

    monkeypatch.setattr(systems, "check", check)
    content, _ = run(tmp_path / "check", calls)
    assert {one["status"] for one in content["cells"]} == {"not run: picture.size=3 is too small"}
    assert not calls["loaded"]
    assert not calls["run"]


def test_a_killed_run_leaves_the_latest_state_and_goes_on(tmp_path, calls, few, monkeypatch):
    working = train.run

    def killed(config, corpus, workdir, numbers):
        if len(calls["run"]) == 3:
            raise KeyboardInterrupt
        return working(config, corpus, workdir, numbers)

    monkeypatch.setattr(train, "run", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, calls)
    states = [one["status"] for one in files.read_json(tmp_path / "paper.json")["cells"]]
    assert states == ["done"] * 4 + [WAITING] * 4  # both protocols of eGeMAPS + SVC are one run
    monkeypatch.setattr(train, "run", working)
    content, page = run(tmp_path, calls)
    assert len(calls["run"]) == len(set(calls["run"])) == 2 * 4 - 1 + 2
    assert all(one["status"] == "done" for one in all_cells(content))
    for made in calls.values():
        made.clear()
    left = [tmp_path / f"{name}.3f.tmp" for name in ("paper.json", "paper.html")]
    for path in left:
        path.write_text("half")
    assert run(tmp_path, calls) == (content, page)  # what is done is neither run nor loaded again
    assert not any(path.exists() for path in left)
    assert not any(calls.values())


def test_a_cell_whose_files_are_damaged_is_run_again(tmp_path, calls, few, capsys):
    run(tmp_path, calls)
    (tested,) = tmp_path.glob("whole_corpus/ds_am_elra/evaluations/*")
    files.write_checksums(tested, {"report.json": files.sha256(tested / "report.json")})
    damaged = [tmp_path / "paper/ds_am_elra/fold_00/predictions.csv", tested / "report.json"]
    for path in damaged:
        path.write_text(path.read_text().replace("0.1", "0.2", 1))
    for made in calls.values():
        made.clear()
    content, _ = run(tmp_path, calls)
    assert calls["run"] == ["paper/ds_am_elra", "whole_corpus/ds_am_elra"]
    printed = capsys.readouterr().out
    assert all(f"{path} is damaged" in printed for path in damaged)
    assert all(one["status"] == "done" for one in all_cells(content))


def test_a_folder_of_another_experiment_is_left_alone(tmp_path, calls, few):
    run(tmp_path, calls)
    calls["run"].clear()
    content, _ = run(tmp_path, calls, experiment(**{"train.epochs": 3}))
    for one in content["cells"]:
        assert one["status"].startswith("failed: " if one["chooses_epoch"] else "done")
        if one["chooses_epoch"]:
            assert "train.epochs" in one["status"]
            assert one["ours"] is None
    assert not calls["run"]


def test_cells_that_are_given_more_epochs_go_on(tmp_path, calls, few):
    run(tmp_path, calls)
    calls["run"].clear()
    content, _ = run(tmp_path, calls, experiment(**{"train.epochs": 50}))
    grown = {one["workdir"] for one in content["cells"] if one["chooses_epoch"]}
    assert grown <= {*calls["run"]}
    assert not {*calls["run"]} & {one["workdir"] for one in content["cells"]} - grown
    assert all(one["status"] == "done" for one in all_cells(content))
