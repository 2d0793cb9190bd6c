"""Calls over time: lines of charts, and rows of the table beside."""

from __future__ import annotations

from typing import Any

from weft.dashboard.pages.traffic_series import (
    MAX_LINES,
    Measure,
    Traffic,
    drawn,
    label,
    placed,
    read_traffic,
    rows,
)

START = 1_790_000_000.0


def document(*series: dict[str, Any], steps: float = 4) -> dict[str, Any]:
    """What the API answers after so many steps."""
    return {"step": 5, "from": START, "until": START + 5 * steps, "series": list(series)}


def line(destination: str, *points: list[Any], kind: str = "agent", version: str = "") -> dict[str, Any]:
    """One of its series; times of points are in steps."""
    told = [[START + 5 * step, *rest] for step, *rest in points]
    return {"destination": destination, "kind": kind, "version": version, "points": told}


def data(traffic: Traffic, measure: Measure) -> list[Any]:
    """What is drawn of each line."""
    return [each["data"] for each in drawn(traffic, placed(traffic), measure) if each["data"]]


def test_a_step_without_calls_is_no_calls_and_a_gap_in_all_else() -> None:
    traffic = read_traffic(document(line("a", [0, 10, 1, 0.02, 0.5], [2, 5, 0, 0.03, 0.6]), steps=3.2))
    assert data(traffic, Measure.CALLS) == [
        [[START * 1000, 2.0], [(START + 5) * 1000, 0.0], [(START + 10) * 1000, 1.0]]
    ]
    assert [value for _, value in data(traffic, Measure.ERRORS)[0]] == [10.0, None, 0.0]
    assert [value for _, value in data(traffic, Measure.P50)[0]] == [20.0, None, 30.0]
    assert [value for _, value in data(traffic, Measure.P99)[0]] == [500.0, None, 600.0]


def test_a_step_that_was_told_but_had_no_calls_has_no_latency() -> None:
    traffic = read_traffic(document(line("a", [0, 0, 0, None, None]), steps=1))
    assert data(traffic, Measure.P99) == [[[START * 1000, None]]]
    assert rows(traffic, by_version=False)[0]["p99"] is None


def test_all_lines_end_at_the_same_time() -> None:
    traffic = read_traffic(document(line("a", [0, 1, 0, 0.1, 0.1]), line("b", [3, 1, 0, 0.1, 0.1])))
    assert [len(each) for each in data(traffic, Measure.CALLS)] == [4, 4]


def test_the_busiest_lines_are_drawn_and_all_have_a_row() -> None:
    quiet = [line(f"q{each:02}", [0, 1, 0, 0.1, 0.1]) for each in range(MAX_LINES)]
    traffic = read_traffic(document(*quiet, line("busy", [0, 9, 0, 0.1, 0.1])))
    assert traffic.lines[0].destination == "busy"
    assert len(data(traffic, Measure.CALLS)) == MAX_LINES
    assert len(rows(traffic, by_version=False)) == MAX_LINES + 1


def test_a_line_keeps_its_colour_while_it_is_shown() -> None:
    first = read_traffic(document(line("a", [0, 5, 0, 0.1, 0.1]), line("b", [0, 9, 0, 0.1, 0.1])))
    places = placed(first)
    assert places[:2] == ("agent/b/", "agent/a/")
    later = read_traffic(document(line("a", [0, 99, 0, 0.1, 0.1]), line("c", [0, 1, 0, 0.1, 0.1])))
    assert placed(later, places)[:2] == ("agent/c/", "agent/a/")
    names = [each["name"] for each in drawn(later, placed(later, places), Measure.CALLS)]
    assert names == ["c", "a"] + [""] * (MAX_LINES - 2)


def test_a_row_tells_of_the_whole_time() -> None:
    traffic = read_traffic(document(line("a", [0, 90, 9, 0.01, 0.2], [1, 10, 1, 0.4, 0.9])))
    [row] = rows(traffic, by_version=False)
    assert (row["calls"], row["errors"], row["errorShare"]) == (100, 10, 0.1)
    assert row["tone"] == "bad"
    assert (row["p50"], row["p99"]) == (0.01, 0.9)


def test_the_rate_is_of_late_and_of_steps_that_are_over() -> None:
    points = [[step, 10 * step, 0, 0.1, 0.1] for step in range(10)]
    [row] = rows(read_traffic(document(line("a", *points), steps=9.5)), by_version=False)
    assert row["rate"] == sum(10 * step for step in range(3, 9)) / 30
    assert row["calls"] == 450


def test_a_step_that_is_under_way_is_not_drawn() -> None:
    traffic = read_traffic(document(line("a", [0, 5, 0, 0.1, 0.1], [1, 1, 0, 0.1, 0.1]), steps=1.4))
    assert data(traffic, Measure.CALLS) == [[[START * 1000, 1.0]]]


def test_versions_and_destinations_that_are_no_agents_are_called_by_what_they_are() -> None:
    known = [line("a"), line("b", kind="tool"), line("c", version="2")]
    lines = {each.destination: each for each in read_traffic(document(*known)).lines}
    assert [label(lines[each], by_version=False) for each in "abc"] == ["a", "b (tool)", "c"]
    assert [label(lines[each], by_version=True) for each in "ac"] == ["no version", "version 2"]


def test_nothing_is_drawn_of_nothing() -> None:
    traffic = read_traffic(document())
    assert (data(traffic, Measure.CALLS), rows(traffic, by_version=False)) == ([], [])
