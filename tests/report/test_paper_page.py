"""The page of the paper's tables: every number, nothing fetched, names kept from being markup."""

import re

import pytest
from made_up import Page

from ds_jax.data.corpus import LABELS
from ds_jax.report import paper as paper_report
from ds_jax.report import paper_numbers

HOSTILE = "<script>alert(1)</script>"


def score(value):
    return {"value": value, "low": value - 0.05, "high": value + 0.05}


def made_up(elra="elra_s0329", emomatch="emomatch_spanish_db", done=True, **changes):
    """The content of paper.json, before anything was run or after."""
    corpora = {"elra": elra, "emomatch": emomatch}
    ours = {"accuracy": score(0.6123), "uar": score(0.5), "macro_f1": score(0.4321)}
    measured = {
        "ours": ours if done else None,
        "interval": "95 % intervals by lot" if done else None,
        "status": "done" if done else "not run: not reached yet",
    }
    cells = [
        measured
        | {name: getattr(row, name) for name in ("config", "tables", "place", "system", "title")}
        | {"measured": row.title if done else None}
        | {
            "protocol": protocol,
            "folds": "stratified" if protocol == "paper" else "speakers",
            "selected_on": "test" if protocol == "paper" else "dev",
            "chooses_epoch": row.system not in ("MLR", "SVC"),
            "shared": {"speakers": 20, "sentences": 1} if done and protocol == "paper" else None,
            "target": {"accuracy": row.accuracy, "macro_f1": row.f1},
            "contains": done or None,
            "contains_f1": False if done and row.f1 else None,
            "workdir": f"{protocol}/{row.config}",
        }
        for row in paper_numbers.ROWS
        for protocol in ("paper", "clean")
    ]
    classes = {
        label: {"precision": 0.111, "recall": 0.222, "f1": 0.333, "support": 4} for label in LABELS
    }
    classes["JOY"]["support"] = 0
    ds_am = [
        measured
        | {
            "places": list(places),
            "table": table,
            "figure": paper_numbers.FIGURES[places],
            "target": {"accuracy": paper_numbers.CROSS[places]},
            "contains": None,
            "target_per_class": {
                label: dict(zip(("precision", "recall", "f1"), printed, strict=True))
                for label, printed in rows.items()
            },
            "per_class": classes if done else None,
            "labels": list(LABELS),
            "confusion": [[3, 1, 0, 0, 0, 0, 0]] * 6 + [[0] * 7] if done else None,
            "selected_on": "dev",
            "shared": None,
            "workdir": f"cross/{table}",
        }
        for places, (table, rows) in paper_numbers.PER_CLASS.items()
    ]
    difference = {"difference": -0.0312, "low": -0.05, "high": 0.01, "p": 0.2}
    pair = {"p": 0.0004, "p_holm": 0.0444, "p_folds": None}
    content = {
        "title": paper_report.title(elra, emomatch),
        **corpora,
        "synthetic": False,
        "changed": {},
        "cells": cells,
        "ds_am": ds_am,
        "differences": {
            "msf_mlr_elra": dict.fromkeys(("accuracy", "uar", "macro_f1"), difference)
            | {"method": "by swapping"}
        }
        if done
        else {},
        "comparisons": [
            {"place": "elra", "protocol": "clean", "reference": "ds_am_elra"}
            | {
                "pairs": [
                    {"config": "mfcc_svc_elra", "accuracy": difference | pair, "note": ""}
                    | {"method": "by lot", "clusters": 6, "unit": "speakers", "smallest_p": 1 / 32},
                    {"config": "msf_svc_elra", "note": "other test sides"},
                ]
            }
        ]
        if done
        else [],
        "slips": list(paper_numbers.SLIPS),
    }
    return content | changes


def render(tmp_path, content) -> Page:
    paper_report.write(tmp_path / "paper.html", content)
    return Page((tmp_path / "paper.html").read_text(encoding="utf-8"))


def test_every_number_is_on_the_page(tmp_path):
    page = render(tmp_path, made_up())
    for row in paper_numbers.ROWS:
        assert row.title in page.text
        assert f"{100 * row.accuracy:.1f}" in page.text or row.accuracy == 0.9005
    for number in ("90.05", "90.5", "98.38", "35.66", "41.54", "64.2", "58.9"):  # as printed
        assert number in page.text
    for number in ("61.2", "56.2 to 66.2", "43.2", "11.1", "22.2", "33.3", "-3.1", "-5.0 to +1.0"):
        assert number in page.text.replace("\N{MINUS SIGN}", "-")
    assert "< 0.001" in page.text.replace("\N{NO-BREAK SPACE}", " ")
    assert "0.044" in page.text
    assert "95 % intervals by lot" in page.text
    for _, classes in paper_numbers.PER_CLASS.values():
        for printed in classes.values():
            assert all(f"{100 * share:.1f}" in page.text for share in printed)
    headings = [name for tag, name in re.findall(r"(Table) (\d)", page.text)]
    assert set(headings) == set("123456789")
    for figure in paper_numbers.FIGURES.values():
        assert f"Figure {figure}" in page.text


