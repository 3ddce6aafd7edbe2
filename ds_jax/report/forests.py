"""What forest plots show: estimates with intervals, a row each, which pages and figures draw."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ds_jax.evaluation.metrics import SCORES
from ds_jax.evaluation.summary import RunSummary
from ds_jax.report.pages import CLASS_TITLES, TITLES


class Estimate(NamedTuple):
    """A number and its interval, which may be missing."""

    value: float
    low: float | None = None
    high: float | None = None


class Forest(NamedTuple):
    """Estimates in rows, from the top.

    Attributes:
        title: What is estimated, for those who do not see the plot.
        x_label: The quantity and its unit.
        series: The names of the estimates of a row; empty where there is one a row.
        rows: The label of each row, and its estimate of each series, or None.
        reference: Where a vertical line stands, such as no difference; None where none does.
    """

    title: str
    x_label: str
    series: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Estimate | None]]]
    reference: float | None = None

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and the highest number that is shown."""
        shown = [each for _, row in self.rows for each in row if each is not None]
        numbers = [number for each in shown for number in each if number is not None]
        numbers += [] if self.reference is None else [self.reference]
        return min(numbers), max(numbers)


def of_scores(report: RunSummary) -> Forest:
    """Returns the scores of a run, and those of each of its heads alone."""
    heads = list(report.heads)

    def row(score: str) -> list[Estimate]:
        estimates = [_percent(*(getattr(report, score)[key] for key in ("value", "low", "high")))]
        for head in heads:
            tested = report.heads_tested.get(head, {"interval": {}})  # older reports lack it
            limits = tested["interval"].get(score, (None, None))
            value = report.heads[head].get(score)
            estimates.append(None if value is None else _percent(value, *limits))
        return estimates

    together = ["together", *(f"{head} alone" for head in heads)] if heads else []
    rows = [(title, row(score)) for score, title in TITLES.items()]
    return Forest("Scores with 95 % intervals", "score in %", together, rows)


def of_classes(report: RunSummary) -> Forest:
    """Returns precision, recall and F1 of each class that was tested, without intervals."""
    rows = [
        (label, [_percent(row[score]) for score in CLASS_TITLES])
        for label, row in report.per_class.items()
        if row["support"]
    ]
    return Forest("Scores of each class", "score in %", list(CLASS_TITLES.values()), rows)


def of_speakers(report: RunSummary) -> Forest:
    """Returns the accuracy of each speaker, the lowest first, beside that over all."""
    rows = [(speaker, [_percent(accuracy)]) for speaker, accuracy in report.ranked_speakers]
    over_all = 100 * report.accuracy["value"]
    return Forest("Accuracy of each speaker", "accuracy in %", [], rows, over_all)


def of_comparison(content: Mapping) -> Forest:
    """Returns the differences of a comparison.json, each pair of runs a row."""
    rows = [
        (
            f"{pair['first']} minus {pair['second']}",
            [_difference(pair[score]) for score in SCORES],
        )
        for pair in content["pairs"]
    ]
    return Forest("Differences between runs", _POINTS, list(TITLES.values()), rows, 0.0)


def of_paper(content: Mapping) -> dict[str, Forest]:
    """Returns by name the forest plots of a paper.json: accuracies, and differences to DS-AM."""
    forests, titles = {}, {cell["config"]: cell["title"] for cell in content["cells"]}
    for place, corpus in content["titles"].items():
        cells = {
            (cell["config"], cell["protocol"]): cell
            for cell in content["cells"]
            if cell["place"] == place and cell["ours"]
        }
        rows = []
        for config in dict.fromkeys(config for config, _ in cells):
            estimates = [_accuracy(cells.get((config, name))) for name in ("paper", "clean")]
            target = next(cell for key, cell in cells.items() if key[0] == config)["target"]
            printed = target["accuracy"]  # None of a rival, which the paper lacks
            rows.append(
                (titles[config], [*estimates, None if printed is None else _percent(printed)])
            )
        if rows:
            series = ["paper's protocol, here", "clean protocol, here", "printed in the paper"]
            title = f"Accuracy on {corpus}"
            forests[f"accuracy_{place}"] = Forest(title, "accuracy in %", series, rows)
    for compared in content["comparisons"]:
        rows = [
            (titles[pair["config"]], [_difference(pair["accuracy"])])
            for pair in compared["pairs"]
            if not pair["note"]
        ]
        if rows:
            corpus, protocol = content["titles"][compared["place"]], compared["protocol"]
            kind = "the paper's" if protocol == "paper" else "the clean"
            title = f"Accuracy minus that of DS-AM on {corpus}, {kind} protocol"
            name = f"differences_{compared['place']}_{protocol}"
            forests[name] = Forest(title, f"accuracy, {_POINTS}", [], rows, 0.0)
    return forests


def of_ladder(content: Mapping) -> Forest | None:
    """Returns the differences of UAR of a ladder.json on each corpus; None before there are any."""
    titles, rows = {name: row["title"] for name, row in content["rows"].items()}, []
    for name, row in content["rows"].items():
        for other in row["minus"]:
            parts = [part["cells"][name] for part in content["corpora"].values()]
            found = [part.get("differences", {}).get(other, {}) for part in (*parts, row)]
            if any("uar" in pair for pair in found):
                estimates = [_difference(pair["uar"]) if "uar" in pair else None for pair in found]
                rows.append((f"{titles[name]} minus {titles[other]}", estimates))
    series = [*content["corpora"], "mean of corpora"]
    return Forest("Differences of UAR", f"UAR, {_POINTS}", series, rows, 0.0) if rows else None


_POINTS = "difference in percentage points"


def _percent(value: float, low: float | None = None, high: float | None = None) -> Estimate:
    return Estimate(*(None if number is None else 100 * number for number in (value, low, high)))


def _accuracy(cell: Mapping | None) -> Estimate | None:
    return _percent(**cell["ours"]["accuracy"]) if cell else None


def _difference(score: Mapping) -> Estimate:
    return _percent(*(score[key] for key in ("difference", "low", "high")))
