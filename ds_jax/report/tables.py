"""The tables that a paper takes from a run, a comparison, the paper's tables and the ladder."""

from collections.abc import Mapping, Sequence

from ds_jax.evaluation.metrics import SCORES
from ds_jax.evaluation.summary import RunSummary
from ds_jax.report.latex import COUNT, DIFFERENCE, SCORE, SHARE, TEXT, P, Table
from ds_jax.report.pages import CLASS_TITLES, TITLES, cell, percent
from ds_jax.runtime.progress import many

HOLM = "p (Holm)"
_HEADINGS = {
    score: title[0].upper() + title[1:] for score, title in (TITLES | CLASS_TITLES).items()
}
_SCORE_COLUMNS = [(_HEADINGS[score], SCORE) for score in TITLES]
_PROTOCOLS = {"paper": "paper's protocol", "clean": "clean protocol"}


def of_run(report: RunSummary) -> dict[str, Table]:
    """Returns by name the tables of a run's report."""
    about = _about(report)
    classes = [
        [label, *(row[name] for name in CLASS_TITLES), row["support"]]
        for label, row in report.per_class.items()
        if row["support"]
    ]
    class_columns = [("Class", TEXT), *((_HEADINGS[name], SHARE) for name in CLASS_TITLES)]
    tables = {
        "scores": _scores(f"Scores of {about}", report),
        "confusion": _confusion(f"True classes (rows) and predicted ones of {about}", report),
        "classes": Table(
            f"Scores of each class of {about}", [*class_columns, ("Utterances", COUNT)], classes
        ),
    }
    if report.speakers:
        columns = [("Speaker", TEXT), ("Accuracy", SHARE), ("Utterances", COUNT)]
        rows = [[name, value, report.speaker_n.get(name)] for name, value in report.ranked_speakers]
        tables["speakers"] = Table(f"Accuracy of each speaker of {about}", columns, rows)
    if report.calibration:
        error = f"expected calibration error {percent(report.calibration_error, ' %')}"
        named = {
            "low": ("From", SHARE),
            "high": ("To", SHARE),
            "n": ("Predictions", COUNT),
            "confidence": ("Mean probability", SHARE),
            "accuracy": ("Correct", SHARE),
        }
        rows = [[row[name] for name in named] for row in report.calibration if row["n"]]
        caption = f"Correct predictions by their probability, {error}, of {about}"
        tables["calibration"] = Table(caption, list(named.values()), rows)
    if report.folds:
        names = list(dict.fromkeys(name for fold in report.folds for name in fold))
        columns = [
            (_HEADINGS[name], SHARE)
            if name in SCORES
            else (name.replace("_", " ").capitalize(), COUNT)
            for name in names
        ]
        rows = [[fold.get(name) for name in names] for fold in report.folds]
        tables["folds"] = Table(f"The folds of {about}", columns, rows)
    if report.settings:
        rows = [[name, cell(value, "")] for name, value in report.settings.items()]
        columns = [("Field", TEXT), ("Value", TEXT)]
        tables["settings"] = Table(f"All fields of the config of {about}", columns, rows)
    return tables


def of_comparison(content: Mapping) -> dict[str, Table]:
    """Returns by name the tables of a comparison.json: the runs, and the pairs."""
    count, first = many(content["utterances"], "utterance"), content["pairs"][0]
    about = f"{content['corpus']}, {count}, protocol {content['protocol']}"
    runs = [
        [run["name"], run["selected_on"], *(run[score] for score in TITLES)]
        for run in content["runs"]
    ]
    pairs = [
        [pair["first"], pair["second"], title, pair[score], *_p_values(pair[score])]
        for pair in content["pairs"]
        for score, title in TITLES.items()
    ]
    methods = dict.fromkeys(run["interval"].rstrip(".") for run in content["runs"])
    adjusted = f"{HOLM} is adjusted for {many(len(content['pairs']), 'pair')}"
    return {
        "runs": Table(
            f"Scores of runs on {about}. Intervals: {'; '.join(methods)}.",
            [("Run", TEXT), ("Epoch chosen on", TEXT), *_SCORE_COLUMNS],
            runs,
        ),
        "pairs": Table(
            f"Differences, first minus second, on {about}. {first['method']}; {adjusted}.",
            [("First", TEXT), ("Second", TEXT), ("Score", TEXT), *_DIFFERENCE_COLUMNS],
            pairs,
        ),
    }