def test_what_leaks_is_red_and_what_the_interval_holds_is_said(tmp_path):
    page = render(tmp_path, made_up())
    links = [attributes for tag, attributes in page.elements if tag == "a"]
    of_tables = [link for link in links if not link["href"].startswith("cross")]
    assert len(of_tables) == 2 * (9 + 2 * 6 + 12 + 9)  # table 2 has two scores
    for link in of_tables:
        assert (link.get("class") == "bad") == link["href"].startswith("paper/")
    assert page.text.count("holds it") == 2 * (9 + 6 + 12 + 9) + 1  # and where it is explained
    assert page.text.count("misses it") == 2 * 6 + 1
    assert "20 speakers, 1 sentence" in page.text


def test_before_anything_is_run_the_papers_numbers_stand_alone(tmp_path):
    page = render(tmp_path, made_up(done=False))
    assert "0 of 46 runs are done" in page.text
    assert "not run: not reached yet" in page.text
    assert "98.38" in page.text
    assert not [1 for tag, _ in page.elements if tag == "a"]
    assert "Against DS-AM" not in page.text


def test_nothing_is_asked_of_the_network(tmp_path):
    page = render(tmp_path, made_up())
    for tag, attributes in page.elements:
        assert tag not in ("script", "img", "iframe", "object")
        for name in ("src", "srcset", "data", "action", "poster"):
            assert name not in attributes
        if tag == "link":
            assert attributes["href"] == "data:,"
        if tag == "a":  # to the reports of the cells, beside the page
            assert not re.match(r"/|\w+:", attributes["href"])
    style = (tmp_path / "paper.html").read_text(encoding="utf-8").split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style
    assert "@media print" in style


def test_names_are_text_and_never_markup(tmp_path):
    content = made_up(elra=HOSTILE, changed={HOSTILE: HOSTILE})
    content["cells"][0]["status"] = f"failed: {HOSTILE}"
    content["cells"][0]["ours"] = None
    content["cells"][1]["workdir"] = f'"{HOSTILE}'
    page = render(tmp_path, content)
    assert not [1 for tag, _ in page.elements if tag == "script"]
    assert page.text.count(HOSTILE) >= 5


def test_stand_ins_and_synthetic_speech_are_said_aloud(tmp_path):
    def notices(content):
        page = render(tmp_path, content)
        return {
            attributes["id"]
            for tag, attributes in page.elements
            if tag == "p" and "id" in attributes
        }

    assert notices(made_up()) == set()
    assert notices(made_up(synthetic=True)) == {"synthetic"}
    assert notices(made_up(emomatch="emodb")) == {"stand-ins"}


@pytest.mark.parametrize(
    ("corpora", "title"),
    [
        (
            ("elra_s0329", "emomatch_spanish_db"),
            "The paper's tables on ELRA-S0329 and EmoMatchSpanishDB",
        ),
        (
            ("emovo", "mine"),
            "The paper's tables, with EMOVO in ELRA-S0329's place and mine in "
            "EmoMatchSpanishDB's place",
        ),
        (
            ("ravdess", "emomatch_spanish_db"),
            "The paper's tables, with RAVDESS in ELRA-S0329's place",
        ),
    ],
)
def test_the_title_names_stand_ins(tmp_path, corpora, title):
    assert paper_report.title(*corpora) == title
    assert title in render(tmp_path, made_up(*corpora)).text


def test_a_class_without_utterances_has_no_scores(tmp_path):
    render(tmp_path, made_up())
    text = (tmp_path / "paper.html").read_text(encoding="utf-8")
    rows = re.findall(r'<tr class="absent"><th scope="row">JOY</th>(.*?)</tr>', text)
    assert len(rows) == 4
    assert all(row.count("<td>\N{EN DASH}</td>") == 3 for row in rows)


def test_the_same_content_gives_the_same_bytes_and_nothing_beside(tmp_path):
    render(tmp_path, made_up())
    before = (tmp_path / "paper.html").read_bytes()
    render(tmp_path, made_up())
    assert (tmp_path / "paper.html").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["paper.html"]
