"""Pools, waiting calls, usage and budgets as rows and bars."""

from __future__ import annotations

from typing import Any

import pytest

from weft.dashboard.pages import llm_figures
from weft.dashboard.pages.llm_figures import MAX_TENANTS, OTHERS, usage_bars

NOW = 1_790_000_000.0


def provider(**more: Any) -> dict[str, Any]:
    """A provider, as the API tells it."""
    return {
        "name": "own",
        "health": "healthy",
        "until": None,
        "underWay": 1,
        "requestsInWindow": 10,
        "tokensInWindow": 1000,
        "concurrency": 4,
        "requestsPerMinute": 600,
        "tokensPerMinute": None,
        "firstTokenSeconds": 0.25,
        "tokenSeconds": None,
        **more,
    }


def pool(*providers: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A pool, likewise."""
    return {
        "name": "gpt",
        "models": ["gpt-4o", "*"],
        "scheduled": True,
        "contended": False,
        "callsWaiting": 2,
        "waiting": [],
        "longestWait": 1.5,
        "underWay": 1,
        "leases": 0,
        "admitted": 7,
        "refused": {"queue-full": 2, "deadline": 1},
        "requestsPerSecond": 0.5,
        "tokensPerSecond": 120.0,
        "providers": list(providers),
        **more,
    }


def used(day: str, tenant: str, tokens: int, usd: float = 0.0) -> dict[str, Any]:
    """Usage, likewise."""
    counts = dict.fromkeys(
        ("calls", "failed", "cancelled", "estimated", "promptTokens", "completionTokens"), 1
    )
    return {"day": day, "tenant": tenant, "tokens": tokens, "usd": usd, **counts}


@pytest.mark.parametrize(
    ("standing", "state"),
    [
        (pool(provider()), "healthy"),
        (pool(provider(), contended=True), "contended"),
        (pool(provider(), provider(health="cooling")), "degraded"),
        (pool(provider(health="broken"), provider(health="returning")), "returning"),
        (pool(provider(health="broken"), provider(health="cooling")), "down"),
        (pool(), "no provider"),
        (pool(provider(), scheduled=False), "not scheduled"),
    ],
)
def test_a_pool_is_as_its_providers_are(standing: dict[str, Any], state: str) -> None:
    assert llm_figures.pool_state(standing) == state


def test_what_is_wrong_is_told_in_sentences() -> None:
    told = llm_figures.degraded([pool(provider(health="broken", until=NOW)), pool(provider(), name="fine")])
    assert told == [
        "Pool gpt: none of its providers is sent anything now.",
        "Pool gpt, provider own: broken until 14:13:20 UTC: it failed too often and is sent nothing.",
    ]


def test_why_calls_wait_follows_from_what_providers_are_short_of() -> None:
    full = provider(underWay=4, requestsInWindow=590)
    assert llm_figures.why_waiting(pool(full)) == (
        "own: concurrency 4 of 4 and requests per minute 590 of 600"
    )
    assert "asked to be spared" in llm_figures.why_waiting(pool(provider(health="cooling")))
    assert "others of its pool go first" in llm_figures.why_waiting(pool(provider()))
    assert llm_figures.why_waiting(pool(full, callsWaiting=0)) == ""


def test_a_row_of_a_pool_tells_its_refusals() -> None:
    row = llm_figures.pool_row(pool(provider()))
    assert (row["refused"], row["refusals"]) == (3, "deadline: 1, queue-full: 2")
    assert (row["models"], row["calls"], row["tokens"]) == ("gpt-4o, *", 0.5, 120.0)


def test_limits_are_beside_what_is_used_of_them() -> None:
    [row] = llm_figures.provider_rows([pool(provider())])
    assert (row["underWay"], row["requests"], row["tokens"]) == ("1 of 4", "10 of 600", "1,000")
    assert (row["firstToken"], row["perToken"]) == (0.25, None)


def test_a_waiting_call_tells_how_long_it_may_wait_yet() -> None:
    call = {
        "id": "c1",
        "pool": "gpt",
        "tenant": "crew",
        "agentType": "crew",
        "model": "gpt-4o",
        "serviceClass": "batch",
        "since": NOW - 3,
        "deadline": NOW + 5,
        "position": 1,
    }
    row = llm_figures.waiting_row(call, {"gpt": pool(provider())}, NOW)
    assert (row["waited"], row["left"]) == (3.0, 5.0)
    assert "others" in row["why"]
    assert llm_figures.waiting_row({**call, "deadline": None}, {}, NOW)["left"] is None


def test_bars_have_a_value_for_each_day_and_add_small_tenants_up() -> None:
    items = [used("2026-11-21", f"t{each:02}", 100 - each) for each in range(MAX_TENANTS + 3)]
    bars = usage_bars([*items, used("2026-11-22", "t00", 5)], ["2026-11-21", "2026-11-22"], "tokens")
    assert bars.tenants[0] == "t00"
    assert bars.values[0] == (100, 5)
    assert bars.tenants[-1] == OTHERS
    assert bars.values[-1] == (sum(100 - each for each in range(MAX_TENANTS, MAX_TENANTS + 3)), 0)
    assert sum(map(sum, bars.values)) == sum(each["tokens"] for each in items) + 5


def test_usage_is_added_up_by_tenant() -> None:
    rows = llm_figures.usage_rows(
        [used("2026-11-21", "a", 1, 0.5), used("2026-11-22", "a", 2, 0.25), used("2026-11-22", "b", 9)]
    )
    assert [(each["tenant"], each["tokens"], each["usd"]) for each in rows] == [
        ("b", 9, 0.0),
        ("a", 3, 0.75),
    ]


@pytest.mark.parametrize(("share", "state"), [(0.2, "ok"), (0.95, "nearly spent"), (1.2, "exhausted")])
def test_a_budget_tells_what_is_left(share: float, state: str) -> None:
    budget = {
        "budget": "daily",
        "scope": "tenant",
        "value": "crew",
        "period": "day",
        "begins": NOW,
        "ends": None,
        "limitTokens": 20_000,
        "limitUsd": 2.0,
        "spentTokens": 12_000,
        "spentUsd": 1.5,
        "setAsideTokens": 1_000,
        "setAsideUsd": 0.75,
        "calls": 1,
        "share": share,
    }
    row = llm_figures.budget_row(budget)
    assert row["left"] == "7,000 tokens, $0.00"
    assert (row["whose"], row["ends"], row["state"]) == ("tenant crew", None, state)
    assert llm_figures.budget_row({**budget, "scope": "mesh", "value": ""})["whose"] == "the whole mesh"
