"""The pages as a browser shows them: on a phone, on a desk, in the dark and on paper."""

import dataclasses

import made_up
import paper_runs
import pytest
import tiny
from browser import CHROMIUM, Browser

from ds_jax.commands import corpus
from ds_jax.report import run as run_report

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium on the PATH")
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("usual", "paper", "corpus")]

# The least contrast of a text with what lies behind it, as WCAG 2 defines it, and where it is.
LEAST_CONTRAST = """
(() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const over = ([r, g, b, a = 1], below) =>
    [r, g, b].map((part, i) => a * part + (1 - a) * below[i]);
  const linear = part => part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4;
  const light = rgb => rgb.map(part => linear(part / 255))
    .reduce((sum, part, i) => sum + part * [.2126, .7152, .0722][i], 0);
  const texts = "td, th, p, h1, h2, h3, figcaption, dt, dd, a, span, b, small, strong, "
    + "svg text";
  return [...document.querySelectorAll(texts)].map(element => {
    const chain = [];
    for (let at = element; at; at = at.parentElement) chain.unshift(at);
    const behind = chain.reduce(
      (below, at) => over(parse(getComputedStyle(at).backgroundColor), below), [255, 255, 255]);
    const style = getComputedStyle(element);
    const ink = parse(element.closest("svg") ? style.fill : style.color);
    const both = [light(over(ink, behind)), light(behind)];
    const contrast = (Math.max(...both) + .05) / (Math.min(...both) + .05);
    return [contrast, element.outerHTML.slice(0, 100)];
  }).sort((one, other) => one[0] - other[0])[0];
})()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module", params=["awkward", *OTHERS])
def page(request, tmp_path_factory):
    """The file of a page."""
    path = tmp_path_factory.mktemp("pages") / f"{request.param}.html"
    if request.param == "paper":
        with pytest.MonkeyPatch.context() as patch:
            paper_runs.run(path.parent, paper_runs.stand_in(patch))
    elif request.param == "corpus":
        config = tiny.config()
        config.synthetic = True
        spoken = dataclasses.replace(tiny.corpus(21), utterances=tuple(tiny.utterances(3, 7)))
        corpus.run(config, spoken, path.parent)
    elif request.param == "awkward":
        run_report.write_page(path, **made_up.awkward())
    else:
        errors = [made_up.example(audio=made_up.sound())] * 3
        run_report.write_page(path, made_up.summary(), made_up.histories(), errors, errors)
    return path


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, pytest.param(1400, marks=pytest.mark.slow)])
def test_it_fits_asks_for_nothing_and_the_console_is_quiet(browser, page, width, dark):
    shown = browser.open(page, width, dark)
    assert shown.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
    assert shown.complaints() == []
    own, *others = shown.requests()
    assert own == page.as_uri()
    assert all(address.startswith("data:") for address in others)
    background = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(20, 23, 26)" if dark else "rgb(255, 255, 255)")
    least, where = shown.evaluate(LEAST_CONTRAST)
    assert least >= 4.5, where


def test_pictures_load_and_nothing_runs(browser, page):
    shown = browser.open(page, 400, script="window.alert = () => { window.alerted = true }")
    assert shown.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert shown.evaluate("document.scripts.length") == 0
    assert shown.evaluate("window.alerted === undefined")


@pytest.mark.slow
def test_sound_can_be_played(browser, tmp_path):
    path = tmp_path / "report.html"
    run_report.write_page(path, made_up.summary(), errors=[made_up.example(audio=made_up.sound())])
    shown = browser.open(path, 400)
    loaded = """new Promise((done, failed) => {
      const audio = document.querySelector("audio");
      audio.onerror = () => failed(audio.error.message);
      audio.oncanplaythrough = () => done(audio.duration);
      audio.preload = "auto";
      audio.load();
    })"""
    assert shown.evaluate(loaded) == pytest.approx(0.5)


@pytest.mark.slow
def test_no_text_of_a_plot_leaves_it_and_none_of_a_table_is_cut(browser, page):
    for width in (400, 1400):
        shown = browser.open(page, width)
        outside = """[...document.querySelectorAll("svg.plot text")].filter(text => {
          const [box, plot] = [text, text.ownerSVGElement].map(e => e.getBoundingClientRect());
          return box.left < plot.left - 1 || box.right > plot.right + 1 || box.top < plot.top - 1;
        }).map(text => text.textContent)"""
        assert shown.evaluate(outside) == []
        wide = """[...document.querySelectorAll("main *")].filter(element =>
          !element.closest(".wide, svg") && element.getBoundingClientRect().right > innerWidth
        ).map(element => element.outerHTML.slice(0, 100))"""
        assert shown.evaluate(wide) == []


@pytest.mark.slow
def test_what_is_drawn_is_seen_as_large_as_it_says(browser, page):
    """No rule of the style overrides an attribute, and all that is drawn has a colour."""
    shown = browser.open(page, 1400)
    other = """[...document.querySelectorAll("svg rect")].filter(rect => {
      const box = rect.getBBox();
      return ["width", "height"].some(side => Math.abs(box[side] - rect.getAttribute(side)) > .01);
    }).map(rect => rect.outerHTML)"""
    assert shown.evaluate(other) == []
    unseen = """[...document.querySelectorAll("svg :is(line, rect, path, circle)")].filter(
      shape => {
      const style = getComputedStyle(shape);
      return style.stroke === "none" && ["none", "rgb(0, 0, 0)"].includes(style.fill);
    }).map(shape => shape.outerHTML)"""
    assert shown.evaluate(unseen) == []
    unstyled = """[...document.querySelectorAll("svg")].filter(svg =>
      !["plot", "bar"].includes(svg.getAttribute("class")) && !svg.closest(".key")
    ).map(svg => svg.outerHTML.slice(0, 100))"""
    assert shown.evaluate(unstyled) == []
    lists = """[...document.querySelectorAll("ul")].filter(list =>
      getComputedStyle(list).listStyleType !== "none").map(list => list.outerHTML.slice(0, 100))"""
    assert shown.evaluate(lists) == []


@pytest.mark.slow
def test_it_prints_in_light_colours_and_with_the_settings(browser, tmp_path):
    path = tmp_path / "report.html"
    run_report.write_page(path, **made_up.awkward())
    shown = browser.open(path, 1400, dark=True)
    assert not shown.evaluate("document.querySelector('dl').checkVisibility()")
    document = shown.pdf()
    assert document.startswith(b"%PDF")
    assert document.count(b"/Type /Page\n") + document.count(b"/Type /Page ") > 1
    shown.command("Emulation.setEmulatedMedia", media="print", features=[])
    style = "getComputedStyle(document.body).backgroundColor"
    assert shown.evaluate(style) == "rgb(255, 255, 255)"
    assert shown.evaluate("document.querySelector('dl').checkVisibility()")
    assert shown.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
