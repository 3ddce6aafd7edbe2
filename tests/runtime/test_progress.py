"""Bars are seen on terminals alone, and only where somebody would wait for them."""

import io
import re
import time

import pytest

from ds_jax.runtime import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def terminal(monkeypatch):
    """Puts standard output and error on one terminal, where bars appear at once."""
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setattr(progress, "DELAY", 1e-9)
    return screen


def test_a_bar_shows_how_far_it_is_and_the_time_left(monkeypatch):
    screen = terminal(monkeypatch)
    with progress.bar("preparing", 8, "recordings") as bar:
        bar.update(2)
        bar.refresh()
        drawn = screen.getvalue().rpartition("\r")[2]
    assert re.match(r"preparing:  25%.* 2/8 \[\d\d:\d\d<\S+, .* recordings/s", drawn)
    assert screen.getvalue().endswith("\r")  # and is gone
    assert "\n" not in screen.getvalue()


def test_long_lists_are_shortened():
    assert progress.few(["a"]) == "a"
    assert progress.few(list("abcde")) == "a, b, c, d, e"
    assert progress.few(list("abcdefg")) == "a, b, c, d, e and 2 more"
    assert progress.counts({"sad": 1, "calm": 3}) == "calm (3), sad (1)"


def test_bytes_are_counted_in_millions(monkeypatch):
    screen = terminal(monkeypatch)
    with progress.bar("downloading", 61_000_000, "B") as bar:
        bar.update(30_500_000)
        bar.refresh()
    assert "30.5M/61.0M" in screen.getvalue()


def test_items_come_through_a_bar(monkeypatch):
    screen = terminal(monkeypatch)
    items = []
    for item in progress.bar("reading", 3, "records", range(3)):
        items.append(item)
        time.sleep(0.12)  # tqdm draws ten times a second at most
    assert items == [0, 1, 2]
    assert "reading" in screen.getvalue()


@pytest.mark.parametrize("hidden", ["no terminal", "not to be shown", "over in no time"])
def test_there_is_none(hidden, monkeypatch):
    screen = terminal(monkeypatch)
    if hidden == "no terminal":
        monkeypatch.setattr("sys.stderr", io.StringIO())
    if hidden == "over in no time":
        monkeypatch.setattr(progress, "DELAY", 2.0)
    shown = hidden != "not to be shown"
    assert list(progress.bar("reading", 3, "records", range(3), shown)) == [0, 1, 2]
    assert "reading" not in screen.getvalue()


def test_lines_stand_above_a_bar(monkeypatch):
    screen = terminal(monkeypatch)
    with progress.bar("fitting", 2, "folds") as bar:
        bar.update()
        bar.refresh()
        progress.say("fold 0: fitted")
        assert re.search(r"\r *\rfold 0: fitted\n\r?fitting:  50%", screen.getvalue())
    progress.say("done")
    assert screen.getvalue().endswith("\rdone\n")


def test_one_is_singular():
    assert [progress.many(n, "run") for n in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]


def test_clock():
    assert progress.clock(3723.4) == "1:02:03"
    assert progress.clock(59.6) == "1:00"
