"""Each row of the ladder is run on each corpus, and is compared with the row that it follows."""

import dataclasses
import re
import shlex
import sys

import numpy as np
import paper_runs
import pytest
from refusals import refused_field

from configs import base
from configs import ladder as ladder_config
from ds_jax import config as configuration
from ds_jax.commands import ladder
from ds_jax.evaluation import comparison, intervals, metrics, predictions, significance
from ds_jax.report import forests, pages, tables
from ds_jax.report import ladder as page
from ds_jax.runtime import files

CORPORA = ("emodb", "emovo")
ROWS = ("ds_svc", "no_gate", "statistics")


def make(**fields):
    config = ladder_config.get_config()
    for name in set(config.rows) - set(ROWS):
        del config.rows[name]
    config.rows.statistics.after = ""
    del config.corpora.ravdess
    for name in CORPORA:
        config.corpora[name].protocol, config.corpora[name].count = "speakers", 3
    config.references, config.headlines = ("ds_svc",), ("statistics",)
    config.update_from_flattened_dict(fields)
    return config


def load(_, name):
    return dataclasses.replace(paper_runs.corpus(name), name=name)


def read(workdir):
    return files.read_json(workdir / "ladder.json"), (workdir / "ladder.md").read_text()


def pooled(workdir, *place):
    folder = workdir / page.Key(*place).folder
    return predictions.read_pooled(sorted(folder.glob("fold_*")))


def test_each_row_is_run_on_each_corpus_with_each_seed(tmp_path, calls):
    ladder.run(make(seeds=(0, 3)), load, tmp_path)
    content, text = read(tmp_path)
    assert [*content["rows"]] == ["ds_svc", "statistics", "no_gate"]
    assert len(calls["run"]) == len(CORPORA) * len(ROWS) * 2
    for corpus in CORPORA:
        for name, cell in content["corpora"][corpus]["cells"].items():
            alone = [pooled(tmp_path, corpus, name, seed) for seed in (0, 3)]
            uars = [float(metrics.uar(each.confusion)) for each in alone]
            assert [seed["uar"] for seed in cell["of_seeds"]] == pytest.approx(uars)
            assert cell["uar"]["value"] == pytest.approx(sum(uars) / 2)
            both = metrics.macro_f1(sum(each.confusion for each in alone))
            assert cell["macro_f1"]["value"] == pytest.approx(float(both))
            assert (cell["seeds"], f"{cell['uar']['value']:.3f}" in text) == ([0, 3], True)
            for seed in (0, 3):
                config = configuration.read(tmp_path / page.Key(corpus, name, seed).folder)
                assert (config.corpus, config.seed) == (corpus, seed)
                assert (config.folds.protocol, config.folds.count) == ("speakers", 3)


def test_a_row_is_compared_with_the_one_that_it_follows_and_some_with_references(tmp_path, calls):
    ladder.run(make(), load, tmp_path)
    content, text = read(tmp_path)
    found, wanted = [], []
    for corpus in CORPORA:
        cells = content["corpora"][corpus]["cells"]
        compared = {name: [*cells[name]["differences"]] for name in ROWS}
        assert compared == {"ds_svc": [], "statistics": ["ds_svc"], "no_gate": ["statistics"]}
        for pair in (("statistics", "ds_svc"), ("no_gate", "statistics")):
            folders = [tmp_path / corpus / name / "seed_0" for name in pair]
            alone = comparison.compare_runs(folders)["pairs"][0]["uar"]
            found.append(cells[pair[0]]["differences"][pair[1]]["uar"])
            for key in ("difference", "low", "high", "p", "p_folds"):
                assert found[-1][key] == alone[key]
    for name, other in (("statistics", "ds_svc"), ("no_gate", "statistics")):
        found.append(content["rows"][name]["differences"][other]["uar"])
        each = [
            content["corpora"][corpus]["cells"][name]["differences"][other] for corpus in CORPORA
        ]
        mean = np.mean([pair["uar"]["difference"] for pair in each])
        assert found[-1]["difference"] == pytest.approx(mean)
        assert found[-1]["low"] < mean < found[-1]["high"]
    wanted = significance.holm([pair["p"] for pair in found])
    assert [pair["p_holm"] for pair in found] == pytest.approx(wanted)
    assert content["compared"] == len(found) == 6
    forest = forests.of_ladder(content)
    assert forest.series == [*CORPORA, "mean of corpora"]
    in_order = [found[k] for k in (0, 2, 4, 1, 3, 5)]  # corpora of a row together
    drawn = [each for _, row in forest.rows for each in row]
    keys = ("difference", "low", "high")
    assert drawn == [tuple(100 * pair[key] for key in keys) for pair in in_order]
    forms = 4 * ["{} ({} to {}), p {}, corrected {}"] + 2 * ["| {} ({} to {}) | {} | {} |"]
    for pair, form in zip(found, forms, strict=True):
        numbers = [*(pages.points(pair[key]) for key in keys)]
        numbers += [pages.p_value(pair[key]) for key in ("p", "p_holm")]
        assert form.format(*numbers) in text
    assert [row[3] for row in tables.of_ladder(content)["differences"].rows] == found


