"""Pools, providers, waiting calls, usage and budgets as the API tells them, made into rows and bars."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weft.dashboard import quantities
from weft.dashboard.theme import SERIES

MAX_TENANTS = len(SERIES)
"""Of which a chart shows bars; the others are added up."""

OTHERS = "(others)"

TONES = {
    "healthy": "ok",
    "contended": "warn",
    "degraded": "warn",
    "returning": "warn",
    "cooling": "warn",
    "broken": "bad",
    "down": "bad",
    "no provider": "bad",
    "not scheduled": "bad",
}
"""How each state of a pool or a provider is coloured."""

_NEARLY = 0.9
"""The share of a limit from which on it is told as a reason to wait."""


@dataclass(frozen=True, slots=True)
class Bars:
    """What tenants used, by day."""

    days: tuple[str, ...]
    tenants: tuple[str, ...]
    """Those that used most first."""
    values: tuple[tuple[float, ...], ...]
    """Of each tenant the value of each day."""


def pool_row(pool: Mapping[str, Any]) -> dict[str, Any]:
    """A row for a pool."""
    return {
        "id": pool["name"],
        "name": pool["name"],
        "models": ", ".join(pool["models"]),
        "state": pool_state(pool),
        "tone": TONES[pool_state(pool)],
        "waiting": pool["callsWaiting"],
        "longest": pool["longestWait"] if pool["callsWaiting"] else None,
        "underWay": pool["underWay"],
        "leases": pool["leases"],
        "admitted": pool["admitted"],
        "refused": sum(pool["refused"].values()),
        "refusals": ", ".join(f"{reason}: {calls}" for reason, calls in sorted(pool["refused"].items())),
        "calls": pool["requestsPerSecond"],
        "tokens": pool["tokensPerSecond"],
    }


def pool_state(pool: Mapping[str, Any]) -> str:
    """How a pool is, in a few words: the worst that is true of it."""
    providers = pool["providers"]
    if not pool["scheduled"]:
        return "not scheduled"
    if not providers:
        return "no provider"
    healthy = [each for each in providers if each["health"] == "healthy"]
    if not healthy:
        usable = any(each["health"] == "returning" for each in providers)
        return "returning" if usable else "down"
    if len(healthy) < len(providers):
        return "degraded"
    return "contended" if pool["contended"] else "healthy"


def degraded(pools: Iterable[Mapping[str, Any]]) -> list[str]:
    """What is wrong with pools and their providers, one sentence each."""
    told = []
    for pool in pools:
        name = pool["name"]
        if not pool["scheduled"]:
            told.append(f"Pool {name}: nobody schedules its calls.")
        elif pool["providers"] and all(it["health"] in {"broken", "cooling"} for it in pool["providers"]):
            told.append(f"Pool {name}: none of its providers is sent anything now.")
        told += [
            f"Pool {name}, provider {each['name']}: {health_text(each)}."
            for each in pool["providers"]
            if each["health"] != "healthy"
        ]
    return told


def health_text(provider: Mapping[str, Any]) -> str:
    """How a provider is, and until when."""
    until = f" until {quantities.clock(provider['until'])} UTC" if provider["until"] is not None else ""
    told = {
        "healthy": "healthy",
        "cooling": f"cooling{until}: it asked to be spared",
        "broken": f"broken{until}: it failed too often and is sent nothing",
        "returning": "returning: it is tried with a few calls",
    }
    return told.get(provider["health"], str(provider["health"]))


def provider_rows(pools: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each provider of each pool."""
    return [_provider_row(pool["name"], each) for pool in pools for each in pool["providers"]]


def hindrances(provider: Mapping[str, Any]) -> list[str]:
    """Why a provider takes no call, or hardly any, now."""
    if provider["health"] != "healthy":
        return [health_text(provider)]
    limits = (
        ("concurrency", provider["underWay"], provider["concurrency"]),
        ("requests per minute", provider["requestsInWindow"], provider["requestsPerMinute"]),
        ("tokens per minute", provider["tokensInWindow"], provider["tokensPerMinute"]),
    )
    return [f"{what} {_of(used, limit)}" for what, used, limit in limits if limit and used >= _NEARLY * limit]


def why_waiting(pool: Mapping[str, Any]) -> str:
    """Why calls of a pool wait: what each of its providers is short of."""
    if not pool["callsWaiting"]:
        return ""
    told = [
        f"{each['name']}: {' and '.join(short)}" for each in pool["providers"] if (short := hindrances(each))
    ]
    return "; ".join(told) or "its turn has not come: others of its pool go first"


def waiting_row(
    call: Mapping[str, Any], pools: Mapping[str, Mapping[str, Any]], now: float
) -> dict[str, Any]:
    """A row for a call that waits; `now` in seconds since 1970."""
    pool = pools.get(call["pool"])
    deadline = call["deadline"]
    return {
        "id": call["id"],
        "pool": call["pool"],
        "position": call["position"],
        "tenant": call["tenant"],
        "agent": call["agentType"],
        "model": call["model"],
        "serviceClass": call["serviceClass"],
        "waited": max(0.0, now - call["since"]),
        "left": None if deadline is None else max(0.0, deadline - now),
        "why": why_waiting(pool) if pool is not None else "",
    }


