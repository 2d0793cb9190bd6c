"""Records of the audit as rows."""

from __future__ import annotations

from typing import Any

from weft.dashboard.pages.audit_records import (
    MAX_KEPT,
    AuditFilters,
    joined,
    records_of,
    short_identity,
)


def record(time: Any, **more: Any) -> dict[str, Any]:
    """A record as the API has it."""
    told = {
        "who": "spiffe://weft.local/agent/ann/ann-1",
        "action": "call",
        "target": "ben",
        "outcome": "denied",
    }
    return {"time": time, **told, **more}


def test_the_latest_record_comes_first_and_what_is_none_is_left_out() -> None:
    found = records_of(
        {"items": [record(1), record(3, details={"a": 1}), "x", {"time": "soon", "who": None}]}
    )
    assert [each.time for each in found] == [3, 1, 0]
    assert found[0].details == (("a", "1"),)
    assert found[2].who == ""
    nothings: list[object] = [None, {}, {"items": None}]
    assert all(records_of(each) == [] for each in nothings)


def test_only_what_is_looked_for_matches() -> None:
    told = record(1, policy="only-editors", reason="Because", details={"tenant": "acme"})
    found = records_of({"items": [told]})[0]
    for filters in ({}, {"who": "ANN"}, {"q": "because"}, {"q": "tenant=acme"}, {"outcome": "denied"}):
        assert AuditFilters(**filters).match(found), filters
    for filters in (
        {"who": "ben"},
        {"q": "nothing"},
        {"outcome": "done"},
        {"policy": "x"},
        {"action": "apply"},
    ):
        assert not AuditFilters(**filters).match(found), filters
    assert AuditFilters.of({"outcome": "odd", "who": " a "}) == AuditFilters(who="a")
    assert AuditFilters(who="a b").query == "who=a+b"


def test_denials_that_are_told_twice_are_shown_once_and_not_kept_forever() -> None:
    first = records_of({"items": [record(1), record(2)]})
    both = joined(first, records_of({"items": [record(2), record(3)]}))
    assert [each.time for each in both] == [3, 2, 1]
    many = records_of({"items": [record(number) for number in range(MAX_KEPT + 9)]})
    assert len(joined(both, many)) == MAX_KEPT


def test_identities_are_told_without_what_all_have_in_common() -> None:
    assert short_identity("spiffe://weft.local/agent/ann/ann-1") == "ann/ann-1"
    assert short_identity("spiffe://weft.local/operator/local/door") == "operator/local/door"
    assert short_identity("spiffe://weft.local") == "weft.local"
    assert short_identity("operator/ci") == "operator/ci"
