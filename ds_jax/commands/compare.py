"""Compares finished runs that were tested on the same folds: `--mode=compare`."""

from collections.abc import Sequence
from pathlib import Path

from ds_jax.evaluation.comparison import compare_runs
from ds_jax.report import figures, forests, latex, pages, tables
from ds_jax.runtime.files import write_json
from ds_jax.runtime.progress import many


def run(workdirs: Sequence[Path], output: Path | None = None, drawn: Path | None = None) -> dict:
    """Compares every pair of runs as `compare_runs` does, and prints a table.

    Args:
        workdirs: The folders of the runs.
        output: The folder of comparison.json; nothing is written if None.
        drawn: The folder of the comparison's figures and tables; none are written if None.

    Returns:
        The content of comparison.json.
    """
    result = compare_runs(workdirs)
    print(_text(result), flush=True)
    if output is not None:
        path = Path(output) / "comparison.json"
        write_json(path, result)
        print(f"comparison: {path}", flush=True)
    if drawn is not None:
        figures.write_forest(drawn / "differences", forests.of_comparison(result))
        latex.write(drawn, tables.of_comparison(result))
    return result


def _text(result: dict) -> str:
    """Formats a comparison as plain text, with a table of the runs and one of the pairs."""
    runs = [["run", "epoch chosen on", *pages.TITLES.values()]]
    for run in result["runs"]:
        scores = [pages.with_interval(run[score]) for score in pages.TITLES]
        runs.append([run["name"], run["selected_on"], *scores])
    pairs = [["pair", "score", "difference", "p", "p (Holm)", "p (folds)"]]
    for pair in result["pairs"]:
        name = f"{pair['first']} - {pair['second']}"
        for score, title in pages.TITLES.items():
            values = pair[score]
            difference = pages.with_interval(values, "difference", "+.3f")
            p = [pages.p_value(values[key], missing="-") for key in ("p", "p_holm", "p_folds")]
            pairs.append([name, title, difference, *p])
            name = ""
    first = result["pairs"][0]
    utterances = many(result["utterances"], "utterance")
    lines = [
        f"{result['corpus']}, {utterances}, protocol {result['protocol']}",
        "",
        *pages.table(runs, left=2),
        "",
        *pages.table(pairs, left=2),
        "",
        f"Differences: {first['method']}.",
        f"With {many(first['clusters'], first['unit'].removesuffix('s'))} this p is never below "
        f"{first['smallest_p']:.2g}, however large a difference is.",
        f"p (Holm) is adjusted for {many(len(result['pairs']), 'pair')}; p (folds) is that of the "
        "corrected resampled t test, which allows for common training data but not for speakers.",
    ]
    if {run["selected_on"] for run in result["runs"]} > {"test"}:
        lines.append("Runs whose epoch the test fold chose have an advantage over the others.")
    if adapted := [run["name"] for run in result["runs"] if run["adapt"] == "speaker"]:
        lines.append(
            "UNLABELLED RECORDINGS OF THE TEST SPEAKERS were used, to standardise by speaker, in "
            f"{', '.join(adapted)}."
        )
        if len(adapted) < len(result["runs"]):
            lines.append(
                "The other runs did without: these are two protocols, and not two systems."
            )
    for run in result["runs"]:
        if counts := [f"{x['recordings']} of {x['corpus']}" for x in run["auxiliary"]]:
            lines.append(
                f"Recordings of other corpora trained {run['name']} too ({', '.join(counts)}): a "
                f"difference to systems that hear {result['corpus']} alone is one of training data "
                "too."
            )
    return "\n".join(lines)
