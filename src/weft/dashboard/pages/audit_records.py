"""Records of the audit, as rows: which are looked for, and what is new among them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from weft.dashboard.pages.page_query import given_filters, read_filters

MAX_TEXT = 300

OUTCOMES = {"": "all", "done": "done", "denied": "denied", "would-be-denied": "dry run"}

PAGE = 50
"""Records on one page."""

MAX_KEPT = 500
"""Denials that a page keeps of those it saw."""


@dataclass(frozen=True, slots=True)
class Record:
    """One change, or one denial."""

    time: float
    """Seconds since 1970."""
    who: str
    action: str
    target: str
    outcome: str
    policy: str
    reason: str
    observer: str
    details: tuple[tuple[str, str], ...]

    @property
    def is_denial(self) -> bool:
        """Whether somebody was refused, or would have been."""
        return self.outcome != "done"

    @property
    def where(self) -> str:
        """All of its text, to be searched."""
        details = (f"{name}={value}" for name, value in self.details)
        return " ".join(
            (self.who, self.action, self.target, self.policy, self.reason, self.observer, *details)
        )


@dataclass(frozen=True, slots=True)
class AuditFilters:
    """What is looked for; empty: whatever it is."""

    outcome: str = ""
    who: str = ""
    action: str = ""
    policy: str = ""
    q: str = ""
    """Text anywhere in the record."""

    @classmethod
    def of(cls, query: Mapping[str, Any]) -> AuditFilters:
        """Those in the query of a page."""
        told = read_filters(cls, query, MAX_TEXT)
        if told["outcome"] not in OUTCOMES:
            told["outcome"] = ""
        return cls(**told)

    @property
    def query(self) -> str:
        """As the query of a page: only what is given."""
        return urlencode(dict(given_filters(self)))

    def match(self, record: Record) -> bool:
        """Whether a record is looked for."""
        return (
            (not self.outcome or record.outcome == self.outcome)
            and self.who.lower() in record.who.lower()
            and self.action.lower() in record.action.lower()
            and self.policy.lower() in record.policy.lower()
            and self.q.lower() in record.where.lower()
        )


def records_of(answer: Any) -> list[Record]:
    """The records in what the API answers, the latest first; what is none is left out."""
    items = answer.get("items") if isinstance(answer, dict) else None
    found = [_record(each) for each in items or [] if isinstance(each, dict)]
    return sorted(found, key=lambda each: each.time, reverse=True)


def joined(known: Iterable[Record], new: Iterable[Record]) -> list[Record]:
    """Both together, each record once, the latest first, MAX_KEPT at most."""
    together = dict.fromkeys([*new, *known])
    return sorted(together, key=lambda each: each.time, reverse=True)[:MAX_KEPT]


def short_identity(who: str) -> str:
    """A SPIFFE ID without what all in the mesh have in common; all else as it is."""
    if not who.startswith("spiffe://"):
        return who
    domain, _, path = who.removeprefix("spiffe://").partition("/")
    return path.removeprefix("agent/") if path else domain


def _record(item: dict[str, Any]) -> Record:
    time = item.get("time")
    details = item.get("details")
    pairs = details.items() if isinstance(details, dict) else ()
    return Record(
        time=float(time) if isinstance(time, int | float) and math.isfinite(time) else 0.0,
        who=str(item.get("who") or ""),
        action=str(item.get("action") or ""),
        target=str(item.get("target") or ""),
        outcome=str(item.get("outcome") or ""),
        policy=str(item.get("policy") or ""),
        reason=str(item.get("reason") or ""),
        observer=str(item.get("observer") or ""),
        details=tuple((str(name), str(value)) for name, value in pairs),
    )
