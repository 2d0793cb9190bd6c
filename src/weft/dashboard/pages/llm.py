"""Models: pools and their providers, who waits and why, what tenants use, and what budgets have left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from nicegui import ui

from weft.dashboard import wording
from weft.dashboard.chart import Chart
from weft.dashboard.page import Page, page
from weft.dashboard.pages.llm_figures import (
    MAX_TENANTS,
    Bars,
    budget_row,
    degraded,
    pool_row,
    provider_rows,
    tenant_row,
    usage_bars,
    usage_rows,
    waiting_row,
)
from weft.dashboard.parts import Figures, heading
from weft.dashboard.table import Column, Table
from weft.dashboard.theme import MUTED, SERIES

_EVERY = 2.0
_USAGE_EVERY = 15.0

_SPANS = {"7 days": 7, "30 days": 30}
_KINDS = {"Tokens": "tokens", "Cost": "usd"}

_POOLS = (
    Column("name", "Pool", least=120, grow=2),
    Column("state", "State", least=115, tone="tone"),
    Column("waiting", "Waiting", format="count", least=85),
    Column("longest", "Longest", format="span", least=85, wide=True),
    Column("underWay", "Running", format="count", least=90, wide=True),
    Column("calls", "Calls/s", format="rate", least=80, wide=True),
    Column("tokens", "Tokens/s", format="rate", least=90, wide=True),
    Column("leases", "Leases", format="count", least=80, wide=True),
    Column("admitted", "Admitted", format="count", least=90, wide=True),
    Column("refused", "Refused", format="count", least=85, wide=True),
    Column("refusals", "Refused because", least=140, grow=2, wide=True),
)
_PROVIDERS = (
    Column("provider", "Provider", least=110),
    Column("pool", "Pool", least=100, wide=True),
    Column("health", "Health", least=150, grow=3, tone="tone"),
    Column("underWay", "Running", least=85),
    Column("requests", "Calls in a minute", least=150, wide=True),
    Column("tokens", "Tokens in a minute", least=160, wide=True),
    Column("firstToken", "First token", format="ms", least=110, wide=True),
    Column("perToken", "Each token", format="ms", least=110, wide=True),
)
_WAITING = (
    Column("pool", "Pool", least=100, wide=True),
    Column("position", "Place", format="count", least=70),
    Column("tenant", "Tenant", least=100),
    Column("agent", "Agent", least=100, wide=True),
    Column("serviceClass", "Class", least=100, wide=True),
    Column("waited", "Waits for", format="span", least=95),
    Column("left", "Deadline in", format="span", least=115, wide=True),
    Column("why", "Why", least=180, grow=4, wide=True),
)
_TENANTS = (
    Column("tenant", "Tenant", least=110, grow=2),
    Column("pool", "Pool", least=100, wide=True),
    Column("calls", "Calls/s", format="rate", least=80),
    Column("tokens", "Tokens/s", format="rate", least=90),
    Column("waiting", "Waiting", format="count", least=85, wide=True),
)
_USAGE = (
    Column("tenant", "Tenant", least=110, grow=2, filter=True),
    Column("calls", "Calls", format="count", least=75, wide=True),
    Column("failed", "Failed", format="count", least=80, wide=True),
    Column("prompt", "Prompt tokens", format="count", least=115, wide=True),
    Column("completion", "Answer tokens", format="count", least=115, wide=True),
    Column("tokens", "Tokens", format="count", least=85),
    Column("usd", "Cost", format="money", least=80),
)
_BUDGETS = (
    Column("budget", "Budget", least=85),
    Column("whose", "Of", least=90, grow=2),
    Column("state", "State", least=135, tone="tone", wide=True),
    Column("share", "Used", format="percent", least=75),
    Column("left", "Left", least=95, grow=2),
    Column("limit", "Limit", least=120, grow=2, wide=True),
    Column("spent", "Spent", least=120, grow=2, wide=True),
    Column("setAside", "Set aside", least=110, grow=2, wide=True),
    Column("ends", "Begins anew", format="ago", least=120, wide=True),
)


@page("/llm", title="Models", icon="psychology", menu=50)
def llm(view: Page) -> None:
    """All of it, on one page."""
    warnings = _Warnings()
    figures = Figures(["Waiting", "Running", "Calls/s", "Tokens/s", "Refused"])
    heading("Pools")
    pools = Table(
        view, _POOLS, key="id", label="Pools", empty="No ModelPool is declared: nobody calls models here."
    )
    heading("Providers and their limits")
    providers = Table(view, _PROVIDERS, key="id", label="Providers", empty="There is no provider.")
    waiting = _Waiting(view)

    def show(answer: Mapping[str, Any]) -> None:
        items = answer["items"]
        warnings.show(degraded(items))
        figures.show(
            _pool_figures(items), {"Waiting": "warn" if any(it["callsWaiting"] for it in items) else ""}
        )
        pools.show([pool_row(each) for each in items])
        providers.show(provider_rows(items))
        waiting.know(items)

    view.watch("/v1/llm/pools", show, every=_EVERY)
    heading("Who uses them now")
    tenants = Table(view, _TENANTS, key="id", label="Tenants", empty="Nobody did in the last minute.")
    view.watch(
        "/v1/llm/top", lambda answer: tenants.show([tenant_row(it) for it in answer["items"]]), every=_EVERY
    )
    heading("Budgets")
    budgets = Table(view, _BUDGETS, key="id", label="Budgets", empty="No Budget is declared.")
    view.watch(
        "/v1/llm/budgets",
        lambda answer: budgets.show([budget_row(it) for it in answer["items"]]),
        every=_EVERY,
    )
    heading("What tenants used")
    _Usage(view)


class _Warnings:
    """What is wrong with pools, in sentences."""

    def __init__(self) -> None:
        self._list = ui.element("div").classes("w-full").props("role=status aria-live=polite")
        self._told: list[str] = []

    def show(self, told: Sequence[str]) -> None:
        """Say these."""
        if self._told == told:
            return
        self._told = [*told]
        self._list.clear()
        with self._list:
            for each in told:
                ui.label(each).classes("weft-notice q-mb-sm")


class _Waiting:
    """Calls that wait, with why: which the pools' figures say."""

    def __init__(self, view: Page) -> None:
        self._pools: dict[str, Mapping[str, Any]] = {}
        heading("Who waits, and why")
        self._table = Table(
            view, _WAITING, key="id", label="Calls that wait", empty="Nobody waits.", sort="position"
        )
        view.watch("/v1/llm/queue", self._show, every=_EVERY)

    def know(self, pools: Sequence[Mapping[str, Any]]) -> None:
        """How pools stand."""
        self._pools = {each["name"]: each for each in pools}

    def _show(self, answer: Mapping[str, Any]) -> None:
        now = time.time()
        self._table.show([waiting_row(each, self._pools, now) for each in answer["items"]])