def of_paper(content: Mapping, captions: Mapping[int, str]) -> dict[str, Table]:
    """Returns by name the tables of a paper.json: the paper's, and the comparisons with DS-AM.

    The captions say, by their numbers, what the paper's tables 1 to 4 show.
    """
    tables, places, cells = {}, content["titles"], content["cells"]
    for number, caption in captions.items():
        shown = [each for each in cells if number in each["tables"]]
        tables[f"table_{number}"] = _paper_table(content, shown, caption)
    across = content["ds_am"]
    columns = [("Trained on", TEXT), ("Tested on", TEXT), ("Paper", SHARE), ("Here", SCORE)]
    rows = [
        [*(places[place] for place in each["places"]), each["target"]["accuracy"], _ours(each)]
        for each in across
    ]
    caption = f"Accuracy of DS-AM within a corpus (paper's protocol) and across. {_methods(across)}"
    tables["table_7"] = Table(caption, columns, rows)
    for each in across:
        where = "trained on {}, tested on {}".format(*(places[place] for place in each["places"]))
        of_paper, here = each["target_per_class"], each["per_class"] or {}
        columns = [("Emotion", TEXT)]
        for title in map(_HEADINGS.get, CLASS_TITLES):
            columns += [(f"{title}, paper", SHARE), (f"{title}, here", SHARE)]
        rows = []
        for label in each["labels"]:
            ours = here.get(label) if here.get(label, {}).get("support") else {}
            pairs = [(of_paper[label][name], ours.get(name)) for name in CLASS_TITLES]
            rows.append([label, *(number for pair in pairs for number in pair)])
        caption = f"Scores of DS-AM for each emotion, {where}."
        tables[f"table_{each['table']}"] = Table(caption, columns, rows)
    return tables | _differences_to_ds_am(content)


def of_ladder(content: Mapping) -> dict[str, Table]:
    """Returns the scores of a ladder.json's rows by corpus, and their "differences" of UAR."""
    tables, differences = {}, []
    titles = {name: row["title"] for name, row in content["rows"].items()}
    for corpus, part in content["corpora"].items():
        cells = {name: each for name, each in part["cells"].items() if "uar" in each}
        if not cells:
            continue
        first = next(iter(cells.values()))
        rows = [
            [titles[name], titles.get(content["rows"][name]["after"]), *(each[s] for s in TITLES)]
            for name, each in cells.items()
        ]
        caption = (
            f"The ladder on {corpus}, {many(first['utterances'], 'utterance')}; "
            f"{first['protocol'].rstrip('.')}. Intervals: {first['interval'].rstrip('.')}."
        )
        columns = [("Row", TEXT), ("After", TEXT), *_SCORE_COLUMNS]
        tables[f"scores_{corpus}"] = Table(caption, columns, rows)
    parts = {corpus: part["cells"] for corpus, part in content["corpora"].items()}
    for place, cells in (parts | {"mean of corpora": content["rows"]}).items():
        for name, each in cells.items():
            for other, pair in each.get("differences", {}).items():
                if "uar" in pair:
                    named = [place, titles[name], titles[other], pair["uar"]]
                    differences.append((named + _p_values(pair["uar"]), pair["method"]))
    if differences:
        methods = "; ".join(dict.fromkeys(method for _, method in differences))
        caption = (
            f"Differences of UAR, first minus second. {methods}; {HOLM} is adjusted for "
            f"{many(content['compared'], 'difference')}."
        )
        columns = [("Corpus", TEXT), ("First", TEXT), ("Second", TEXT), *_DIFFERENCE_COLUMNS]
        tables["differences"] = Table(caption, columns, [row for row, _ in differences])
    return tables


_DIFFERENCE_COLUMNS = [("Difference", DIFFERENCE), ("p", P), (HOLM, P), ("p (folds)", P)]


def _p_values(score: Mapping) -> list[float | None]:
    return [score["p"], score["p_holm"], score.get("p_folds")]


