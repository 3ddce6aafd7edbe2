"""LaTeX prints names and numbers as they are, and a CSV has them all."""

import csv
import io
import re
import shutil
import subprocess

import hypothesis
import made_up
import pytest
from hypothesis import strategies

from ds_jax.report import latex, tables
from ds_jax.report.latex import COUNT, DIFFERENCE, SCORE, SHARE, TEXT, P, Table

SCORED = {"value": 0.71449, "low": 0.6, "high": 0.8}
LOST = {"difference": -0.0312, "low": -0.1, "high": 0.04}
TABLE = Table(
    "A caption\nin two lines, 95 %",
    [
        ("Name", TEXT),
        ("n", COUNT),
        ("Share", SHARE),
        ("UAR", SCORE),
        ("Gain", DIFFERENCE),
        ("p", P),
    ],
    [["a_b & c", 7, 0.5, SCORED, LOST, 0.00001], ["", None, None, None, None, None]],
)
SPECIAL = r"\{}$&%#_~^<>|" + '"[]*-`'
NAMES = {
    "textbackslash": "\\",
    "textasciitilde": "~",
    "textasciicircum": "^",
    "textless": "<",
    "textgreater": ">",
    "textbar": "|",
    "textasciigrave": "`",
    "textendash": "\N{EN DASH}",
    "textdagger": "†",
}


def printed(text: str) -> str:
    """What LaTeX prints: a reader of escapes that knows nothing of the table of the program."""
    shown = ""
    token = re.compile(r"\\(symbol)\{(\d+)\}|\\([a-z]+)\{\}|\\(.)|(\$-\$)|([{}])|(.)", re.DOTALL)
    for symbol, number, name, sign, minus, _, plain in token.findall(text):
        assert plain not in set(r"\$&%#_^<>|~") or not plain
        shown += chr(int(number)) if symbol else NAMES[name] if name else ""
        shown += sign + ("\N{MINUS SIGN}" if minus else "") + plain
    return shown


def test_a_tabular_has_a_caption_in_one_comment_and_a_line_for_each_row():
    lines = latex.to_latex(TABLE).splitlines()
    assert lines[0] == "% A caption in two lines, 95 %"
    assert r"\begin{tabular}{lrrrrr}" in lines
    assert [line for line in lines if line.endswith("rule")] == [
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
    ]
    heading, first, last = (line for line in lines if line.endswith(r"\\"))
    assert heading == r"Name & n & Share (\%) & UAR (\%) & Gain (points) & p \\"
    cells = [r"a\_b \& c", "7", "50.0", "71.4 (60.0 to 80.0)"]
    assert first == " & ".join([*cells, r"$-$3.1 ($-$10.0 to +4.0)", r"\textless{}0.001 \\"])
    assert last == " & ".join([r"\textendash{}"] * 6) + r" \\"


def test_a_csv_has_all_digits_and_columns_for_limits():
    heading, first, last = csv.reader(io.StringIO(latex.to_csv(TABLE)))
    assert heading[3:9] == ["UAR", "UAR low", "UAR high", "Gain", "Gain low", "Gain high"]
    assert first[0] == "a_b & c"
    assert [float(cell) for cell in first[1:]] == [
        *(7, 0.5, 0.71449, 0.6, 0.8),
        *(-0.0312, -0.1, 0.04, 0.00001),
    ]
    assert last == [""] * 10


@hypothesis.given(strategies.text(strategies.sampled_from(SPECIAL + "a é中†\n\t")))
def test_names_are_printed_as_they_are(name):
    escaped = latex.escape(name)
    assert printed(escaped) == name.replace("\n", " ").replace("\t", " ")
    assert not re.search(r"--|^[\[*]", escaped)  # a dash, and what belongs to the row above


def test_the_tables_of_a_run_have_its_numbers():
    result = made_up.summary(settings={"seed": 0, "model.heads": ["a", "b"]})
    found = tables.of_run(result)
    assert set(found) == {"scores", "confusion", "classes", "speakers", "folds", "settings"}
    assert found["scores"].rows[0][1:] == [result.accuracy, result.uar, result.macro_f1]
    assert [row[0] for row in found["classes"].rows] == result.classes_present
    assert [row[1:] for row in found["confusion"].rows] == result.confusion
    assert found["speakers"].rows[0][:2] == ["m1", 0.6234]
    for name, table in found.items():
        for text in (result.protocol, result.interval.rstrip(".")):
            assert text in table.caption, name
        latex.to_latex(table), latex.to_csv(table)


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex on the PATH")
def test_latex_sets_the_tables_of_an_awkward_run(tmp_path):
    latex.write(tmp_path, tables.of_run(made_up.awkward()["result"]) | {"special": TABLE})
    packages = r"\usepackage[T1]{fontenc}\usepackage{booktabs}"
    body = "".join(f"\\input{{{path.name}}}\n\n" for path in sorted(tmp_path.glob("*.tex")))
    document = rf"\documentclass{{article}}{packages}\begin{{document}}{body}\end{{document}}"
    (tmp_path / "all.latex").write_text(document)
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "all.latex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