def tenant_row(tenant: Mapping[str, Any]) -> dict[str, Any]:
    """A row for what a tenant uses of a pool in the last minute."""
    return {
        "id": f"{tenant['tenant']}/{tenant['pool']}",
        "tenant": tenant["tenant"],
        "pool": tenant["pool"],
        "calls": tenant["callsPerSecond"],
        "tokens": tenant["tokensPerSecond"],
        "waiting": tenant["waiting"],
    }


def usage_rows(items: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each tenant over all days, those that used most first."""
    sums: dict[str, dict[str, float]] = {}
    for each in items:
        tenant = sums.setdefault(each["tenant"] or "", dict.fromkeys(_SUMMED, 0.0))
        for name in _SUMMED:
            tenant[name] += each[name]
    ordered = sorted(sums.items(), key=lambda each: (-each[1]["tokens"], each[0]))
    return [_usage_row(tenant, used) for tenant, used in ordered]


def usage_bars(items: Sequence[Mapping[str, Any]], days: Sequence[str], what: str) -> Bars:
    """What tenants used each day; `what` is `tokens` or `usd`. Beyond MAX_TENANTS they are added up."""
    used: dict[str, dict[str, float]] = {}
    for each in items:
        by_day = used.setdefault(each["tenant"] or "", {})
        by_day[each["day"]] = by_day.get(each["day"], 0.0) + each[what]
    ordered = sorted(used, key=lambda each: (-sum(used[each].values()), each))
    shown, rest = ordered[:MAX_TENANTS], ordered[MAX_TENANTS:]
    values = [tuple(round(used[each].get(day, 0.0), 6) for day in days) for each in shown]
    if rest:
        shown.append(OTHERS)
        values.append(tuple(round(sum(used[it].get(day, 0.0) for it in rest), 6) for day in days))
    return Bars(tuple(days), tuple(shown), tuple(values))


def budget_row(budget: Mapping[str, Any]) -> dict[str, Any]:
    """A row for an account of a budget: what is spent, what is set aside, and what is left."""
    usd, tokens = budget["limitUsd"], budget["limitTokens"]
    spent, aside, left, limit = [], [], [], []
    if tokens is not None:
        spent.append(f"{quantities.compact(budget['spentTokens'])} tokens")
        aside.append(f"{quantities.compact(budget['setAsideTokens'])} tokens")
        free = _left(tokens, budget["spentTokens"], budget["setAsideTokens"])
        left.append(f"{quantities.compact(free)} tokens")
        limit.append(f"{quantities.compact(tokens)} tokens")
    if usd is not None:
        spent.append(quantities.usd(budget["spentUsd"]))
        aside.append(quantities.usd(budget["setAsideUsd"]))
        left.append(quantities.usd(_left(usd, budget["spentUsd"], budget["setAsideUsd"])))
        limit.append(quantities.usd(usd))
    return {
        "id": f"{budget['budget']}/{budget['scope']}/{budget['value']}",
        "budget": budget["budget"],
        "whose": _whose(budget),
        "period": budget["period"],
        "limit": ", ".join(limit),
        "spent": ", ".join(spent),
        "setAside": ", ".join(aside),
        "left": ", ".join(left),
        "share": budget["share"],
        "ends": budget["ends"],
        **_budget_state(budget["share"]),
    }


_SUMMED = ("calls", "failed", "cancelled", "estimated", "promptTokens", "completionTokens", "tokens", "usd")


def _usage_row(tenant: str, used: Mapping[str, float]) -> dict[str, Any]:
    return {
        "id": tenant,
        "tenant": tenant,
        "calls": int(used["calls"]),
        "failed": int(used["failed"]),
        "prompt": int(used["promptTokens"]),
        "completion": int(used["completionTokens"]),
        "tokens": int(used["tokens"]),
        "usd": used["usd"],
        "estimated": int(used["estimated"]),
    }


def _provider_row(pool: str, provider: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": f"{pool}/{provider['name']}",
        "pool": pool,
        "provider": provider["name"],
        "health": health_text(provider),
        "tone": TONES[provider["health"]],
        "underWay": _of(provider["underWay"], provider["concurrency"]),
        "requests": _of(provider["requestsInWindow"], provider["requestsPerMinute"]),
        "tokens": _of(provider["tokensInWindow"], provider["tokensPerMinute"]),
        "firstToken": provider["firstTokenSeconds"],
        "perToken": provider["tokenSeconds"],
    }


def _of(used: int, limit: int | None) -> str:
    told = quantities.compact(used)
    return told if limit is None else f"{told} of {quantities.compact(limit)}"


def _left(limit: float, spent: float, aside: float) -> float:
    return max(0.0, limit - spent - aside)


def _budget_state(share: float) -> dict[str, str]:
    if share >= 1:
        return {"state": "exhausted", "tone": "bad"}
    return {"state": "nearly spent", "tone": "warn"} if share >= _NEARLY else {"state": "ok", "tone": "ok"}


def _whose(budget: Mapping[str, Any]) -> str:
    if budget["scope"] == "mesh":
        return "the whole mesh"
    return f"{budget['scope']} {budget['value'] or 'nobody yet'}"
