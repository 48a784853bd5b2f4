"""How far a long command is, where there is a terminal and where there is none."""

import io

import pytest

from lowbit import console
from lowbit.progress import SILENT
from lowbit.reports import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that each item moves on by ten seconds."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_a_line_is_printed_now_and_then(clock):
    file = io.StringIO()
    with progress.bar(file) as lines:
        for _ in lines.track(range(10), "rounding conv1\x1b[2J"):
            clock[0] += 10
        lines.note("done with \x1b[31m")
    assert file.getvalue().splitlines() == [
        r"rounding conv1\x1b[2J: 3 of 10, about 1:10 left",
        r"rounding conv1\x1b[2J: 6 of 10, about 0:40 left",
        r"rounding conv1\x1b[2J: 9 of 10, about 0:10 left",
        r"done with \x1b[31m",
    ]


def test_what_takes_no_time_says_nothing(clock):
    file = io.StringIO()
    with progress.bar(file) as lines:
        assert list(lines.track(iter("abc"), "reading")) == ["a", "b", "c"]
    assert file.getvalue() == ""


def test_lines_of_no_known_end_only_count(clock):
    file = io.StringIO()
    with progress.bar(file) as lines:
        for _ in lines.track(iter(range(4)), "searching"):
            clock[0] += 40
    assert file.getvalue().splitlines() == [f"searching: {done}" for done in (1, 2, 3, 4)]


@pytest.mark.parametrize("value", ["1", "0", ""])
def test_quiet_is_silent(monkeypatch, value):
    monkeypatch.setenv("LOWBIT_QUIET", value)
    with console.progress_bar(False) as shown:
        assert (shown is SILENT) == (value == "1")
