"""Each row of the ladder is run on each corpus, and is compared with the row that it changes."""

import dataclasses

import paper_runs
import pytest

from configs import ladder as ladder_config
from ds_jax import config as configuration
from ds_jax.commands import ladder
from ds_jax.evaluation import comparison, metrics, predictions
from ds_jax.report import ladder as page
from ds_jax.runtime import files
from ds_jax.runtime.errors import ConfigError

CORPORA = ("emodb", "emovo")
ROWS = ("ds_svc", "no_gate", "statistics")


@pytest.fixture
def calls(monkeypatch):
    return paper_runs.stand_in(monkeypatch)


def make(**fields):
    config = ladder_config.get_config()
    for name in set(config.rows) - set(ROWS):
        del config.rows[name]
    config.rows.statistics.after = ""
    del config.corpora.ravdess
    for name in CORPORA:
        config.corpora[name].protocol, config.corpora[name].count = "speakers", 3
    config.references = ("ds_svc",)
    config.update_from_flattened_dict(fields)
    return config


def load(_, name):
    return dataclasses.replace(paper_runs.corpus(name), name=name)


def read(workdir):
    return files.read_json(workdir / "ladder.json"), (workdir / "ladder.md").read_text()


def test_each_row_is_run_on_each_corpus_with_each_seed(tmp_path, calls):
    ladder.run(make(seeds=(0, 3)), load, tmp_path)
    keys = [page.Key(*each) for each in zip(CORPORA * 2, ROWS[:1] * 4, (0, 0, 3, 3), strict=True)]
    for key in keys:
        config = configuration.read(tmp_path / page.folder(key))
        assert (config.corpus, config.seed) == (key.corpus, key.seed)
        assert (config.folds.protocol, config.folds.count) == ("speakers", 3)
    content, text = read(tmp_path)
    assert [*content["rows"]] == ["ds_svc", "statistics", "no_gate"]
    assert len(calls["run"]) == len(CORPORA) * len(ROWS) * 2
    for corpus in CORPORA:
        for name, cell in content["corpora"][corpus]["cells"].items():
            tested = [
                predictions.read_pooled(
                    sorted((tmp_path / corpus / name / f"seed_{seed}").glob("fold_*"))
                )
                for seed in (0, 3)
            ]
            uars = [float(metrics.uar(each.confusion)) for each in tested]
            assert [seed["uar"] for seed in cell["of_seeds"]] == pytest.approx(uars)
            assert cell["uar"]["value"] == pytest.approx(sum(uars) / 2)
            assert f"{cell['uar']['value']:.3f}" in text


def test_a_row_is_compared_with_the_one_that_it_changes_and_with_the_references(tmp_path, calls):
    ladder.run(make(), load, tmp_path)
    content, text = read(tmp_path)
    for corpus in CORPORA:
        cells = content["corpora"][corpus]["cells"]
        compared = {name: [*cells[name]["differences"]] for name in ROWS}
        assert compared == {
            "ds_svc": [],
            "statistics": ["ds_svc"],
            "no_gate": ["statistics", "ds_svc"],
        }
        alone = comparison.compare_runs(
            [tmp_path / corpus / name / "seed_0" for name in ("no_gate", "statistics")]
        )
        for score in metrics.SCORES:
            found, wanted = cells["no_gate"]["differences"]["statistics"][score], alone["pairs"][0]
            for key in ("difference", "low", "high", "p"):
                assert found[key] == wanted[score][key]
            assert found["p_holm"] >= found["p"]
    assert content["compared"] == 6
    assert text.count("| `no_gate`: no gate | `statistics` |") == 2


def test_what_is_done_is_not_run_again_and_the_rest_is(tmp_path, calls):
    ladder.run(make(only=("statistics",)), load, tmp_path)
    assert len(calls["run"]) == 2
    content, text = read(tmp_path)
    assert content["corpora"]["emodb"]["cells"]["no_gate"] == {"status": "not run: not reached yet"}
    assert "not run: not reached yet" in text
    ladder.run(make(), load, tmp_path)
    assert len(calls["run"]) == len(set(calls["run"])) * len(CORPORA) == 6
    whole = read(tmp_path)
    ladder.run(make(), load, tmp_path)
    assert len(calls["run"]) == 6
    assert read(tmp_path) == whole


def test_a_missing_corpus_leaves_the_others(tmp_path, calls):
    def load_one(config, name):
        if name == "emodb":
            raise FileNotFoundError("emodb: there are no recordings")
        return load(config, name)

    ladder.run(make(), load_one, tmp_path)
    cells = {name: part["cells"] for name, part in read(tmp_path)[0]["corpora"].items()}
    assert {cell["status"] for cell in cells["emodb"].values()} == {"not run: corpus missing"}
    assert {cell["status"] for cell in cells["emovo"].values()} == {"done"}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"only": ("no_gates",)}, "only"),
        ({"references": ("statistic",)}, "references"),
        ({"seeds": ()}, "seeds"),
        ({"seeds": (1, 1)}, "seeds"),
        ({"rows.no_gate.after": "gate"}, "rows.no_gate.after"),
        ({"rows.statistics.after": "no_gate"}, "rows.no_gate.after"),
        (
            {"rows.no_gate.experiment.model.dropout": 2.0},
            "rows.no_gate.experiment.model.dropout (on emodb)",
        ),
    ],
)
def test_an_impossible_field_is_named_before_any_work(fields, field):
    with pytest.raises(ConfigError) as refused:
        ladder.check(make(**fields))
    assert refused.value.field == field


def test_the_published_ladder_is_possible():
    config = ladder_config.get_config()
    ladder.check(config)
    assert len({page.folder(key) for key, _ in ladder.plan(config)}) == 3 * len(config.rows)
