"""Telling how far a run is."""

import io

import pytest

from app import progress
from app.progress import Bar, Lines, meter


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_terminal_gets_a_bar_and_a_file_gets_lines() -> None:
    assert isinstance(meter(Terminal()), Bar)
    assert isinstance(meter(io.StringIO()), Lines)


def test_a_bar_stays_on_one_line_and_is_wiped_away(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    with Bar(stream) as shown:
        clock.now += 10
        shown.count(5, 20, "a picture with a name that is far too long for the line")
        assert "25 %" in stream.getvalue()
        assert "about 30 s left" in stream.getvalue()
    assert "\n" not in stream.getvalue()
    assert all(len(line) < 60 for line in stream.getvalue().split("\r"))
    assert stream.getvalue().split("\r")[-2].strip() == ""


def test_lines_come_at_each_quarter_of_what_takes_long(clock: Clock) -> None:
    stream = io.StringIO()
    with Lines(stream) as shown:
        for done in range(1, 101):
            clock.now += 6
            shown.count(done, 100)
    assert stream.getvalue().splitlines() == [
        "25 % done, about 8 min left",
        "50 % done, about 5 min left",
        "75 % done, about 2 min left",
    ]


def test_nothing_is_said_of_what_is_over_at_once(clock: Clock) -> None:
    stream = io.StringIO()
    with Lines(stream) as shown:
        for done in range(1, 5):
            shown.count(done, 4)
    assert stream.getvalue() == ""


def test_a_start_promises_nothing(clock: Clock) -> None:
    assert Bar(Terminal()).left(0, 10) == "time unknown"
