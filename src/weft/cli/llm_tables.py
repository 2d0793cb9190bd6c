"""Pools of models, budgets and usage as people see them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from weft.cli.show import age, duration, shortened, table
from weft.cli.times import short

POOLS = ("NAME", "MODELS", "STATE", "WAITING", "LONGEST", "UNDER WAY", "CALLS/S", "TOKENS/S", "PROVIDERS")
PROVIDERS = ("PROVIDER", "HEALTH", "UNDER WAY", "REQUESTS/MIN", "TOKENS/MIN", "FIRST TOKEN", "PER TOKEN")
WAITING = ("POSITION", "CALL", "POOL", "TENANT", "CLASS", "MODEL", "WAITS", "DEADLINE IN")
BUDGETS = ("BUDGET", "OF", "PERIOD", "TOKENS", "USD", "SET ASIDE", "CALLS", "USED", "BEGINS ANEW IN")
TOP = ("TENANT", "POOL", "TOKENS/S", "CALLS/S", "WAITING")
USAGE = ("CALLS", "FAILED", "CANCELLED", "PROMPT", "CACHED", "ANSWER", "ESTIMATED", "TOKENS", "USD")

_MUCH = 0.8
"""Share of a budget from which it is worth a look."""


def pools_table(pools: Iterable[dict[str, Any]]) -> Table:
    """How pools stand, one in a row."""
    return table(POOLS, (_pool(each) for each in pools))


def pool_facts(pool: dict[str, Any]) -> list[tuple[str, str]]:
    """How one stands, in names and values."""
    refused = ", ".join(f"{reason}: {count}" for reason, count in sorted(pool["refused"].items()))
    return [
        ("Pool", pool["name"]),
        ("Models", ", ".join(pool["models"])),
        ("State", _state(pool)),
        ("Waiting", str(pool["callsWaiting"])),
        ("Longest wait", short(pool["longestWait"]) if pool["callsWaiting"] else ""),
        ("Under way", str(pool["underWay"])),
        ("Sidecars on lease", str(pool["leases"])),
        ("Admitted", str(pool["admitted"])),
        ("Refused", refused),
    ]


def providers_table(pool: dict[str, Any]) -> Table:
    """Its providers, one in a row."""
    return table(PROVIDERS, (_provider(each) for each in pool["providers"]))


def waiting_table(calls: Iterable[dict[str, Any]]) -> Table:
    """Calls that wait, one in a row."""
    return table(WAITING, (_waiting(each) for each in calls))


def budgets_table(budgets: Iterable[dict[str, Any]]) -> Table:
    """How budgets stand, one account in a row."""
    return table(BUDGETS, (_budget(each) for each in budgets))


def top_table(rates: Iterable[dict[str, Any]]) -> Table:
    """Who uses how much, one tenant of a pool in a row."""
    return table(
        TOP,
        (
            (
                shortened(each["tenant"]),
                each["pool"],
                f"{each['tokensPerSecond']:.1f}",
                f"{each['callsPerSecond']:.2f}",
                str(each["waiting"]),
            )
            for each in rates
        ),
    )


def usage_table(rows: Iterable[dict[str, Any]], by: Sequence[str]) -> Table:
    """What was used, told apart `by` these."""
    return table((*(each.upper() for each in by), *USAGE), (_usage(each, by) for each in rows))


def _pool(pool: dict[str, Any]) -> tuple[str | Text, ...]:
    providers = pool["providers"]
    healthy = sum(each["health"] == "healthy" for each in providers)
    return (
        pool["name"],
        shortened(", ".join(pool["models"])),
        _state(pool),
        str(pool["callsWaiting"]),
        short(pool["longestWait"]) if pool["callsWaiting"] else "",
        str(pool["underWay"]),
        f"{pool['requestsPerSecond']:.1f}",
        f"{pool['tokensPerSecond']:.0f}",
        Text(f"{healthy}/{len(providers)} healthy", style="" if healthy == len(providers) else "red"),
    )


def _state(pool: dict[str, Any]) -> str:
    if not pool["scheduled"]:
        return "not scheduled"
    return "contended" if pool["contended"] else "free"


def _provider(provider: dict[str, Any]) -> tuple[str | Text, ...]:
    health, until = provider["health"], provider["until"]
    shown = health if until is None else f"{health} for {duration(until - time.time())}"
    return (
        provider["name"],
        Text(shown, style={"healthy": "green", "broken": "red"}.get(health, "yellow")),
        _of(provider["underWay"], provider["concurrency"]),
        _of(provider["requestsInWindow"], provider["requestsPerMinute"]),
        _of(provider["tokensInWindow"], provider["tokensPerMinute"]),
        short(provider["firstTokenSeconds"]),
        short(provider["tokenSeconds"]),
    )


def _waiting(call: dict[str, Any]) -> tuple[str, ...]:
    deadline = call["deadline"]
    return (
        str(call["position"]),
        call["id"],
        call["pool"],
        shortened(call["tenant"]),
        call["serviceClass"],
        shortened(call["model"]),
        age(call["since"]),
        "" if deadline is None else duration(deadline - time.time()),
    )


def _budget(budget: dict[str, Any]) -> tuple[str | Text, ...]:
    share, ends = budget["share"], budget["ends"]
    aside = [f"{budget['setAsideTokens']} tokens" if budget["limitTokens"] is not None else ""]
    aside.append(_usd(budget["setAsideUsd"]) if budget["limitUsd"] is not None else "")
    return (
        budget["budget"],
        budget["scope"] if not budget["value"] else f"{budget['scope']} {shortened(budget['value'])}",
        budget["period"],
        "" if budget["limitTokens"] is None else _of(budget["spentTokens"], budget["limitTokens"]),
        "" if budget["limitUsd"] is None else f"{_usd(budget['spentUsd'])} of {_usd(budget['limitUsd'])}",
        ", ".join(each for each in aside if each) if budget["calls"] else "",
        str(budget["calls"]),
        Text(f"{share:.0%}", style="red" if share >= 1 else "yellow" if share >= _MUCH else ""),
        "never" if ends is None else duration(ends - time.time()),
    )


def _usage(row: dict[str, Any], by: Sequence[str]) -> tuple[str, ...]:
    return (
        *(shortened(row[each]) for each in by),
        str(row["calls"]),
        str(row["failed"]),
        str(row["cancelled"]),
        str(row["promptTokens"]),
        str(row["cachedTokens"]),
        str(row["completionTokens"]),
        str(row["estimatedTokens"]),
        str(row["tokens"]),
        _usd(row["usd"]),
    )


def _of(count: int, limit: int | None) -> str:
    return str(count) if limit is None else f"{count} of {limit}"


def _usd(amount: float) -> str:
    """Dollars, with cents, or as precisely as there is need for when it is less."""
    return f"{amount:.2f}" if amount >= 1 or not amount else f"{amount:.6f}"
