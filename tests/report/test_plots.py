"""Numbers land where they belong on the plane."""

import made_up
import numpy as np
import pytest

from ds_jax.evaluation import metrics
from ds_jax.report import plots


def points(d: str) -> list[tuple[float, float]]:
    return [tuple(map(float, pair.split())) for pair in d[1:].split(" L")]


def height(share: float):
    return pytest.approx(plots.BOTTOM - share * (plots.BOTTOM - plots.TOP), abs=0.06)


def test_a_line_a_fold_and_side_inside_the_plane():
    train, dev, minimised, uar = plots.curves(made_up.histories(), made_up.summary().folds)
    assert [plot.title.partition(" against")[0] for plot in (train, dev, minimised, uar)] == [
        "Training loss",
        "Development loss",
        "Minimised loss",
        "Development UAR",
    ]
    for plot in (train, dev, minimised, uar):
        assert [name for name, _, _ in plot.paths] == ["Fold 0", "Fold 1"]
    for _, _, d in (*train.paths, *dev.paths, *minimised.paths, *uar.paths):
        places = points(d)
        assert len(places) == 13
        assert (places[0][0], places[-1][0]) == (plots.LEFT, plots.RIGHT)
        assert all(plots.TOP <= y <= plots.BOTTOM for _, y in places)
    assert points(uar.paths[0][2])[-1][1] == height(0.6)


def test_the_epoch_that_was_taken_has_a_dot_on_its_line():
    folds = made_up.summary().folds
    train, _, _, uar = plots.curves(made_up.histories(), folds)
    assert not train.dots  # it chooses nothing
    assert [name for name, _, _ in uar.dots] == ["Fold 0: epoch 12", "Fold 1: epoch 9"]
    for (_, x, y), (_, _, d) in zip(uar.dots, uar.paths, strict=True):
        assert (x, y) in points(d)
    assert "Fold 1: from 5.0 % to 60.0 %, 45.0 % in epoch 9, which was chosen" in (uar.description)
    assert not plots.curves(made_up.histories(), [])[3].dots  # no records, no epochs


def test_losses_after_an_epoch_have_one_scale_and_may_be_missing():
    rows = [{"epoch": 1, "train_loss": 9.0, "train_tenth_loss": 0.4, "dev_loss": 1.9}]
    train, dev, minimised = plots.curves([rows], [])
    assert train.y_ticks == dev.y_ticks != minimised.y_ticks
    del rows[0]["train_tenth_loss"]  # as in runs of before
    assert plots.curves([rows], []) == [dev, minimised]


def test_a_dozen_folds_have_lines_of_different_looks():
    rows = [{"epoch": k, "dev_uar": 0.5} for k in (1, 2)]
    [plot] = plots.curves([rows] * 12, [])
    assert len({kind for _, kind, _ in plot.paths}) == 12


def test_the_number_of_a_fold_stands_in_its_colour_at_the_end_of_its_line():
    histories = made_up.histories()
    histories[1] = [row | {"dev_loss": row["dev_loss"] + 0.2} for row in histories[1][:6]]
    folds = [{"fold": 3, "epoch": 2}, {"fold": 7, "epoch": 2}]
    for plot in plots.curves(histories, folds):
        ends = {name.split()[1]: (points(d)[-1], kind) for name, kind, d in plot.paths}
        assert sorted(text for _, _, text, _ in plot.notes) == sorted(ends) == ["3", "7"]
        for x, y, text, colour in plot.notes:
            end, kind = ends[text]
            assert (x - 12, y - 4) == pytest.approx(end, abs=0.11)
            assert kind.startswith(f"{colour} ")


@pytest.mark.parametrize("count", [2, 9, 17])
def test_no_number_lies_on_another(count):
    rng = np.random.default_rng(0)
    histories = [
        [{"epoch": k, "dev_uar": float(rng.uniform(0.49, 0.51))} for k in (1, 2, 3)]
        for _ in range(count)
    ]
    for level in (0.0, 1.0, None):
        for rows in histories:
            rows[-1]["dev_uar"] = level if level is not None else rows[-1]["dev_uar"]
        [plot] = plots.curves(histories, [])
        heights = sorted(y for _, y, *_ in plot.notes)
        assert len(heights) == count
        assert all(np.diff(heights) >= plots.TEXT_HEIGHT - 0.11)
        assert heights[-1] <= plots.BOTTOM
        assert heights[0] >= plots.TOP - plots.TEXT_HEIGHT / 2


