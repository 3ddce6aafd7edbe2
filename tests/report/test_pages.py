"""Numbers have one form on all pages, and names are never markup."""

import base64
import re
from xml.etree import ElementTree

import jinja2
import numpy as np
import pytest
from made_up import HOSTILE
from test_images import decoded

from ds_jax.report import pages
from ds_jax.report.forests import Estimate, Forest


def score(value, low=None, high=None):
    return {"value": value, "low": low, "high": high}


@pytest.mark.parametrize(
    ("function", "arguments", "text"),
    [
        (pages.percent, (0.714,), "71.4 %"),
        (pages.percent, (0.714, ""), "71.4"),
        (pages.percent, (None,), pages.DASH),
        (pages.percent, (float("nan"),), pages.DASH),
        (pages.interval, ({"low": 0.691, "high": 0.842},), "69.1 to 84.2 %"),
        (pages.interval, ({"low": None, "high": None},), pages.DASH),
        (pages.points, (0.0312,), "+3.1"),
        (pages.points, (-0.0312,), f"{pages.MINUS}3.1"),
        (pages.points, (-0.0001,), "0.0"),
        (pages.printed, (0.706,), "70.6"),
        (pages.printed, (0.9005,), "90.05"),
        (pages.p_value, (0.0414,), "0.041"),
        (pages.p_value, (0.0004,), "<0.001"),
        (pages.p_value, (None,), pages.DASH),
        (pages.with_interval, (score(0.6471, 0.4, 0.8),), "0.647 (0.400 to 0.800)"),
        (pages.with_interval, (score(0.6471),), "0.647"),
        (pages.with_interval, (score(0.1, -0.1, 0.2), "value", "+.1f"), "+0.1 (-0.1 to +0.2)"),
        (pages.with_interval, ({"gain": 0.1, "low": None, "high": None}, "gain"), "0.100"),
        (pages.bar_length, (0.5,), "50.00"),
        (pages.bar_length, (None,), "0"),
        (pages.cell, (0.5, "uar"), "50.0 %"),
        (pages.cell, (0.00010000001, "rate"), "0.0001"),
        (pages.cell, (["a", "b"], "gates"), "a, b"),
        (pages.cell, ("", "weights"), pages.DASH),
        (pages.cell, (0, "fold"), "0"),
    ],
)
def test_each_format(function, arguments, text):
    assert function(*arguments).replace("\N{NO-BREAK SPACE}", " ") == text


def test_a_table_has_columns():
    assert pages.table([["a", "n"], ["bcd", 10]]) == ["a     n", "bcd  10"]
    assert pages.table([["a", "n"], ["bcd", "10"]], left=2) == ["a    n", "bcd  10"]


def test_a_picture_is_part_of_the_page():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    kind, content = pages.picture_uri(pixels).split(",")
    assert kind == "data:image/png;base64"
    np.testing.assert_array_equal(decoded(base64.b64decode(content)), pixels)


def test_templates_escape_all_values_and_miss_none():
    assert HOSTILE not in pages.render("base.html.jinja", title=HOSTILE)
    with pytest.raises(jinja2.UndefinedError, match="title"):
        pages.render("base.html.jinja")


def test_a_forest_has_a_mark_for_each_estimate_of_equal_ones_too():
    row = [Estimate(1.0, 0.5, 1.5), None, Estimate(1.0, 0.5, 1.5)]
    drawn = Forest("title", "points", ["a", "b", "c"], [("one", row)], 0.0)
    macros = pages._environment().get_template("macros.html.jinja").module
    plot = re.search("<svg class=.plot.*", macros.forest(drawn), re.DOTALL)[0]
    svg = ElementTree.fromstring(plot)
    circles = svg.findall("circle")
    assert [circle.get("class") for circle in circles] == ["curve colour-0", "curve colour-2"]
    assert len({circle.get("cy") for circle in circles}) == 2
    (zero,) = (line.get("x1") for line in svg.findall("line") if line.get("class") == "diagonal")
    marks = {text.text: text.get("x") for text in svg.findall("text")}
    assert float(zero) == float(marks["0"])
    (at,) = {float(circle.get("cx")) for circle in circles}
    assert at == pytest.approx(float(marks["1"]))
