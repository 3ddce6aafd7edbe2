"""Writes paper.html: what paper.json says, for people, in one file that asks for no other."""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

import jinja2

from ds_jax.data.folds import PROTOCOLS
from ds_jax.report import paper_numbers
from ds_jax.report.run import printed
from ds_jax.runtime.files import write_text

# The published names of the paper's two corpora.
TITLES = {"elra_s0329": "ELRA-S0329", "emomatch_spanish_db": "EmoMatchSpanishDB"}
CAPTIONS = {
    1: "Modulation spectral features and MFCC with three classifiers",
    2: "eGeMAPS and ComParE with three classifiers",
    3: "Machine-learning classifiers, and VGG16's features with an SVC",
    4: "Deep learning: networks on features, VGG16 fine-tuned, and VGG16 with attention",
}
MINUS, DASH, SPACE = "\N{MINUS SIGN}", "\N{EN DASH}", "\N{NO-BREAK SPACE}"


def write(path: str | Path, content: Mapping) -> None:
    """Writes the paper's tables as one self-contained HTML file.

    Args:
        path: The file to write, whole or not at all.
        content: Of paper.json. The links go to the reports of its cells, below the same folder.
    """
    corpora = {place: content[place] for place in paper_numbers.CORPORA}
    page = _template().render(
        content=content,
        names={place: TITLES.get(corpus, corpus) for place, corpus in corpora.items()},
        papers={place: TITLES[corpus] for place, corpus in paper_numbers.CORPORA.items()},
        stand_ins=[place for place, own in paper_numbers.CORPORA.items() if corpora[place] != own],
        runs={cell["workdir"]: cell["status"] for cell in content["cells"] + content["ds_am"]},
        tables=[(number, CAPTIONS[number], _groups(content, number)) for number in CAPTIONS],
        protocols=list(_protocols(content)),
        methods=list(_methods(content)),
        titles={cell["config"]: cell["title"] for cell in content["cells"]},
        ds_am=sorted(content["ds_am"], key=lambda cell: cell["table"]),
        leaks=_leaks,
    )
    write_text(path, page)


def title(elra: str, emomatch: str) -> str:
    """The page's title, by the names of the corpora in the paper's two places."""
    ours = {"elra": TITLES.get(elra, elra), "emomatch": TITLES.get(emomatch, emomatch)}
    papers = {place: TITLES[corpus] for place, corpus in paper_numbers.CORPORA.items()}
    stand_ins = [
        f"{ours[place]} in {papers[place]}'s place"
        for place in papers
        if ours[place] != papers[place]
    ]
    if stand_ins:
        return f"The paper's tables, with {' and '.join(stand_ins)}"
    return f"The paper's tables on {' and '.join(ours.values())}"


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols"],
    )
    environment.filters.update(percent=_percent, printed=printed, points=_points, p_value=_p_value)
    return environment.get_template("paper.html.jinja")


def _groups(content: Mapping, number: int) -> list[tuple[str, str, list[dict]]]:
    """A table's groups of rows (place, score, rows); a row has the cell of either protocol."""
    rows = {}
    for cell in content["cells"]:
        if number in cell["tables"]:
            rows.setdefault(cell["config"], {})[cell["protocol"]] = cell
    groups = []
    for place in paper_numbers.CORPORA:
        for score in ("accuracy", "macro_f1") if number == 2 else ("accuracy",):
            of_place = [row for row in rows.values() if row["paper"]["place"] == place]
            if of_place:
                groups.append((place, score, of_place))
    return groups


def _protocols(content: Mapping) -> Iterator[dict]:
    """What was done in either place by either protocol, and what its sides share."""
    for place in paper_numbers.CORPORA:
        for protocol in ("paper", "clean"):
            cells = [
                cell
                for cell in content["cells"]
                if (cell["place"], cell["protocol"]) == (place, protocol)
            ]
            shared = [cell["shared"] for cell in cells if cell["shared"]]
            yield {
                "place": place,
                "protocol": protocol,
                "folds": cells[0]["folds"],
                "text": PROTOCOLS[cells[0]["folds"]],
                "selected_on": cells[-1]["selected_on"],  # of DS-AM, which chooses an epoch
                # Systems that skip a recording may share less than others.
                "shared": {kind: _range(shared, kind) for kind in ("speakers", "sentences")},
            }


def _range(shared: list[Mapping], kind: str) -> str:
    """ "84", "80 to 84" or nothing: how many are shared, over the cells that were run."""
    counts = [counted[kind] for counted in shared if counted.get(kind) is not None]
    if not counts:
        return ""
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _methods(content: Mapping) -> Iterator[tuple[str, str]]:
    """How the intervals of a place were found: (place, sentence)."""
    for place in paper_numbers.CORPORA:
        found = {
            cell["interval"]
            for cell in content["cells"]
            if cell["place"] == place and cell["interval"]
        }
        yield from ((place, method) for method in sorted(found))


def _leaks(cell: Mapping) -> bool:
    """Whether the test side chose the epoch or its speakers were heard in training."""
    return cell["selected_on"] == "test" or bool((cell["shared"] or {}).get("speakers"))


def _percent(share: float | None) -> str:
    """0.714 as 71.4; a dash for None."""
    return DASH if share is None else f"{100 * share:.1f}"


def _points(difference: float) -> str:
    """0.0312 as +3.1, in percentage points."""
    text = f"{100 * difference:+.1f}"
    return text.replace("-", MINUS) if text not in ("+0.0", "-0.0") else "0.0"


def _p_value(p: float | None) -> str:
    if p is None:
        return DASH
    return f"<{SPACE}0.001" if p < 0.001 else f"{p:.3f}"