def test_where_there_is_no_room_for_numbers_there_are_none():
    histories = [[{"epoch": k, "dev_uar": 0.5} for k in (1, 2)] for _ in range(50)]
    [plot] = plots.curves(histories, [])
    assert len(plot.paths) == 50
    assert not plot.notes


def test_ticks_are_round_few_and_at_their_places():
    rows = [{"epoch": epoch, "dev_loss": 0.37} for epoch in range(1, 41)]
    [loss] = plots.curves([rows], [])
    assert [text for _, text in loss.x_ticks] == ["10", "20", "30", "40"]
    assert loss.x_ticks[-1][0] == plots.RIGHT
    assert [text for _, text in loss.y_ticks] == ["0", "0.1", "0.2", "0.3", "0.4"]
    assert (loss.y_ticks[0][0], loss.y_ticks[-1][0]) == (plots.BOTTOM, plots.TOP)


def test_a_diverged_or_single_epoch_is_drawn_as_far_as_it_goes():
    rows = [
        {"epoch": 1, "train_loss": 1.0, "dev_uar": 0.2},
        {"epoch": 2, "train_loss": float("nan"), "dev_uar": None},
    ]
    drawn = plots.curves([rows, rows[:1]], [])
    assert len(drawn) == 2
    for plot in drawn:
        assert [len(points(d)) for _, _, d in plot.paths] == [2, 2]
        assert "nan" not in plot.description
    assert plots.curves([[], []], []) == []


def test_the_reliability_diagram_shows_accuracy_confidence_and_number():
    rng = np.random.default_rng(0)
    bins = metrics.calibration(rng.integers(0, 7, 300), rng.dirichlet(np.ones(7) / 3, 300))
    filled = [(index, row) for index, row in enumerate(bins) if row["n"]]
    plot = plots.reliability(bins)
    assert len(plot.bars) == len(plot.marks) == len(plot.notes) == len(filled)
    width = (plots.RIGHT - plots.LEFT) / 10
    for (index, row), bar, level, count in zip(
        filled, plot.bars, plot.marks, plot.notes, strict=True
    ):
        name, x, y, _, length = bar
        assert plots.LEFT + index * width < x < plots.LEFT + (index + 1) * width
        assert y == height(row["accuracy"])
        assert y + length == pytest.approx(plots.BOTTOM, abs=0.11)
        assert level[1] == height(row["confidence"])
        assert count[1] < min(y, level[1])
        assert count[2] == str(row["n"])
        assert name in plot.description
    assert f"{100 * filled[0][1]['accuracy']:.1f} % correct" in plot.description


@pytest.mark.parametrize("counts", [[1], [3, 0, 1], [0, 17, 123, 9] * 6])
def test_a_histogram_has_a_bar_a_bin_and_round_ticks(counts):
    plot = plots.histogram({"counts": counts, "width": 0.5, "start": 1.0})
    ceiling = int(plot.y_ticks[-1][1])
    assert ceiling >= max(counts)
    assert (plot.y_ticks[0][0], plot.y_ticks[-1][0]) == (plots.BOTTOM, plots.TOP)
    width = (plots.RIGHT - plots.LEFT) / len(counts)
    for index, ((name, x, y, across, length), count) in enumerate(
        zip(plot.bars, counts, strict=True)
    ):
        left = plots.LEFT + index * width
        assert left < x < x + across < left + width + 0.1
        assert y == height(count / ceiling)
        assert y + length == pytest.approx(plots.BOTTOM, abs=0.11)
        assert name == f"{1 + index / 2:g} to {1.5 + index / 2:g} s: {count}"
    assert len(plot.x_ticks) <= 9
    assert all(plots.LEFT <= x <= plots.RIGHT for x, _ in plot.x_ticks)
    assert plot.x_ticks[0] == (plots.LEFT, "1")
