"""The book of what was used of models, by day and by whom."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Final

from weft.controlplane.llm.call import Ended, LeasedEnds
from weft.controlplane.llm.usage import charge
from weft.controlplane.llm.usage_record import Counts, UsageField, UsageOf, UsageRecord, UsageRow

MAX_CONTEXTS: Final = 1000
"""Contexts that are told apart in one day; the rest are one, OTHERS."""

MAX_ROWS: Final = 10_000
"""Rows of one day; beyond it calls are counted in rows whose tenant, type, model and context are OTHERS."""

OTHERS: Final = "(other)"

_DAYS_OPEN: Final = 2
"""Days of which the book is open: calls that ended yesterday are still told of."""


class UsageBook:
    """Today's page and yesterday's. For one thread."""

    def __init__(self, *, max_contexts: int = MAX_CONTEXTS, max_rows: int = MAX_ROWS) -> None:
        """The bounds are those of one day."""
        self._max_contexts = max_contexts
        self._max_rows = max_rows
        self._pages: dict[str, dict[UsageOf, Counts]] = defaultdict(dict)
        self._contexts: dict[str, set[str]] = defaultdict(set)
        self._dirty: set[UsageOf] = set()
        self._first = ""  # the oldest day that is open: a closed page would begin at nothing again

    def add(self, end: Ended, usd: float) -> None:
        """Count a call that ended, and what it cost. `charge` says which tokens are counted."""
        self._add(self._place(end), _counts(end, usd))

    def add_all(self, ends: LeasedEnds, usd: float) -> None:
        """Count calls on leases that ended well, and what they cost together."""
        counts = Counts(
            calls=ends.calls,
            prompt_tokens=ends.prompt_tokens,
            cached_tokens=ends.cached_tokens,
            completion_tokens=ends.completion_tokens,
            usd=max(0.0, usd),
        )
        self._add(self._place(ends), counts)

    def changed(self) -> list[UsageRecord]:
        """The rows that changed since the last time, to be written down; older pages are closed then."""
        changed = [UsageRecord(of, self._pages[of.day][of]) for of in self._dirty]
        self._dirty.clear()
        for day in sorted(self._pages)[:-_DAYS_OPEN]:
            del self._pages[day]
            self._contexts.pop(day, None)
        self._first = min(self._pages, default=self._first)
        return changed

    def not_written(self, records: Iterable[UsageRecord]) -> None:
        """What `changed` returned could not be written down: it will return it again, as it stands then."""
        self._dirty.update(each.of for each in records if each.of in self._pages.get(each.of.day, ()))

    def restore(self, records: Iterable[UsageRecord]) -> None:
        """Go on with what was written down: that of today and of yesterday is enough."""
        for record in records:
            self._pages[record.of.day][record.of] = record.counts
            self._contexts[record.of.day].add(record.of.context)

    def rows(
        self, since: date, until: date, by: Collection[UsageField] = (UsageField.DAY, UsageField.TENANT)
    ) -> list[UsageRow]:
        """What the open pages say of the days from `since` to `until`, both included, told apart `by`."""
        records = (UsageRecord(of, counts) for page in self._pages.values() for of, counts in page.items())
        return usage_rows(records, since, until, by)

    def _add(self, of: UsageOf, counts: Counts) -> None:
        page = self._pages[of.day]
        before = page.get(of)
        page[of] = counts if before is None else before + counts
        self._dirty.add(of)

    def _place(self, end: Ended | LeasedEnds) -> UsageOf:
        """The row in which a call is counted; if its day is closed, on the oldest that is not."""
        day = max(day_of(end.ended), self._first)
        context = end.context or ""
        known = self._contexts[day]
        if context and context not in known:
            if len(known) >= self._max_contexts:
                context = OTHERS
            else:
                known.add(context)
        of = UsageOf(day, end.tenant, end.agent_type, end.model, end.pool, end.provider or "", context)
        page = self._pages[day]
        if of in page or len(page) < self._max_rows:
            return of
        return UsageOf(day, OTHERS, OTHERS, OTHERS, end.pool, end.provider or "", OTHERS)


def usage_rows(
    records: Iterable[UsageRecord], since: date, until: date, by: Collection[UsageField]
) -> list[UsageRow]:
    """What `records` say of the days from `since` to `until`, both included, told apart `by`; sorted."""
    first, last = since.isoformat(), until.isoformat()
    sums: dict[tuple[str, ...], Counts] = {}
    for record in records:
        if first <= record.of.day <= last:
            place = tuple(getattr(record.of, each) for each in by)
            sums[place] = sums.get(place, Counts()) + record.counts
    names = tuple(each.value for each in by)
    return [UsageRow(UsageOf(**dict(zip(names, place, strict=True))), sums[place]) for place in sorted(sums)]


def day_of(moment: float) -> str:
    """The day in UTC that a time, in seconds since 1970, is in: `2026-11-21`."""
    return datetime.fromtimestamp(moment, UTC).date().isoformat()


def open_days(now: float) -> tuple[str, ...]:
    """The days that `restore` wants the records of."""
    today = datetime.fromtimestamp(now, UTC).date()
    return tuple((today - timedelta(days=back)).isoformat() for back in range(_DAYS_OPEN))


def _counts(end: Ended, usd: float) -> Counts:
    counted = charge(end)
    usage = counted.usage
    return Counts(
        calls=1,
        failed=int(not end.cancelled and (end.broken or not 200 <= end.status < 300)),
        cancelled=int(end.cancelled),
        estimated=int(counted.estimated_tokens > 0),
        prompt_tokens=usage.prompt_tokens if usage else 0,
        cached_tokens=usage.cached_tokens if usage else 0,
        completion_tokens=usage.completion_tokens if usage else 0,
        estimated_tokens=counted.estimated_tokens,
        usd=max(0.0, usd),
    )
