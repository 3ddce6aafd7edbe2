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


@pytest.mark.parametrize(
    ("unit", "total", "done", "shown"),
    [
        ("recordings", 8, 2, r"preparing:  25%.* 2/8 \[\d\d:\d\d<\S+, .* recordings/s"),
        ("B", 61_000_000, 30_500_000, r"preparing:  50%.* 30\.5M/61\.0M "),
    ],
)
def test_a_bar_shows_how_far_it_is_and_the_time_left(monkeypatch, unit, total, done, shown):
    screen = terminal(monkeypatch)
    with progress.bar("preparing", total, unit) as bar:
        bar.update(done)
        bar.refresh()
        drawn = screen.getvalue().rpartition("\r")[2]
    assert re.match(shown, drawn)
    assert screen.getvalue().endswith("\r")  # and is gone
    assert "\n" not in screen.getvalue()


def test_long_lists_are_shortened():
    assert progress.few(["a"]) == "a"
    assert progress.few(list("abcde")) == "a, b, c, d, e"
    assert progress.few(list("abcdefg")) == "a, b, c, d, e and 2 more"
    assert progress.counts({"sad": 1, "calm": 3}) == "calm (3), sad (1)"


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


def test_a_bar_is_drawn_before_anything_is_done(monkeypatch):
    screen = terminal(monkeypatch)
    monkeypatch.setattr(progress, "TICK", 0.01)
    with progress.bar("compiling", 8, "steps"):
        wait_for(lambda: "0/8" in screen.getvalue())
    drawn = screen.getvalue()
    assert drawn.endswith("\r")  # it is cleared
    time.sleep(0.05)
    assert screen.getvalue() == drawn


def test_the_time_left_is_that_of_the_units_after_the_first(monkeypatch):
    terminal(monkeypatch)
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with progress.bar("training", 10, "steps") as bar:
        assert bar.format_dict["rate"] == 0  # and the time left is "?"
        now[0] = 60  # something was compiled
        bar.update()
        assert bar.format_dict["rate"] == 0
        now[0] += 0.01
        bar.update(3)  # what was done meanwhile comes at once
        assert bar.format_dict["rate"] == 0
        now[0] += 9.99
        bar.update(2)
        assert bar.format_dict["rate"] == pytest.approx(0.5)


def test_without_a_terminal_a_line_comes_whenever_there_was_none_for_long(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    monkeypatch.setattr(progress, "DELAY", 0.01)
    monkeypatch.setattr(progress, "TICK", 0.01)
    with progress.bar("training", 8, "steps") as bar:
        bar.update(2)
        time.sleep(0.05)
        assert log.getvalue() == ""
        monkeypatch.setattr(progress, "SILENCE", 0.02)
        wait_for(lambda: log.getvalue().count("\n") >= 2)
        bar.update(2)
        wait_for(lambda: "4 of 8" in log.getvalue())
    lines = log.getvalue().splitlines()
    assert lines[0] == "training: 2 of 8 steps after 0:00"
    assert re.fullmatch(r"training: 4 of 8 steps after 0:0\d(, about 0:0\d left)?", lines[-1])
    time.sleep(0.05)
    assert log.getvalue().splitlines() == lines


def test_a_forgotten_bar_is_silent(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    for name in ("DELAY", "TICK", "SILENCE"):
        monkeypatch.setattr(progress, name, 0.01)
    iterator = iter(progress.bar("reading", 3, "records", range(3)))
    next(iterator)
    wait_for(log.getvalue)
    del iterator
    time.sleep(0.05)
    lines = log.getvalue()
    time.sleep(0.05)
    assert log.getvalue() == lines


def wait_for(condition, seconds=10.0):
    """Waits until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_one_is_singular():
    assert [progress.many(n, "run") for n in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]


def test_clock():
    assert progress.clock(3723.4) == "1:02:03"
    assert progress.clock(59.6) == "1:00"