def test_a_mean_without_an_interval_is_printed_alone(tmp_path, calls, monkeypatch):
    none = dict.fromkeys(metrics.SCORES, (None, None)), "no interval"
    monkeypatch.setattr(intervals, "of_means", lambda *_, **__: none)
    ladder.run(make(), load, tmp_path)
    content, text = read(tmp_path)
    pair = content["rows"]["no_gate"]["differences"]["statistics"]["uar"]
    assert (pair["low"], pair["high"]) == (None, None)
    assert f"| {pages.points(pair['difference'])} |" in text
    assert forests.of_ladder(content).rows[0][1][-1].low is None


def test_seeds_of_a_speaker_move_as_one(tmp_path, calls):
    """The same predictions twice are no more evidence than once."""
    ladder.run(make(), load, tmp_path)
    folders = [(tmp_path / "emodb" / name / "seed_0",) for name in ("no_gate", "statistics")]
    once, _ = page._compare(*folders)
    twice, _ = page._compare(*(folder * 2 for folder in folders))
    assert once == twice


def test_rows_that_hear_test_speakers_beforehand_are_named_in_bold(tmp_path, calls):
    config = make(only=("ds_svc",))
    del config.corpora.emovo
    for name in ("statistics", "no_gate"):
        config.rows[name].experiment.adapt = "speaker"
    ladder.run(config, load, tmp_path)
    assert "Unlabelled" not in read(tmp_path)[1]  # nothing of these rows is done
    config.only = ("statistics",)
    ladder.run(config, load, tmp_path)
    content, text = read(tmp_path)
    cells = content["corpora"]["emodb"]["cells"]
    adapt = {name: cells[name].get("adapt") for name in ROWS}
    assert adapt == {"statistics": "speaker", "ds_svc": "none", "no_gate": None}
    (line,) = (line for line in text.splitlines() if "**Unlabelled" in line)
    assert "`statistics`**" in line
    assert not {"ds_svc", "no_gate"} & {*line.split("`")}


def test_rows_that_heard_other_corpora_are_named_in_bold(tmp_path, calls):
    config = make(only=("ds_svc", "statistics"))
    del config.corpora.emovo
    for name in ("statistics", "no_gate"):
        config.rows[name].experiment.auxiliary = ("ravdess=0.3",)
    ladder.run(config, load, tmp_path)
    content, text = read(tmp_path)
    cells = content["corpora"]["emodb"]["cells"]
    assert [each["corpus"] for each in cells["statistics"]["auxiliary"]] == ["ravdess"]
    assert cells["ds_svc"]["auxiliary"] == []
    (line,) = (line for line in text.splitlines() if "other corpora" in line)
    assert "`statistics` too**" in line
    assert not {"ds_svc", "no_gate"} & {*line.split("`")}


def test_what_is_done_is_not_run_again_and_the_rest_is(tmp_path, calls):
    ladder.run(make(only=("statistics",)), load, tmp_path)
    assert len(calls["run"]) == 2
    content, text = read(tmp_path)
    assert content["corpora"]["emodb"]["cells"]["no_gate"] == {"status": "not run: not reached yet"}
    assert "`no_gate`" not in text  # nobody has asked for it
    ladder.run(make(), load, tmp_path)
    assert "`no_gate`" in read(tmp_path)[1]
    assert len(calls["run"]) == 6
    whole = read(tmp_path)
    ladder.run(make(), load, tmp_path)
    assert len(calls["run"]) == 6
    assert read(tmp_path) == whole
    ladder.run(make(seeds=(0, 1), only=("no_gate",)), load, tmp_path)
    cells = read(tmp_path)[0]["corpora"]["emodb"]["cells"]
    assert [cells[name]["seeds"] for name in ("statistics", "no_gate")] == [[0], [0, 1]]
    assert cells["no_gate"]["differences"]["statistics"]["seeds"] == [0]


def test_a_row_that_cannot_be_compared_says_so(tmp_path, calls):
    ladder.run(make(only=("no_gate",)), load, tmp_path)
    content, text = read(tmp_path)
    assert content["corpora"]["emodb"]["cells"]["no_gate"]["differences"] == {}
    rows = [line for line in text.splitlines() if line.startswith("| `no_gate`")]
    assert len(rows) == len(CORPORA)
    assert all("minus `statistics`: no finished run with the same seed" in row for row in rows)


def test_the_page_says_the_commands_that_make_it(tmp_path, calls, monkeypatch):
    def call(*names):
        monkeypatch.setattr(sys, "argv", ["launch.py", f"--config.only={names}"])
        ladder.run(make(only=names), load, tmp_path)
        content, text = read(tmp_path)
        blocks = text.split("```\n")[1::2]
        assert blocks == ["\n".join(content["commands"]) + "\n"]
        given = [re.findall(r"'(\w+)'", shlex.split(each)[2]) for each in content["commands"]]
        return given, content["corpora"]["emodb"]["cells"]["statistics"]["commands"]

    assert call("statistics")[0] == [["statistics"]]
    given, of_row = call("ds_svc", "no_gate")
    assert given == [["statistics"], ["ds_svc", "no_gate"]]
    assert shlex.split(of_row[0]) == ["python", "launch.py", "--config.only=('statistics',)"]
    assert call("statistics")[0] == given[::-1]  # what is given last has the last word


