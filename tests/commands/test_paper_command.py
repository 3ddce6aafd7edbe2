"""Every cell of the paper's tables is run once, whatever becomes of the others, and is shown."""

import dataclasses
import itertools
import re
from pathlib import Path

import paper_runs
import pytest
from made_up import HOSTILE, check_page
from paper_runs import all_cells, cell, corpus, experiment, read_experiment, run, section
from refusals import refused_field

from ds_jax import config as configuration
from ds_jax.commands import paper
from ds_jax.evaluation import significance, summary
from ds_jax.evaluation.metrics import SCORES
from ds_jax.report import forests, paper_numbers, tables
from ds_jax.report import paper as paper_page
from ds_jax.runtime import files
from ds_jax.runtime.errors import ConfigError

# Both protocols, less those that are one run on EmoMatchSpanishDB, and two across corpora.
RUNS = 2 * 21 - 5 + 2


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, not to be changed: its folder, paper.json, paper.html and calls."""
    workdir = tmp_path_factory.mktemp("paper")
    with pytest.MonkeyPatch.context() as patch:
        calls = paper_runs.stand_in(patch)
        return workdir, *run(workdir, calls), calls


def notices(page):
    return {p["id"] for p in check_page(page, ".*").all("p") if p.get("class") == "notice"}


def test_every_cell_of_every_table_is_filled(finished):
    workdir, content, page, calls = finished
    assert len(content["cells"]) == 2 * 21
    assert len(calls["run"]) == len(set(calls["run"])) == RUNS
    for one in all_cells(content):
        assert one["status"] == "done"
        report = summary.read(workdir / one["workdir"] / "report.json")
        assert one["ours"] == {name: getattr(report, name) for name in SCORES}
        assert (one["interval"], one["shared"]) == (report.interval, report.shared)
        low, high = (one["ours"]["accuracy"][end] for end in ("low", "high"))
        assert one["contains"] == (low <= one["target"]["accuracy"] <= high)
        for table in [*one.get("tables", ()), *([7] if "figure" in one else ())]:
            text = section(page, f"Table {table}")
            assert f"{100 * report.accuracy['value']:.1f}" in text
            assert f"{100 * one['target']['accuracy']:.2f}".removesuffix("0") in text
    assert "not run" not in page
    assert f"{RUNS} of {RUNS} runs" in page


def test_its_tables_and_forests_have_the_same_numbers(finished):
    _, content, _, _ = finished
    found = tables.of_paper(content, paper_page.CAPTIONS)
    for number in (1, 2, 3, 4):
        rows = found[f"table_{number}"].rows
        assert len(rows) == sum(
            (2 if one["target"]["macro_f1"] else 1)
            for one in content["cells"]
            if number in one["tables"] and one["protocol"] == "paper"
        )
    row = next(row for row in found["table_4"].rows if row[1] == "DS-AM")
    ours = [cell(content, "ds_am_elra", name)["ours"]["accuracy"] for name in ("paper", "clean")]
    assert row[2:6] == ["accuracy", 0.984, *ours]
    assert {f"table_{number}" for number in range(1, 10)} <= set(found)
    forest = forests.of_paper(content)
    assert sorted(forest) == sorted(
        [f"accuracy_{place}" for place in paper_numbers.CORPORA]
        + [f"differences_{c['place']}_{c['protocol']}" for c in content["comparisons"]]
    )
    (estimates,) = (row for name, row in forest["accuracy_elra"].rows if name == "DS-AM")
    assert [each.value for each in estimates] == [*(100 * o["value"] for o in ours), 98.4]


@pytest.mark.slow
def test_it_is_drawn_for_a_paper(few, calls, tmp_path):
    run(tmp_path / "tables", calls, drawn=tmp_path / "drawn")
    names = {path.name for path in (tmp_path / "drawn").iterdir()}
    assert {"accuracy_elra_column.pdf", "figure_6b_page.svg", "table_4.tex"} <= names


def test_either_protocol_is_what_it_says(finished):
    workdir, content, page, _ = finished
    for place, names in (("elra", ("stratified", "speakers")), ("emomatch", ("speakers",) * 2)):
        for protocol, name in zip(("paper", "clean"), names, strict=True):
            for one in content["cells"]:
                if (one["place"], one["protocol"]) == (place, protocol):
                    choosing = "test" if protocol == "paper" else "dev"
                    assert one["folds"] == name
                    assert one["selected_on"] == (choosing if one["chooses_epoch"] else "none")
                    assert bool(one["shared"]["speakers"]) == (name == "stratified")
                    config = configuration.read(workdir / one["workdir"])
                    assert config.folds.protocol == name
                    assert one["selected_on"] in (config.select_on, "none")
    assert not any(one["chooses_epoch"] for one in content["cells"] if one["system"] == "MLR")
    for name in ("egemaps_svc_emomatch", "compare_xgboost_emomatch", "ds_svc_emomatch"):
        assert cell(content, name)["workdir"] == cell(content, name, "clean")["workdir"]
        assert name not in content["differences"]
    assert page.count("same run") == 2 * 4 + 5  # table 2, for accuracy and F1, and table 3
    assert "eGeMAPS + SVC †" in section(page, "Table 2")
    assert "FFNN †" not in page


def test_the_difference_is_the_papers_protocol_less_the_clean_one(finished):
    _, content, _, _ = finished
    assert len(content["differences"]) == 21 - 5
    for name, scores in content["differences"].items():
        for score in SCORES:
            ours = [cell(content, name, protocol)["ours"][score] for protocol in ("paper", "clean")]
            difference = ours[0]["value"] - ours[1]["value"]
            assert scores[score]["difference"] == pytest.approx(difference)
            assert scores[score]["low"] <= difference <= scores[score]["high"]


def test_one_model_a_corpus_is_tested_on_the_other(finished):
    workdir, content, page, calls = finished
    assert calls["evaluated"] == [
        ("whole_corpus/ds_am_elra", "emomatch_spanish_db"),
        ("whole_corpus/ds_am_emomatch", "elra_s0329"),
    ]
    across = [one for one in content["ds_am"] if one["trained_on"] != one["tested_on"]]
    assert [(one["table"], one["figure"]) for one in across] == [(8, "6b"), (9, "6a")]
    for one in across:
        config = configuration.read(workdir / one["workdir"].split("/evaluations")[0])
        assert (config.folds.protocol, config.select_on) == ("whole_corpus", "dev")
        assert config.corpus == one["trained_on"]
        assert one["workdir"].endswith(f"evaluations/{one['tested_on']}")
    for one in content["ds_am"]:
        report = summary.read(workdir / one["workdir"] / "report.json")
        assert one["confusion"] == report.confusion
        assert one["per_class"] == report.per_class
        assert f'id="figure-{one["figure"]}"' in page
        assert f'id="table-{one["table"]}"' in page


def test_every_system_is_compared_with_ds_am_and_p_adjusted_for_its_table(finished):
    _, content, page, _ = finished
    assert [(c["place"], c["protocol"], len(c["pairs"])) for c in content["comparisons"]] == [
        *(("elra", "paper", 11), ("elra", "clean", 11)),
        *(("emomatch", "paper", 8), ("emomatch", "clean", 8)),
    ]
    for comparison in content["comparisons"]:
        reference = cell(content, comparison["reference"], comparison["protocol"])
        for pair in comparison["pairs"]:
            other = cell(content, pair["config"], comparison["protocol"])
            assert pair["accuracy"]["difference"] == pytest.approx(
                other["ours"]["accuracy"]["value"] - reference["ours"]["accuracy"]["value"]
            )
        for score in SCORES:
            rows = [pair[score] for pair in comparison["pairs"]]
            assert [r["p_holm"] for r in rows] == significance.holm([r["p"] for r in rows])
    assert "ComParE + XGBoost" in section(page, "Comparison with DS-AM")


def test_a_corpus_is_kept_while_it_is_wanted_in_the_same_way(finished):
    loaded = finished[3]["loaded"]
    assert all(one != other for one, other in itertools.pairwise(loaded))
    assert len(loaded) == 3 + 2 + 2 * 2 + 5  # sets of features, kinds of pictures, and across


def test_every_number_of_the_paper_is_on_the_page(finished, tmp_path):
    content = finished[1] | {"cells": [c | {"ours": None} for c in finished[1]["cells"]]}
    paper_page.write_page(tmp_path / "paper.html", content)
    page = check_page((tmp_path / "paper.html").read_text(encoding="utf-8"), ".*").text
    for row in paper_numbers.ROWS:
        assert row.title in page
        assert f"{100 * row.accuracy:.2f}".removesuffix("0") in page
    for number in ("90.5", "98.38", "35.66", "41.54", "64.2", "58.9"):  # as printed
        assert number in page
    for _, classes in paper_numbers.PER_CLASS.values():
        for shares in classes.values():
            assert all(f"{100 * share:.1f}" in page for share in shares)
    assert set(re.findall(r"Table (\d)", page)) == set("123456789")
    for figure in paper_numbers.FIGURES.values():
        assert f"Figure {figure}" in page


def test_what_leaks_is_red_and_links_lead_to_reports(finished):
    workdir, content, page, _ = finished
    parsed = check_page(page, r"#|data:,|(paper|clean|whole_corpus)/[\w/]+/report\.html")
    leaking = {
        f"{one['workdir']}/report.html"
        for one in all_cells(content)
        if one["selected_on"] == "test" or one["shared"]["speakers"]
    }
    links = parsed.all("a")
    assert len(links) == 2 * (9 + 2 * 6 + 12 + 9) + 4  # table 2 has two scores
    for link in links:
        assert (workdir / link["href"]).with_name("report.json").is_file()
        assert (link.get("class") == "bad") == (link["href"] in leaking)
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_names_are_text_and_never_markup(finished, tmp_path):
    content = finished[1] | {"changed": {HOSTILE: HOSTILE}, "elra": HOSTILE}
    content["titles"] = content["titles"] | {"elra": HOSTILE}
    content["cells"] = [dict(one) for one in content["cells"]]
    content["cells"][0] |= {"status": f"failed: {HOSTILE}", "ours": None}
    content["cells"][1]["workdir"] = f'"{HOSTILE}'
    paper_page.write_page(tmp_path / "paper.html", content)
    page = check_page((tmp_path / "paper.html").read_text(encoding="utf-8"), ".*")
    assert not page.all("img")
    assert page.text.count(HOSTILE) >= 5


def test_a_class_without_utterances_has_no_scores(finished, tmp_path):
    content = finished[1] | {"ds_am": [dict(one) for one in finished[1]["ds_am"]]}
    for one in content["ds_am"]:
        classes = one["per_class"]
        one["per_class"] = classes | {"JOY": classes["JOY"] | {"support": 0}}
    paper_page.write_page(tmp_path / "paper.html", content)
    text = (tmp_path / "paper.html").read_text(encoding="utf-8")
    rows = re.findall(r'<tr class="absent"><th scope="row">JOY</th>(.*?)</tr>', text)
    assert [row.count("<td>\N{EN DASH}</td>") for row in rows] == [3] * 4


def test_both_places_need_a_corpus_of_their_own(tmp_path, calls):
    with pytest.raises(ValueError, match="both 'emodb'"):
        run(tmp_path, calls, experiment(elra="emodb", emomatch="emodb"))


GIVEN = {
    "seed": 7,
    "weights": "w.h5",
    "synthetic": True,
    "parallel": "batch",
    "folds.count": 5,
    "folds.seed": 3,
    "picture.size": 96,
    "model.freeze": "block4",
    "model.head": "gap",
    "model.layers": ("fc2",),
    "train.epochs": 2,
    "train.batch_size": 8,
}


@pytest.mark.parametrize("given", [GIVEN, {}], ids=["given", "empty"])
def test_a_given_field_reaches_exactly_the_cells_that_have_it(given):
    own = {"system", "elra", "emomatch", "rivals"}
    assert set(configuration.flatten(experiment())) == {*GIVEN, *own}
    runs = paper.plan(experiment(**given), read_experiment)
    for (name, _), planned in runs.items():
        before, after = map(configuration.flatten, (read_experiment(name), planned.experiment))
        assert set(before) == set(after)
        for field, value in after.items():
            if field not in ("corpus", "folds.protocol", "select_on") and field[:6] != "seeds.":
                assert value == given.get(field, before[field])


@pytest.mark.parametrize(
    ("given", "title", "comparable", "expected"),
    [
        ({}, "The paper's tables on ELRA-S0329 and EmoMatchSpanishDB", "elra emomatch", set()),
        (
            {"elra": "emovo", "emomatch": "mine", "picture.size": 96},
            "The paper's tables, with EMOVO in ELRA-S0329's place and mine in "
            "EmoMatchSpanishDB's place",
            "",
            {"stand-ins"},
        ),
        (
            {"elra": "ravdess"},
            "The paper's tables, with RAVDESS in ELRA-S0329's place",
            "emomatch",
            {"stand-ins"},
        ),
        (
            {"synthetic": True},
            "The paper's tables on ELRA-S0329 and EmoMatchSpanishDB",
            "",
            {"synthetic"},
        ),
    ],
    ids=["paper", "open", "one", "synthetic"],
)
def test_only_the_papers_recordings_agree_with_it(
    tmp_path, calls, few, given, title, comparable, expected
):
    content, page = run(tmp_path, calls, experiment(**given))
    assert content["title"] == title
    assert title in check_page(page, ".*").text
    assert notices(page) == expected
    assert set(content["changed"]) == set(given) - {"elra", "emomatch"}
    for one in content["cells"]:
        assert (one["contains"] is None) == (one["place"] not in comparable)
        if one["contains_f1"] is not None:
            assert one["place"] in comparable
    for one in content["ds_am"]:
        assert one["status"] == "done"
        assert (one["contains"] is None) == (not set(one["places"]) <= set(comparable.split()))
    assert ("contains it</small>" in page or "excludes it</small>" in page) == bool(comparable)
    for name, value in content["changed"].items():
        assert f"{name}={value}" in page


def test_systems_that_tested_other_utterances_are_not_compared(tmp_path, calls, few):
    def load(experiment, name):
        whole = corpus(name)
        if experiment.get("features") == "msf":  # one recording is too short for it
            return dataclasses.replace(whole, utterances=whole.utterances[1:])
        return whole

    paper.run(experiment(), read_experiment, load, tmp_path)
    content = files.read_json(tmp_path / "paper.json")
    for comparison in content["comparisons"]:
        for pair in comparison["pairs"]:
            compared = pair["config"] != "msf_mlr_elra"
            assert ("accuracy" in pair) == compared == (not pair["note"])
            assert pair["note"] in (tmp_path / "paper.html").read_text(encoding="utf-8")


def read_rival(name):
    """The published configs, one of which here has another backbone."""
    config = read_experiment(name.replace("keras", "emodb"))
    if name == "ds_svc_keras":
        config.model.backbone, config.model.layers = "resnet50", ("avg_pool",)
    if name == "embeddings_svc":
        config.embeddings.sha256, config.embeddings.size = "0" * 64, 8  # found before
    return config


def test_rivals_stand_beside_the_papers_systems(tmp_path, calls, few):
    names = ("embeddings_svc", "ds_svc_keras")
    config = experiment(rivals=names, **{"folds.count": 4})
    paper.run(config, read_rival, lambda _, name: corpus(name), tmp_path)
    content, page = files.read_json(tmp_path / "paper.json"), (tmp_path / "paper.html").read_text()
    titles = [
        "SVC on embeddings (microsoft/wavlm-large, layer 12)",
        "DS-SVC on ResNet50 (avg_pool)",
    ]
    assert content["rivals"] == titles
    for name, title in zip(names, titles, strict=True):
        for place, protocol in itertools.product(("elra", "emomatch"), ("paper", "clean")):
            one = cell(content, f"{name}_{place}", protocol)
            assert (one["status"], one["tables"], one["title"]) == ("done", [3], title)
            assert (one["target"]["accuracy"], one["contains"]) == (None, None)
            ours = cell(content, f"ds_am_{place}", protocol)
            assert (one["folds"], one["corpus"]) == (ours["folds"], ours["corpus"])
        assert section(page, "Table 3").count(title) == 2
    for comparison in content["comparisons"]:
        compared = {pair["config"] for pair in comparison["pairs"] if not pair["note"]}
        assert {f"{name}_{comparison['place']}" for name in names} <= compared
    found = tables.of_paper(content, paper_page.CAPTIONS)["table_3"].rows
    assert [row[3] for row in found if row[1] in titles] == [None] * 4
    drawn = dict(forests.of_paper(content)["accuracy_elra"].rows)
    assert [each is None for each in drawn[titles[0]]] == [False, False, True]


def test_a_rival_keeps_what_is_its_own():
    given = {"weights": "w.h5", "model.layers": ("fc2",), "picture.size": 96, "folds.count": 4}
    runs = paper.plan(experiment(rivals=("ds_svc_keras",), **given), read_rival)
    planned = runs["ds_svc_keras_elra", "clean"].experiment
    assert (planned.weights, planned.model.layers) == ("", ("avg_pool",))
    assert (planned.picture.size, planned.folds.count) == (224, 4)
    assert runs["ds_svc_elra", "clean"].experiment.weights == "w.h5"


def test_a_rival_may_be_an_ensemble():
    runs = paper.plan(experiment(rivals=("ds_am_best",), seed=2), read_rival)
    for place, column in itertools.product(("elra", "emomatch"), ("paper", "clean")):
        planned = runs[f"ds_am_best_{place}", column].experiment
        for each in configuration.experiments(planned):
            assert each.corpus == paper_numbers.CORPORA[place]
            assert each.folds == planned.folds
            assert each.select_on == "none"
        assert planned.folds.protocol == runs[f"ds_am_{place}", column].experiment.folds.protocol
        assert planned.members.deviations_2.seed == 2 * 3 + 2
        assert not runs[f"ds_am_best_{place}", column].chooses_epoch


@pytest.mark.parametrize(("names", "adapt"), [(2, "none"), (1, "speaker")])
def test_a_rival_is_given_once_and_is_enrolled_nowhere(names, adapt, calls):
    def read(name):
        config = read_rival(name)
        config.adapt = adapt
        return config

    assert (
        refused_field(paper.check, experiment(rivals=("embeddings_svc",) * names), read) == "rivals"
    )
    with pytest.raises(ConfigError, match="one experiment"):
        paper.check(experiment(rivals=("paper",)), lambda name: experiment())


def test_every_cell_has_a_config():
    for row in paper_numbers.ROWS:
        config = configuration.load(Path("configs") / f"{row.config}.py")
        assert config.system == paper_runs.SYSTEMS[row.system]
        assert config.corpus == paper_numbers.CORPORA[row.place]