def _pool_figures(pools: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {
        "Waiting": wording.count(sum(each["callsWaiting"] for each in pools)),
        "Running": wording.count(sum(each["underWay"] for each in pools)),
        "Calls/s": wording.rate(sum(each["requestsPerSecond"] for each in pools)),
        "Tokens/s": wording.rate(sum(each["tokensPerSecond"] for each in pools)),
        "Refused": wording.count(sum(sum(each["refused"].values()) for each in pools)),
    }


class _Usage:
    """Tokens and cost by tenant, day by day."""

    def __init__(self, view: Page) -> None:
        self._view = view
        self._days = 7
        self._kind = "tokens"
        self._items: list[Mapping[str, Any]] = []
        self._stop: Callable[[], None] = lambda: None
        with ui.row().classes("items-center w-full").style("gap:8px 16px"):
            ui.toggle([*_KINDS], value="Tokens", on_change=lambda it: self._show_kind(str(it.value))).props(
                'no-caps dense aria-label="What is shown"'
            )
            ui.toggle([*_SPANS], value="7 days", on_change=lambda it: self._watch(str(it.value))).props(
                'no-caps dense aria-label="Time shown"'
            )
        with ui.element("div").classes("weft-panel"):
            self._chart = Chart(
                view,
                _bars_option(),
                label="What tenants used by day; the table below has the sums",
                height="250px",
            )
        self._table = Table(view, _USAGE, key="id", label="Usage by tenant", empty="Nobody used any model.")
        self._watch("7 days")

    def _watch(self, span: str) -> None:
        self._stop()
        self._days = _SPANS[span]
        since = _today() - timedelta(days=self._days - 1)
        path = f"/v1/llm/usage?by=day,tenant&since={since.isoformat()}"
        self._stop = self._view.watch(path, self._show, every=_USAGE_EVERY)

    def _show_kind(self, kind: str) -> None:
        self._kind = _KINDS[kind]
        self._draw()

    def _show(self, answer: Mapping[str, Any]) -> None:
        self._items = answer["items"]
        self._table.show(usage_rows(self._items))
        self._draw()

    def _draw(self) -> None:
        first = _today() - timedelta(days=self._days - 1)
        days = [(first + timedelta(days=each)).isoformat() for each in range(self._days)]
        self._chart.show(_drawn(usage_bars(self._items, days, self._kind)))


def _today() -> date:
    return datetime.now(UTC).date()


def _bars_option() -> dict[str, Any]:
    return {
        "tooltip": {
            "trigger": "axis",
            "renderMode": "richText",
            "confine": True,
            "axisPointer": {"type": "shadow"},
        },
        "legend": _legend([]),
        "xAxis": _days_axis([]),
        "yAxis": {"type": "value", "min": 0, "splitNumber": 3},
        "series": [],
    }


def _drawn(bars: Bars) -> dict[str, Any]:
    """A series for each place that there may be, so that those of before do not stay."""
    series = [
        {
            "id": str(place),
            "type": "bar",
            "stack": "all",
            "name": bars.tenants[place] if place < len(bars.tenants) else "",
            "data": list(bars.values[place]) if place < len(bars.tenants) else [],
            "color": SERIES[place] if place < len(SERIES) else MUTED,
            "barMaxWidth": 42,
        }
        for place in range(MAX_TENANTS + 1)
    ]
    return {"xAxis": _days_axis(bars.days), "legend": _legend(bars.tenants), "series": series}


def _days_axis(days: Sequence[str]) -> dict[str, Any]:
    return {"type": "category", "data": list(days), "axisLabel": {"hideOverlap": True}}


def _legend(tenants: Sequence[str]) -> dict[str, Any]:
    return {"type": "scroll", "top": 0, "data": list(tenants)}
