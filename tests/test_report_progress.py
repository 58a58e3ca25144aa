"""The pace of counted work, and how long the rest will take."""

from __future__ import annotations

import io

from envforge.events import Event
from envforge.report.progress import Estimate, count_text, progress


def test_the_estimate_looks_at_the_last_minutes_only():
    estimate = Estimate()
    assert estimate.left_s(1, 1000, now=0) is None
    assert estimate.left_s(500, 1000, now=10) == 500 * 10 / 499
    for second in range(400, 1000, 20):
        left_s = estimate.left_s(500 + second // 20, 1000, now=second)
    assert left_s == (1000 - 549) * 20, "what the cache gave in ten seconds is forgotten"


def test_other_work_begins_an_estimate_of_its_own():
    estimate = Estimate()
    estimate.left_s(90, 100, now=0)
    assert estimate.left_s(1, 50, now=1) is None
    assert estimate.left_s(2, 50, now=2) == 48


def test_where_no_terminal_is_a_count_is_one_line():
    stream = io.StringIO()
    with progress(quiet=False, stream=stream) as on_event:
        on_event(Event("count", "Building CXX object a.o", 271, 1667))
        on_event(Event("count", "Building CXX object b.o", 272, 1667))
    assert stream.getvalue() == ".. 271 of 1667: Building CXX object a.o\n"


def test_a_count_names_what_is_left():
    event = Event("count", "Linking", 9, 10)
    assert count_text(event, 65) == "9 of 10, about 1 min 05 s left: Linking"


def test_the_lines_of_a_tool_stand_only_where_they_are_asked_for():
    line = "[ 12%] Building CXX object " + "deep/" * 30 + "a.o"
    for verbose, said in ((False, "-> compile\n"), (True, f"-> compile\n   {line}\n")):
        stream = io.StringIO()
        with progress(verbose=verbose, stream=stream) as on_event:
            on_event(Event("step", "compile"))
            on_event(Event("log", line))
        assert stream.getvalue() == said
