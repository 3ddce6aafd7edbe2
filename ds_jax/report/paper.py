"""Writes paper.html: the content of paper.json, for people."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from ds_jax.data.folds import PROTOCOLS
from ds_jax.report import pages, paper_numbers
from ds_jax.runtime.files import write_text

CAPTIONS = {
    1: "Modulation spectral features and MFCC with three classifiers",
    2: "eGeMAPS and ComParE with three classifiers",
    3: "Machine-learning classifiers, and an SVC on the features of VGG16",
    4: "Deep learning: networks on features, VGG16 fine-tuned, and VGG16 with attention",
}


def write(path: str | Path, content: Mapping) -> None:
    """Writes the paper's tables as one self-contained HTML file.

    Args:
        path: The file, which is written whole or not at all.
        content: The content of paper.json. The links lead to the reports of its cells, in folders
            below that of the page.
    """
    cells = content["cells"]
    page = pages.render(
        "paper.html.jinja",
        content=content,
        names=content["titles"],
        papers=paper_numbers.TITLES,
        stand_ins=_stand_ins(content),
        runs={cell["workdir"]: cell["status"] for cell in cells + content["ds_am"]},
        tables=[(number, CAPTIONS[number], _groups(cells, number)) for number in CAPTIONS],
        protocols=list(_protocols(cells)),
        methods=list(_methods(cells)),
        systems={cell["config"]: cell["title"] for cell in cells},
        ds_am=sorted(content["ds_am"], key=lambda cell: cell["table"]),
        leaks=_leaks,
    )
    write_text(path, page)


def title(content: Mapping) -> str:
    """Returns the page's title, with the titles of the corpora in the paper's two places."""
    titles, papers = content["titles"], paper_numbers.TITLES
    if stand_ins := _stand_ins(content):
        named = [f"{titles[place]} in {papers[place]}'s place" for place in stand_ins]
        return f"The paper's tables, with {' and '.join(named)}"
    return f"The paper's tables on {' and '.join(titles.values())}"


def _stand_ins(content: Mapping) -> list[str]:
    """Returns the places in which another corpus than the paper's was tested."""
    return [place for place, name in paper_numbers.CORPORA.items() if content[place] != name]


def _groups(cells: list[dict], number: int) -> list[tuple[str, str, list[dict]]]:
    """Groups a table's rows by (place, score); a row has the cells of both protocols."""
    rows = {}
    for cell in cells:
        if number in cell["tables"]:
            rows.setdefault(cell["config"], {})[cell["protocol"]] = cell
    groups = []
    for place in paper_numbers.CORPORA:
        in_place = [row for row in rows.values() if row["paper"]["place"] == place]
        scores = ("accuracy", "macro_f1") if number == 2 else ("accuracy",)
        groups += [(place, score, in_place) for score in scores if in_place]
    return groups


def _protocols(cells: list[dict]) -> Iterator[dict]:
    """Yields how each protocol was carried out in each place, and what its splits share."""
    for place in paper_numbers.CORPORA:
        for protocol in ("paper", "clean"):
            runs = [c for c in cells if (c["place"], c["protocol"]) == (place, protocol)]
            shared = [cell["shared"] for cell in runs if cell["shared"]]
            yield {
                "place": place,
                "protocol": protocol,
                "folds": runs[0]["folds"],
                "text": PROTOCOLS[runs[0]["folds"]],
                "selected_on": runs[-1][
                    "selected_on"
                ],  # the last is DS-AM, with an epoch to choose
                # Systems that skip a recording may share less than others.
                "shared": {kind: _range(shared, kind) for kind in ("speakers", "sentences")},
            }


def _range(shared: list[Mapping], kind: str) -> str:
    """Formats how many are shared in the cells that were run: "84", "80 to 84" or nothing."""
    counts = {counted[kind] for counted in shared if counted.get(kind) is not None}
    return " to ".join(map(str, sorted({min(counts), max(counts)}))) if counts else ""


def _methods(cells: list[dict]) -> Iterator[tuple[str, str]]:
    """Yields a place and how its intervals were computed, as a sentence."""
    for place in paper_numbers.CORPORA:
        methods = {c["interval"] for c in cells if c["place"] == place and c["interval"]}
        yield from ((place, method) for method in sorted(methods))


def _leaks(cell: Mapping) -> bool:
    """Tells whether the test fold chose the epoch, or training and test share speakers."""
    return cell["selected_on"] == "test" or bool((cell["shared"] or {}).get("speakers"))