def _about(report: RunSummary) -> str:
    """Describes what was tested and how, as the end of a caption."""
    trained = f" trained on {report.trained_on}, tested" if report.trained_on else ""
    others = " and ".join(x["title"] or x["corpus"] for x in report.auxiliary)
    helped = f" (with recordings of {others} in training)" if others else ""
    rule = f" ({report.protocol_text.rstrip('.')})" if report.protocol_text else ""
    chosen = f", epoch chosen on {report.selected_on}" if report.chosen == "epoch" else ""
    if report.selected_on == "none":
        chosen = ", no epoch chosen"
    missing = ", ".join(map(str, report.missing_folds))
    return (
        f"{report.system}{trained} on {report.corpus_title or report.corpus}{helped}, "
        f"{many(report.n, 'prediction')}, protocol {report.protocol}{rule}{chosen}"
        + (f"; folds not finished: {missing}" if missing else "")
        + (" (generated speech)" if report.synthetic else "")
        + f". Intervals: {report.interval.rstrip('.')}."
    )


def _scores(caption: str, report: RunSummary) -> Table:
    """Returns the scores of a system and of each of its heads alone."""
    columns = [("System", TEXT), *_SCORE_COLUMNS]
    rows = [[report.system, *(getattr(report, score) for score in TITLES)]]
    if report.heads_tested:
        columns += [("UAR minus all together", DIFFERENCE), ("p", P), (HOLM, P)]
        rows[0] += [None, None, None]
    for name, head in report.heads.items():
        tested = report.heads_tested.get(name)
        scores = []
        for score in TITLES:
            low, high = tested["interval"][score] if tested else (None, None)
            scores.append({"value": head.get(score), "low": low, "high": high})
        rows.append([f"{name} alone", *scores])
        if tested:
            difference = tested["minus_all"]["uar"]
            rows[-1] += [difference, difference["p"], difference["p_holm"]]
    return Table(caption, columns, rows)


def _confusion(caption: str, report: RunSummary) -> Table:
    columns = [("True", TEXT), *((label, COUNT) for label in report.labels)]
    rows = zip(report.labels, report.confusion, strict=True)
    return Table(caption, columns, [[label, *counts] for label, counts in rows])


def _paper_table(content: Mapping, shown: Sequence[Mapping], caption: str) -> Table:
    """Returns one of the paper's tables 1 to 4, a system and score a row."""
    rows = []
    for paper in (each for each in shown if each["protocol"] == "paper"):
        clean = next(
            each
            for each in shown
            if (each["config"], each["protocol"]) == (paper["config"], "clean")
        )
        named = [content["titles"][paper["place"]], paper["title"]]
        for score, target in paper["target"].items():
            if target is not None or score == "accuracy":  # which every system has
                both = [_ours(paper, score), _ours(clean, score)]
                difference = content["differences"].get(paper["config"], {}).get(score)
                rows.append([*named, TITLES[score], target, *both, difference])
    columns = [("Corpus", TEXT), ("System", TEXT), ("Score", TEXT), ("Paper", SHARE)]
    columns += [(f"Here, {_PROTOCOLS[name]}", SCORE) for name in ("paper", "clean")]
    columns += [("Paper's protocol minus clean", DIFFERENCE)]
    return Table(f"{caption}. {_methods(shown)}", columns, rows)


def _differences_to_ds_am(content: Mapping) -> dict[str, Table]:
    tables, titles = {}, {each["config"]: each["title"] for each in content["cells"]}
    for compared in content["comparisons"]:
        pairs = [pair for pair in compared["pairs"] if not pair["note"]]
        if not pairs:
            continue
        place, protocol = compared["place"], compared["protocol"]
        rows = [
            [titles[pair["config"]], pair["accuracy"], *_p_values(pair["accuracy"])]
            for pair in pairs
        ]
        caption = (
            f"Accuracy of each system minus that of DS-AM on {content['titles'][place]}, "
            f"{_PROTOCOLS[protocol]}. {pairs[0]['method']}; {HOLM} is adjusted for "
            f"{many(len(pairs), 'row')}."
        )
        columns = [("System", TEXT), *_DIFFERENCE_COLUMNS]
        tables[f"differences_{place}_{protocol}"] = Table(caption, columns, rows)
    return tables


def _ours(each: Mapping, score: str = "accuracy") -> Mapping | None:
    return each["ours"][score] if each["ours"] else None


def _methods(cells: Sequence[Mapping]) -> str:
    """Returns how the intervals of some cells were computed, and what chose their epochs."""
    methods = dict.fromkeys(each["interval"].rstrip(".") for each in cells if each["interval"])
    return f"Intervals: {'; '.join(methods) or 'none yet'}."
