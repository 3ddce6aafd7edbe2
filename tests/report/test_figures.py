"""Figures are vectors with embedded fonts, the same bytes each time, and show the numbers."""

import builtins
import re
from xml.etree import ElementTree

import made_up
import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from ds_jax.features.spectrogram import PictureSettings
from ds_jax.report import figures, forests, panels
from ds_jax.report.forests import Estimate, Forest

FOREST = Forest(
    "title",
    "points",
    ["one", "two"],
    [("a $b$ c_d", [Estimate(1.0, -1.0, 3.0), None]), ("e", [Estimate(2.0), Estimate(4.0)])],
    0.0,
)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were drawn, each once, in their order."""
    found, save = {}, Figure.savefig
    monkeypatch.setattr(figures, "WIDTHS", {"column": figures.WIDTHS["column"]})

    def keep(self, file, **options):
        if options["format"] == "pdf":
            found[len(found)] = self
        save(self, file, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return found


def inches(path):
    """The width and height of a PDF or SVG file."""
    if path.suffix == ".svg":
        root = ElementTree.parse(path).getroot()
        return [float(root.get(side).removesuffix("pt")) / 72 for side in ("width", "height")]
    box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", path.read_bytes())
    return [float(side) / 72 for side in box.groups()]


def test_a_figure_has_two_widths_two_formats_and_embedded_fonts(tmp_path):
    figures.write_confusion(tmp_path / "confusion", ["a", "b"], [[3, 1], [0, 0]])
    for name, width in figures.WIDTHS.items():
        for suffix in ("pdf", "svg"):
            path = tmp_path / f"confusion_{name}.{suffix}"
            assert inches(path)[0] == pytest.approx(width, abs=0.01)
    content = (tmp_path / "confusion_column.pdf").read_bytes()
    assert b"/FontFile2" in content
    assert b"/Type3" not in content
    assert b"CreationDate" not in content


@pytest.mark.slow
def test_a_run_has_its_figures_in_two_widths_and_two_formats(tmp_path):
    example = made_up.example()
    shown = {"error_1": example.panels(PictureSettings())}
    figures.write_run(tmp_path, made_up.summary(), made_up.histories(), shown)
    names = ["scores", "confusion", "classes", "speakers", "error_1"]
    names += ["train_loss", "train_tenth_loss", "dev_loss", "dev_uar"]
    wanted = {f"{n}_{w}.{s}" for n in names for w in figures.WIDTHS for s in ("pdf", "svg")}
    assert {path.name for path in tmp_path.iterdir()} == wanted


def test_an_ensemble_and_its_six_members_look_different(tmp_path, drawn):
    names = [f"member {number}" for number in range(7)]
    row = [Estimate(float(number)) for number in range(7)]
    figures.write_forest(tmp_path / "scores", Forest("title", "points", names, [("a", row)]))
    (axes,) = drawn[0].axes
    looks = {(line.get_color(), line.get_marker()) for line in axes.lines}
    assert len(looks) == 7


def test_equal_data_give_equal_bytes_whatever_a_user_s_defaults_are(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "WIDTHS", {"column": figures.WIDTHS["column"]})
    contents = []
    for size in (10, 30):
        with matplotlib.rc_context({"font.size": size, "svg.fonttype": "none"}):
            figures.write_forest(tmp_path / "forest", FOREST)
            assert matplotlib.rcParams["font.size"] == size
        contents.append([path.read_bytes() for path in sorted(tmp_path.iterdir())])
    assert contents[0] == contents[1]


def test_a_forest_has_a_point_and_an_interval_for_each_estimate(tmp_path, drawn):
    figures.write_forest(tmp_path / "forest", FOREST)
    for figure in drawn.values():
        (axes,) = figure.axes
        assert not axes.get_title()
        assert [text.get_text() for text in axes.get_yticklabels()] == ["a $b$ c_d", "e"]
        lines = [list(line.get_xdata()) for line in axes.lines]
        assert lines == [[1.0, 2.0], [-1.0, 3.0], [4.0], [0.0, 0.0]]
        markers = {line.get_marker() for line in axes.lines} - {"None"}
        assert len(markers) == 2  # told apart in grey


def test_long_labels_stand_above_their_rows(tmp_path, drawn):
    rows = [("a long name " * 12, FOREST.rows[0][1]), FOREST.rows[1]]
    figures.write_forest(tmp_path / "forest", FOREST._replace(rows=rows))
    texts = [text.get_text() for text in drawn[0].axes[0].texts]
    assert " ".join(texts[0].split()) == " ".join(rows[0][0].split())


def test_panels_show_every_value_with_its_colour_where_it_belongs(tmp_path, drawn):
    settings = PictureSettings(layout="timeline", mel_bands=64, n_fft=1024, hop=256)
    picture = np.tile(np.arange(1, 101, dtype=np.uint8), (64, 1))
    gate = np.linspace(0.35, 0.65, 8 * 12).reshape(8, 12)
    shown = panels.of_pictures([picture], {"block3_pool": gate}, [(0.0, 1.66)], settings)
    figures.write_panels(tmp_path / "x", shown)
    axes = drawn[0].axes[:2]
    images = [each.images[0] for each in axes]
    np.testing.assert_array_equal(images[0].get_array(), picture)
    np.testing.assert_allclose(images[1].get_array() / 255, gate, atol=1 / 255)
    assert {image.get_clim() for image in images} == {(0, 255)}  # one scale for all gates
    assert images[0].get_extent() == [0, 1, 1, 0]
    assert images[1].get_extent() == [
        0,
        pytest.approx(0.96),
        1,
        0,
    ]  # twelve cells of eight of 100 columns
    assert axes[0].get_ylabel() == "frequency in Hz"
    assert axes[1].get_xlabel() == "time in s"


def test_scores_of_heads_stand_beside_those_of_all():
    tested = {"interval": {"uar": [0.6, 0.8]}}
    forest = forests.of_scores(made_up.summary(heads_tested={"block4_pool": tested}))
    assert forest.series == ["together", "block4_pool alone", "block5_pool alone"]
    (uar,) = (row for name, row in forest.rows if name == "UAR")
    assert uar[0] == pytest.approx((75.81, 68.01, 83.12))
    assert uar[1] == pytest.approx((69.34, 60, 80))
    assert uar[2] == (pytest.approx(72.56), None, None)  # of an older report


def test_without_matplotlib_the_flag_says_what_to_install(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments):
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"requirements-figures\.txt"):
        figures.check(tmp_path / "new")
    assert not (tmp_path / "new").exists()