def test_folders_of_users_are_no_part_of_a_page(tmp_path, calls, monkeypatch):
    def load_nothing(*_):
        raise FileNotFoundError("no recordings")

    monkeypatch.setattr(sys, "argv", ["launch.py", "--workdir=/home/somebody/ladder"])
    ladder.run(make(), load_nothing, tmp_path)
    assert read(tmp_path)[0]["commands"] == ["python launch.py --workdir=.../ladder"]


def test_a_run_without_its_predictions_leaves_the_others(tmp_path, calls):
    ladder.run(make(), load, tmp_path)
    page._read.cache_clear()
    page._cell.cache_clear()
    page._compare.cache_clear()
    (tmp_path / "emodb/no_gate/seed_0/fold_01/predictions.csv").unlink()
    ladder.run(make(only=("ds_svc",)), load, tmp_path)
    cells = read(tmp_path)[0]["corpora"]["emodb"]["cells"]
    assert cells["statistics"]["status"] == "done"
    assert cells["no_gate"]["status"] != "done"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"only": ("no_gates",)}, "only"),
        ({"references": ("statistic",)}, "references"),
        ({"seeds": ()}, "seeds"),
        ({"seeds": (1, 1)}, "seeds"),
        ({"rows.no_gate.after": "gate"}, "rows.no_gate.after"),
        ({"rows.statistics.after": "no_gate"}, "rows.statistics.after"),
        (
            {"rows.no_gate.experiment.model.dropout": 2.0},
            "rows.no_gate.experiment.model.dropout (on emodb)",
        ),
    ],
)
def test_an_impossible_field_is_named_before_any_work(fields, field):
    assert refused_field(ladder.check, make(**fields)) == field


@pytest.fixture
def on_keras():
    """A ladder with a row on a network of Keras."""
    pytest.importorskip("keras")
    config = make()
    config.rows.no_gate.experiment = base.get_config()
    base.use_ds_svc(config.rows.no_gate.experiment)
    config.rows.no_gate.experiment.model.backbone = "mobilenet_v2"
    config.rows.no_gate.experiment.model.layers = ("block_15_add",)
    config.rows.no_gate.experiment.picture.size = 32
    return config


def test_layers_of_a_row_on_keras_are_checked_before_any_work(on_keras):
    ladder.check(on_keras)
    on_keras.rows.no_gate.experiment.model.layers = ("block4_pool",)
    assert (
        refused_field(ladder.check, on_keras) == "rows.no_gate.experiment.model.layers (on emodb)"
    )


def test_a_row_on_keras_has_a_file_of_weights_of_its_own(on_keras, weights_file, tmp_path):
    pair = base.get_config()
    base.use_ensemble(
        pair, ours=make().rows.ds_svc.experiment, keras=on_keras.rows.no_gate.experiment
    )
    on_keras.rows.statistics.experiment = pair
    on_keras.weights = str(weights_file)
    rows = {key.row: experiment for key, experiment in ladder.plan(on_keras)}
    assert rows["ds_svc"].weights == rows["statistics"].members.ours.weights == str(weights_file)
    assert rows["no_gate"].weights == rows["statistics"].members.keras.weights == ""
    ladder.check(on_keras)
    on_keras.rows.no_gate.experiment.weights = str(tmp_path / "none.h5")
    with pytest.raises(FileNotFoundError, match=r"none\.h5"):
        ladder.check(on_keras)
    on_keras.rows.no_gate.experiment.weights = str(weights_file)
    with pytest.raises(ValueError, match="does not hold MobileNetV2"):
        ladder.check(on_keras)


def test_a_ladder_of_ones_own_is_possible():
    config = make()
    config.corpora.mine = config.corpora.emodb
    config.rows.faster = config.rows.statistics.copy_and_resolve_references()
    schemas = {"ladder": ladder_config.get_config} | dict(ladder_config.base.SCHEMAS)
    configuration.check_fields(config, schemas)
    with config.unlocked():
        config.rows.faster.experiment.train.epoch = 3
    assert (
        refused_field(configuration.check_fields, config, schemas)
        == "rows.faster.experiment.train.epoch"
    )


def test_seeds_of_the_published_ladder_share_no_member():
    config = ladder_config.get_config()
    config.seeds = (0, 1)
    ladder.check(config)
    for name in ("best", "fused"):
        seeds = []
        for key, experiment in ladder.plan(config):
            if (key.corpus, key.row) == ("emodb", name):
                each = configuration.experiments(experiment)
                seeds.append({(part.system, part.seed) for part in each if "members" not in part})
        assert len(seeds) == 2
        assert not seeds[0] & seeds[1]
