"""AccessPolicies in words."""

from __future__ import annotations

from typing import Any

import pytest

from weft.dashboard.pages.policy_words import policies_of


def told(**spec: Any) -> tuple[str, str, tuple[str, ...]]:
    """The sentence, the tone and the rules of a policy."""
    (row,) = policies_of({"items": [{"metadata": {"name": "p"}, "spec": spec}]})
    return row.sentence, row.tone, row.rules


def test_a_policy_is_told_in_a_sentence() -> None:
    who = [
        {"type": "editor"},
        {"operator": "local"},
        {"labels": {"team": "news"}},
        {"trustDomain": "x.example"},
    ]
    sentence, tone, _ = told(effect="allow", to=[{"type": "library", "version": "2"}], **{"from": who})
    assert sentence == (
        "It allows editor or operator/local or with team=news or of x.example to reach library version 2."
    )
    assert tone == "ok"
    assert told(effect="deny")[:2] == ("It denies anyone to reach everything.", "bad")
    assert told(default="deny")[:2] == ("What no other policy speaks of is denied.", "bad")
    assert told(default="allow")[:2] == ("What no other policy speaks of is allowed.", "ok")


def test_one_that_is_only_tried_says_so() -> None:
    sentence, tone, _ = told(effect="deny", mode="dryRun", to=[{"topic": "news"}, {"capability": "search"}])
    assert sentence.startswith("It only reports what it would change: it denies anyone")
    assert sentence.endswith("topic/news or who offers search.")
    assert tone == "warn"


def test_rules_are_told_one_by_one() -> None:
    rules = [
        {"paths": ["/mcp"], "mcp": {"tools": ["search", "find"]}},
        {"methods": ["GET"], "paths": ["/health", "/docs/*"]},
        {"actions": ["publish"]},
        {},
    ]
    assert told(effect="allow", rules=rules)[2] == (
        "/mcp MCP tools search, find",
        "GET /health, /docs/*",
        "to publish",
        "all of it",
    )


@pytest.mark.parametrize("odd", [None, [], {}, {"items": None}, {"items": ["x", 7]}])
def test_what_is_no_list_of_policies_is_none(odd: object) -> None:
    assert policies_of(odd) == []


def test_odd_values_are_told_as_they_are_and_break_nothing() -> None:
    item = {"metadata": None, "spec": {"from": "x", "to": [7], "rules": [None], "effect": ["allow"]}}
    (row,) = policies_of({"items": [item]})
    assert row.sentence == "It allows anyone to reach everything:"
    assert row.rules == ("all of it",)
