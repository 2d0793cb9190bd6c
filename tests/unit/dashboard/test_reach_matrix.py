"""Who can reach whom, as a matrix."""

from __future__ import annotations

from typing import Any

from weft.dashboard.pages.reach_matrix import (
    MatrixFilters,
    Verdict,
    action_for,
    kind_of,
    matrix,
    reach_of,
    totals,
)


def cell(caller: str, callee: str, **more: Any) -> dict[str, Any]:
    """A cell as the API has it."""
    return {"caller": caller, "callee": callee, "allowed": True, "policy": "", "reason": "", **more}


ANSWER = {
    "callers": ["ann", "ben"],
    "callees": ["ann", "ben", "topic/news"],
    "cells": [
        cell("ann", "ben", policy="p", reason="policy 'p' allows it"),
        cell("ann", "topic/news", allowed=False, policy="q", dryRun=["r"]),
        cell("ben", "ann", partly=True),
    ],
}


def test_a_matrix_has_a_cell_for_each_caller_and_callee() -> None:
    found = matrix(reach_of([ANSWER]), MatrixFilters())
    assert (found.rows, found.columns) == (("ann", "ben"), ("ann", "ben", "topic/news"))
    verdicts = [[each.verdict for each in row] for row in found.cells]
    assert verdicts == [
        [Verdict.UNKNOWN, Verdict.ALLOWED, Verdict.DENIED],
        [Verdict.PARTLY, Verdict.UNKNOWN, Verdict.UNKNOWN],
    ]
    assert found.cells[0][1].summary == "ann to ben: allowed, by p"
    assert found.cells[0][2].dry_run == ("r",)
    assert totals(reach_of([ANSWER])) == {
        Verdict.ALLOWED: 1,
        Verdict.DENIED: 1,
        Verdict.PARTLY: 1,
        Verdict.UNKNOWN: 0,
    }


def test_only_what_is_looked_for_is_shown() -> None:
    reach = reach_of([ANSWER])
    found = matrix(reach, MatrixFilters(caller="AN", callee="news"))
    assert (found.rows, found.columns) == (("ann",), ("topic/news",))
    found = matrix(reach, MatrixFilters(only=Verdict.PARTLY))
    assert (found.rows, found.columns) == (("ben",), ("ann",))
    found = matrix(reach, MatrixFilters(caller="ann", only=Verdict.PARTLY))
    assert (found.rows, found.all_rows, found.cells) == ((), 0, ())


def test_a_large_mesh_comes_in_pages_and_no_page_is_beyond_the_end() -> None:
    names = [f"a{number:03}" for number in range(100)]
    reach = reach_of(
        [{"callers": names, "callees": names, "cells": [cell(a, b) for a in names for b in names]}]
    )
    found = matrix(reach, MatrixFilters(), row=60, column=99, size=30)
    assert (found.first_row, found.rows[0], len(found.rows)) == (60, "a060", 30)
    assert (found.first_column, found.columns) == (90, tuple(names[90:]))
    assert (found.all_rows, found.all_columns) == (100, 100)
    assert matrix(reach, MatrixFilters(caller="a001"), row=60, size=30).rows == ("a001",)
    assert matrix(reach, MatrixFilters(), row=10**9, size=30).first_row == 90


def test_pages_of_an_answer_are_put_together_and_what_is_no_cell_is_left_out() -> None:
    more = {"callers": ["cid", 7], "callees": None, "cells": [cell("cid", "ann"), "x", {"caller": "y"}]}
    found = reach_of([ANSWER, more, None, "x"])
    assert found.callers == ("ann", "ben", "cid")
    assert found.callees == ("ann", "ben", "topic/news")
    assert len(found.cells) == 4


def test_what_is_called_has_a_kind_and_something_that_one_does_with_it() -> None:
    assert kind_of("topic/a") == ("topic", "a")
    assert kind_of("editor") == ("agent", "editor")
    assert [action_for(each) for each in ("topic/a", "queue/a", "pool/a", "a")] == [
        "publish",
        "submit",
        "call",
        "call",
    ]
