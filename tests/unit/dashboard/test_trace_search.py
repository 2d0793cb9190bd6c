"""Searching traces: the query of the page, and that of the API."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from weft.dashboard.pages.trace_search import TraceFilters, milliseconds, rows_of, seconds


def test_a_link_to_a_search_leads_to_the_same_search() -> None:
    filters = TraceFilters(service="a b", q="x=1&y", minDuration="0.25", status="error", last="900")
    query = {name: values[0] for name, values in parse_qs(filters.query).items()}
    assert TraceFilters.of(query) == filters
    assert TraceFilters.of({}).query == ""
    assert TraceFilters.of({}).are_none


def test_what_makes_no_sense_in_a_link_is_left_out() -> None:
    odd = {
        "minDuration": "-1",
        "last": "nan",
        "since": "inf",
        "status": "odd",
        "service": "x" * 999,
        "z": "1",
    }
    found = TraceFilters.of(odd)
    assert (found.minDuration, found.last, found.since, found.status) == ("", "", "", "")
    assert len(found.service) == 200


def test_the_api_is_asked_for_what_was_in_the_last_minutes() -> None:
    path = urlsplit(TraceFilters(last="900", q="&limit=9").asked(1000.0, after="n1"))
    assert path.path == "/v1/traces"
    assert parse_qs(path.query) == {"since": ["100"], "q": ["&limit=9"], "after": ["n1"], "limit": ["50"]}
    told = TraceFilters(last="900", since="5").asked(1000.0)
    assert parse_qs(urlsplit(told).query)["since"] == ["5"]


@pytest.mark.parametrize(("typed", "asked"), [("250", "0.25"), ("1.5", "0.0015"), ("", ""), ("x", "")])
def test_durations_are_typed_in_milliseconds(typed: str, asked: str) -> None:
    assert seconds(typed) == asked
    assert milliseconds(asked) == ("" if not asked else typed)


def test_traces_become_rows_and_what_is_none_is_left_out() -> None:
    answer = {
        "traces": [
            {
                "id": "a",
                "name": "n",
                "duration": 2,
                "spans": 3,
                "errors": 1,
                "services": ["x", "y"],
                "start": 7,
            },
            {"id": "b", "duration": "long", "services": "x", "start": -1},
            {"name": "no id"},
            None,
        ],
        "next": None,
    }
    first, second = rows_of(answer)
    assert (first.name, first.share, first.services, first.errors) == ("n", 1.0, ("x", "y"), 1)
    assert (second.name, second.duration, second.services, second.share) == ("(no name)", 0, (), 0)
    nothings: list[object] = [None, {}, {"traces": None}, []]
    assert all(rows_of(each) == [] for each in nothings)
