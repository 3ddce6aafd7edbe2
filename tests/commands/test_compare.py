"""Finished runs are compared pair by pair, and only if they were tested on the same folds."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest

from ds_jax.commands import compare
from ds_jax.data import fold_files, folds
from ds_jax.data.corpus import Utterance
from ds_jax.data.labels import LABELS
from ds_jax.evaluation import predictions, significance, summary
from ds_jax.evaluation.comparison import compare_runs
from ds_jax.evaluation.metrics import SCORES
from ds_jax.evaluation.predictions import Predicted
from ds_jax.report import figures, forests
from ds_jax.runtime.files import read_json, write_json
from ds_jax.runtime.workdir import fold_directory

UTTERANCES = [
    Utterance(f"u{i:02}", LABELS[i % 7], f"s{i % 6}", "unknown", "", "normal", 1.0)
    for i in range(84)
]


def finished(workdir, skill, system="DS-AM", utterances=UTTERANCES, count=3, seed=0, **changes):
    """Writes a run that is right with a probability of `skill`, and returns its folder."""
    divided = folds.make_folds(utterances, "speakers", count, seed)
    fold_files.write_folds(workdir / "folds.json", "tiny", "speakers", seed, "dev", divided)
    generator, parts = np.random.default_rng(int(100 * skill)), []
    for number, fold in enumerate(divided):
        tested = [utterance for utterance in utterances if utterance.name in fold.test]
        label = np.asarray([LABELS.index(utterance.label) for utterance in tested])
        answers = np.where(generator.random(len(tested)) < skill, label, (label + 1) % 7)
        directory = fold_directory(workdir, number)
        predictions.write(directory, tested, Predicted(np.eye(7)[answers], {}, {}), LABELS)
        parts.append(directory)
    content = {"corpus": "tiny", "protocol": "speakers", "selected_on": "dev", "shared": {}}
    result = summary.RunSummary(
        **summary.measure(predictions.read_pooled(parts)),
        **(content | changes),
        system=system,
        folds=[],
    )
    summary.write(workdir / "report.json", result)
    return workdir


@pytest.fixture
def three(tmp_path):
    return [
        finished(tmp_path / "attention", 0.9, "DS-AM"),
        finished(tmp_path / "connected", 0.8, "DS-FC"),
        finished(tmp_path / "again", 0.5, "DS-FC"),
    ]


def parts_of(workdir):
    return [predictions.read(path) for path in sorted(workdir.glob("fold_*/predictions.csv"))]


def test_every_pair_is_compared_with_its_own_folds(three):
    found = compare_runs(three)
    names = ["DS-AM", "DS-FC (connected)", "DS-FC (again)"]
    assert [run["name"] for run in found["runs"]] == names
    assert [(pair["first"], pair["second"]) for pair in found["pairs"]] == [
        (names[0], names[1]),
        (names[0], names[2]),
        (names[1], names[2]),
    ]
    expected = significance.compare(parts_of(three[0]), parts_of(three[2]), [56, 56, 56])
    for name in SCORES:
        pair = dict(found["pairs"][1][name])
        assert pair.pop("p_holm") >= pair["p"]
        assert pair == expected[name]
    assert found["pairs"][1]["method"] == expected["method"]
    assert (found["corpus"], found["protocol"], found["utterances"]) == ("tiny", "speakers", 84)


def test_differences_are_those_of_the_reports(three):
    found = compare_runs(three)
    values = {run["name"]: run for run in found["runs"]}
    for pair in found["pairs"]:
        for name in SCORES:
            first, second = (values[pair[side]][name]["value"] for side in ("first", "second"))
            assert pair[name]["difference"] == pytest.approx(first - second)
    assert found["runs"][0]["uar"] == summary.read(three[0] / "report.json").uar


def test_p_values_are_adjusted_for_all_pairs_of_a_score(three):
    pairs = compare_runs(three)["pairs"]
    for name in SCORES:
        adjusted = [pair[name]["p_holm"] for pair in pairs]
        assert adjusted == significance.holm([pair[name]["p"] for pair in pairs])
        assert min(adjusted) == pytest.approx(3 * 2 / 2**6)


def test_pairs_that_were_not_compared_are_not_adjusted_for(three):
    first, second, _ = compare_runs(three)["pairs"]
    adjusted = significance.adjust([first, {"note": "other folds"}, second])
    assert adjusted[1] == {"note": "other folds"}
    for name in SCORES:
        p = [pair[name]["p"] for pair in (first, second)]
        assert [adjusted[k][name]["p_holm"] for k in (0, 2)] == significance.holm(p)
        assert adjusted[0][name] == first[name] | {"p_holm": adjusted[0][name]["p_holm"]}


def test_a_table_is_printed_and_the_same_is_written(three, tmp_path, capsys):
    found = compare.run(three, tmp_path / "out")
    assert json.loads((tmp_path / "out/comparison.json").read_text(encoding="utf-8")) == found
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[0] == "tiny, 84 utterances, protocol speakers"
    assert lines[2].split("  ")[0] == "run"
    assert lines[3].startswith("DS-AM ")
    value = found["runs"][0]["accuracy"]["value"]
    assert lines[3].split()[1:3] == ["dev", f"{value:.3f}"]
    row = next(line for line in lines if line.startswith("DS-AM - DS-FC (again) "))
    pair = found["pairs"][1]["accuracy"]
    assert f"{pair['difference']:+.3f} ({pair['low']:+.3f} to {pair['high']:+.3f})" in row
    p = [f"{pair[key]:.3f}" for key in ("p", "p_holm", "p_folds")]
    assert row.split()[-3:] == ["<0.001" if text == "0.000" else text for text in p]
    assert "With 6 speakers this p is never below 0.031" in printed
    assert "jackknife" in printed
    assert "for 3 pairs" in printed
    assert "advantage" not in printed


def test_figures_and_tables_have_the_same_numbers(three, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "WIDTHS", {"column": 3.5})
    found = compare.run(three, drawn=tmp_path / "drawn")
    names = {path.name for path in (tmp_path / "drawn").iterdir()}
    of_tables = {f"{name}.{suffix}" for name in ("runs", "pairs") for suffix in ("csv", "tex")}
    assert names == of_tables | {"differences_column.pdf", "differences_column.svg"}
    with open(tmp_path / "drawn/pairs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    pairs = [(pair, score) for pair in found["pairs"] for score in SCORES]
    for row, (pair, score) in zip(rows, pairs, strict=True):
        assert (row["First"], row["Second"]) == (pair["first"], pair["second"])
        for key, column in (("difference", "Difference"), ("low", "Difference low"), ("p", "p")):
            assert float(row[column]) == pair[score][key]
    forest = forests.of_comparison(found)
    assert forest.rows[2][1][1].value == 100 * found["pairs"][2]["uar"]["difference"]
    assert "95 % t interval over 6 speakers" in (tmp_path / "drawn/runs.tex").read_text()


def test_systems_without_epochs_have_none_chosen(three, capsys):
    path = three[0] / "report.json"
    summary.write(path, dataclasses.replace(summary.read(path), chosen="C"))
    assert compare.run(three)["runs"][0]["selected_on"] == "none"
    printed = capsys.readouterr().out
    assert printed.splitlines()[3].split()[1] == "none"
    assert "advantage" not in printed


def test_nothing_is_written_without_a_folder(three, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    compare.run(three[:2])
    assert sorted(tmp_path.rglob("*")) == before


def test_choosing_on_the_test_side_is_an_advantage_that_is_told(three, tmp_path, capsys):
    compare.run([three[0], finished(tmp_path / "peeked", 0.7, selected_on="test")])
    assert "have an advantage over the others" in capsys.readouterr().out


def test_two_protocols_are_told_apart(three, tmp_path, capsys):
    compare.run(three[:2])
    assert "UNLABELLED" not in capsys.readouterr().out
    adapted = [finished(tmp_path / name, 0.7, name, adapt="speaker") for name in ("SVC", "MLR")]
    assert [run["adapt"] for run in compare.run([three[0], adapted[0]])["runs"]] == [
        "none",
        "speaker",
    ]
    printed = capsys.readouterr().out
    assert "UNLABELLED RECORDINGS OF THE TEST SPEAKERS were used" in printed
    assert "in SVC." in printed
    assert "two protocols" in printed
    compare.run(adapted)
    printed = capsys.readouterr().out
    assert "in SVC, MLR." in printed
    assert "two protocols" not in printed


def test_other_corpora_in_training_are_told(three, tmp_path, capsys):
    other = {"corpus": "a", "title": "A", "licence": "", "recordings": 7}
    helped = finished(tmp_path / "helped", 0.7, "MLR", auxiliary=[other, other | {"corpus": "b"}])
    found = compare.run([three[0], helped])
    assert [len(run["auxiliary"]) for run in found["runs"]] == [0, 2]
    assert "trained MLR too (7 of a, 7 of b)" in capsys.readouterr().out


def test_a_single_fold_has_no_t_test(three, capsys):
    for workdir in three[:2]:
        content = read_json(workdir / "folds.json")
        write_json(workdir / "folds.json", content | {"folds": content["folds"][:1]})
    found = compare.run(three[:2])
    assert found["pairs"][0]["uar"]["p_folds"] is None
    rows = [line for line in capsys.readouterr().out.splitlines() if " UAR " in line]
    assert rows[-1].endswith("  -")


def test_equal_names_of_folders_are_told_apart_by_what_is_above(tmp_path):
    runs = [finished(tmp_path / "a/emodb", 0.9), finished(tmp_path / "b/emodb", 0.5)]
    names = [run["name"] for run in compare_runs(runs)["runs"]]
    assert names == [f"DS-AM ({run})" for run in runs]


def unfinished(other):
    for number in (0, 2):
        (fold_directory(other, number) / "predictions.csv").unlink()


def with_other_labels(other):
    turned = [
        dataclasses.replace(u, label=LABELS[(i // 7 + i) % 7]) for i, u in enumerate(UTTERANCES)
    ]
    finished(other, 0.7, utterances=turned)


def with_predictions_of_another_fold(other):
    for name in ("predictions.csv", "checksums.json"):
        shutil.copy(other / "fold_01" / name, other / "fold_00" / name)


def of_the_whole_corpus(other):
    all_folds = folds.make_folds(UTTERANCES, "whole_corpus", 1, 0)
    fold_files.write_folds(other / "folds.json", "tiny", "whole_corpus", 0, "dev", all_folds)


def without(name):
    return lambda other: (other / name).unlink()


def of_another(**changes):
    return lambda other: finished(other, 0.7, **changes)


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        (unfinished, FileNotFoundError, r"other .*0, 2$"),
        (without("report.json"), FileNotFoundError, r"other .*report\.json"),
        (without("folds.json"), FileNotFoundError, r"other .*folds\.json"),
        (lambda other: (other / "report.json").write_text("{"), ValueError, r"other/report\.json"),
        (lambda other: write_json(other / "report.json", {"corpus": "a"}), ValueError, "'system'"),
        (of_another(corpus="emodb"), ValueError, "other .*emodb .*first"),
        (of_another(count=2), ValueError, "first .*other: .*3 folds .*2: "),
        (of_another(seed=5), ValueError, r"first .*other: fold \d: .* u\d+"),
        (with_other_labels, ValueError, r"first .*other: fold 0: .* labels of u"),
        (with_predictions_of_another_fold, ValueError, r"other/fold_00/predictions\.csv"),
        (of_the_whole_corpus, ValueError, r"other: .*whole_corpus"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(tmp_path, change, error, named):
    first, other = (finished(tmp_path / name, 0.7) for name in ("first", "other"))
    change(other)
    with pytest.raises(error, match=named):
        compare_runs([first, other])


def test_a_comparison_needs_two_runs(three):
    again = [three[0], three[1], three[1].parent / "attention"]
    for runs, named in (([], "0 runs"), (three[:1], "1 run"), (again, "attention")):
        with pytest.raises(ValueError, match=rf"{named}\b"):
            compare_runs(runs)


def test_the_smaller_of_two_training_sets_counts(three):
    whole = compare_runs(three[:2])["pairs"][0]["uar"]["p_folds"]
    content = read_json(three[1] / "folds.json")
    for fold in content["folds"]:
        fold["train"], fold["dev"] = fold["train"][:20], fold["dev"][:4]
    write_json(three[1] / "folds.json", content)
    expected = significance.compare(parts_of(three[0]), parts_of(three[1]), [24] * 3)["uar"][
        "p_folds"
    ]
    for order in (three[:2], three[1::-1]):
        found = compare_runs(order)["pairs"][0]["uar"]["p_folds"]
        assert whole < found == pytest.approx(expected)
