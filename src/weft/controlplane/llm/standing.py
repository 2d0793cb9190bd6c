"""How calls to models stand and what they used: written down by the replica that schedules, read by all."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from datetime import date, timedelta
from typing import Final

from weft.controlplane.llm.figures_record import (
    FIGURES_BUCKET,
    FIGURES_TTL,
    FiguresCodec,
    FiguresRecord,
    joined,
    parted,
)
from weft.controlplane.llm.ledger_records import LedgerRecord, TreeAccount
from weft.controlplane.llm.records import Kept
from weft.controlplane.llm.state_records import StateBuckets
from weft.controlplane.llm.usage_book import open_days, usage_rows
from weft.controlplane.llm.usage_record import (
    USAGE_BUCKET,
    USAGE_TTL,
    UsageCodec,
    UsageField,
    UsageRecord,
    UsageRow,
)
from weft.errors import Unavailable
from weft.store.bucket import Bucket, Store

_AT_ONCE: Final = 64
"""Writes under way."""

_FEW_DAYS: Final = 31
"""Asked for one by one; for more all are read."""


class Standing:
    """Figures and usage in the store. Every method raises Unavailable when that cannot be reached."""

    def __init__(
        self,
        figures: Bucket[FiguresRecord],
        usage: Bucket[UsageRecord],
        accounts: Bucket[Kept[LedgerRecord]],
    ) -> None:
        """Over these buckets; see `open`."""
        self._figures = figures
        self._usage = usage
        self._accounts = accounts

    @classmethod
    async def open(cls, store: Store) -> Standing:
        """Over the buckets of `store`."""
        return cls(
            await store.bucket(FIGURES_BUCKET, FiguresCodec()),
            await store.bucket(USAGE_BUCKET, UsageCodec()),
            (await StateBuckets.open(store)).accounts,
        )

    async def publish(self, record: FiguresRecord) -> None:
        """Tell everybody how things stand; to be repeated well within FIGURES_TTL."""
        for key, part in parted(record).items():
            await self._figures.put(key, part, ttl=FIGURES_TTL)

    async def figures(self) -> FiguresRecord:
        """How things stood a moment ago. Raises Unavailable where nobody has told for FIGURES_TTL."""
        found = joined({each.key: each.value for each in await self._figures.entries()})
        if found is None:
            raise Unavailable(
                "no replica of the control plane schedules calls to models now: try again in a few seconds"
            )
        return found

    async def tree(self, trace: str) -> list[LedgerRecord]:
        """The account of a call tree that has a budget, and those of its branches; none without one."""
        whole = TreeAccount(trace)
        found = (each.value.value for each in await self._accounts.entries(whole.key))
        return sorted(found, key=lambda each: each.account != whole)

    async def write(self, records: Iterable[UsageRecord]) -> None:
        """Write down rows of the UsageBook, those that `changed` returned."""
        free = asyncio.Semaphore(_AT_ONCE)

        async def put(record: UsageRecord) -> None:
            async with free:
                await self._usage.put(record.key, record, ttl=USAGE_TTL)

        try:
            async with asyncio.TaskGroup() as tasks:
                for record in records:
                    tasks.create_task(put(record))
        except* Unavailable as errors:
            raise errors.exceptions[0] from None

    async def open_pages(self, now: float) -> list[UsageRecord]:
        """What a UsageBook goes on with: `restore` wants it."""
        return [record for day in open_days(now) for record in await self._page(day)]

    async def usage(self, since: date, until: date, by: Collection[UsageField]) -> list[UsageRow]:
        """What was used from `since` to `until`, both included, told apart `by`; sorted."""
        days = (until - since).days + 1
        if days > _FEW_DAYS:
            records = [each.value for each in await self._usage.entries()]
        else:
            records = [
                record
                for back in range(max(0, days))
                for record in await self._page((since + timedelta(days=back)).isoformat())
            ]
        return usage_rows(records, since, until, by)

    async def _page(self, day: str) -> list[UsageRecord]:
        return [each.value for each in await self._usage.entries(day)]
