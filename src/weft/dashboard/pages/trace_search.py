"""Searching traces: what a person asks for, as the query of a page and of the API; and what is found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from weft.dashboard.pages.page_query import given_filters, read_filters

LIMIT = 50
"""Traces on one page."""

MAX_TEXT = 200
"""Characters of one filter."""

WINDOWS = {"": "any time", "900": "15 min", "3600": "1 h", "21600": "6 h", "86400": "24 h"}
"""How far back to look, in seconds, and how that is called."""

STATUSES = {"": "any", "error": "with errors", "ok": "without errors"}


@dataclass(frozen=True, slots=True)
class TraceFilters:
    """What is looked for; empty: whatever it is. All are text, as a query has it."""

    service: str = ""
    destination: str = ""
    caller: str = ""
    context: str = ""
    status: str = ""
    """`error` or `ok`."""
    minDuration: str = ""  # noqa: N815 -- as the API's query calls it
    """Seconds."""
    q: str = ""
    """Text that stands in a span."""
    last: str = ""
    """Seconds to look back from now."""
    since: str = ""
    """Seconds since 1970."""
    until: str = ""
    """Likewise."""

    @classmethod
    def of(cls, query: Mapping[str, Any]) -> TraceFilters:
        """Those in the query of a page; what makes no sense is left out."""
        told = read_filters(cls, query, MAX_TEXT)
        for name in ("minDuration", "last", "since", "until"):
            if number(told[name]) is None:
                told[name] = ""
        if told["status"] not in STATUSES:
            told["status"] = ""
        return cls(**told)

    @property
    def query(self) -> str:
        """As the query of a page: only what is given."""
        return urlencode(dict(given_filters(self)))

    @property
    def are_none(self) -> bool:
        """Whether everything is looked for."""
        return not any(True for _ in given_filters(self))

    def asked(self, now: float, after: str = "") -> str:
        """The API's path with its query. `now` is in seconds since 1970; `after` leads to the next page."""
        told = {name: value for name, value in given_filters(self) if name != "last"}
        back = number(self.last)
        if back is not None and "since" not in told:
            told["since"] = f"{now - back:.0f}"
        if after:
            told["after"] = after
        return "/v1/traces?" + urlencode({**told, "limit": LIMIT})


def number(text: str) -> float | None:
    """The number of zero or more that a text is; else None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def milliseconds(text: str) -> str:
    """Seconds, as a text, in milliseconds: for a form. Empty stays empty."""
    value = number(text)
    return "" if value is None else f"{value * 1000:.10g}"


def seconds(text: str) -> str:
    """Milliseconds, as a text that somebody typed, in seconds. What is no such number is nothing."""
    value = number(text.strip())
    return "" if value is None else f"{value / 1000:.10g}"


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One trace that was found."""

    id: str
    name: str
    service: str
    start: float
    """Seconds since 1970."""
    duration: float
    """Seconds."""
    share: float
    """Of the longest in the list: 0 to 1."""
    spans: int
    errors: int
    services: tuple[str, ...]
    context: str


def rows_of(answer: Any) -> list[TraceRow]:
    """The traces in what the API answers; what is none is left out."""
    items = answer.get("traces") if isinstance(answer, dict) else None
    found = [each for each in items or [] if isinstance(each, dict) and each.get("id")]
    longest = max((_amount(each.get("duration")) for each in found), default=0.0)
    return [_row(each, longest) for each in found]


def _row(item: dict[str, Any], longest: float) -> TraceRow:
    duration = _amount(item.get("duration"))
    services = item.get("services")
    return TraceRow(
        id=str(item["id"]),
        name=str(item.get("name") or "(no name)"),
        service=str(item.get("service") or ""),
        start=_amount(item.get("start")),
        duration=duration,
        share=duration / longest if longest > 0 else 0.0,
        spans=int(_amount(item.get("spans"))),
        errors=int(_amount(item.get("errors"))),
        services=tuple(str(each) for each in services) if isinstance(services, list) else (),
        context=str(item.get("context") or ""),
    )


def _amount(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return 0.0
    return max(0.0, float(value))
