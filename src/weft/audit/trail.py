"""The audit: every change and every denial, written to the journal without holding up who made it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import replace
from types import TracebackType
from typing import Self

from weft.aio.backoff import backoff
from weft.aio.tasks import TaskOwner
from weft.errors import Denied, InvalidRequest, Unavailable
from weft.model.audit import AuditRecord
from weft.model.audit_codec import AuditCodec
from weft.store.bucket import Store
from weft.store.journal import MAX_RECENT, Journal, JournalEntry
from weft.store.nats_accounts import AUDIT

logger = logging.getLogger(__name__)

_BACKLOG = 10_000
"""Records that may wait for the store; beyond it the oldest are dropped, and the log says how many."""
_GOODBYE = 2.0
"""Seconds in which, at the end, what still waits may be written."""
_CONTROL = "control"


class Audit:
    """Records what happened. Use it as an async context manager, or call `close`. Open it with `open`."""

    def __init__(self, journal: Journal[AuditRecord], tail: str) -> None:
        """`tail` is where in the journal this process writes."""
        self._journal = journal
        self._tail = tail
        self._waiting: deque[AuditRecord] = deque()
        self._news = asyncio.Event()
        self._written = asyncio.Event()
        self._written.set()
        self._dropped = 0
        self._tasks = TaskOwner("audit")
        self._tasks.start(self._write_on(), name="write", endless=True)

    @classmethod
    async def open(cls, store: Store, writer: str) -> Audit:
        """The audit in `store`, written to by the process with the subject `writer` (`identity_subject`).

        Raises Unavailable.
        """
        return cls(await store.journal(AUDIT, AuditCodec()), writer)

    def record(self, record: AuditRecord) -> None:
        """Keep `record`; returns at once, never fails. It is written as soon as the store can be reached."""
        if len(self._waiting) >= _BACKLOG:
            self._waiting.popleft()
            self._dropped += 1
        self._waiting.append(record)
        self._written.clear()
        self._news.set()

    async def recent(
        self, limit: int = 100, *, since: float | None = None, reporter: str = ""
    ) -> list[AuditRecord]:
        """The last `limit` records, oldest first; of those, only what was written `since` a time.

        `since` is in seconds since 1970. `reporter` limits it to one process, `agent.<type>.<id>`, or to
        several by the beginning of that. Raises Unavailable.
        """
        await self.flushed(timeout=_GOODBYE)
        entries = await self._journal.recent(min(limit, MAX_RECENT), reporter)
        return [_attested(each) for each in entries if since is None or each.written_at >= since]

    async def flushed(self, *, timeout: float) -> bool:
        """Wait until nothing waits any more, `timeout` seconds at most; whether it is so."""
        try:
            async with asyncio.timeout(timeout):
                await self._written.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Write what still waits, if that can be done in two seconds, and end."""
        if not await self.flushed(timeout=_GOODBYE):
            logger.warning("%d records of the audit were not written", len(self._waiting))
        await self._tasks.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _write_on(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                await self._write(self._waiting.popleft())
            self._written.set()

    async def _write(self, record: AuditRecord) -> None:
        self._report_dropped()
        for pause in backoff():
            try:
                await self._journal.append(self._tail_of(record), record)
            except Unavailable as error:
                logger.debug("a record of the audit waits: %s", error.detail)
            except (InvalidRequest, Denied) as error:
                logger.error("a record of the audit is lost: %s", error.detail)  # noqa: TRY400
                return
            else:
                return
            await asyncio.sleep(pause)

    def _tail_of(self, record: AuditRecord) -> str:
        # A journal keeps so many records of each tail: however many are denied, what was done stays known.
        return f"{self._tail}.{record.outcome}" if _is_control(self._tail) else self._tail

    def _report_dropped(self) -> None:
        if self._dropped:
            logger.error(
                "%d records of the audit were dropped: the store is too slow, or away", self._dropped
            )
            self._dropped = 0


def _attested(entry: JournalEntry[AuditRecord]) -> AuditRecord:
    """The record; who reports it is what NATS let it be written by, whatever the record says."""
    if _is_control(entry.tail):
        return entry.record
    return replace(entry.record, observer=entry.tail.replace(".", "/"))


def _is_control(tail: str) -> bool:
    return tail.partition(".")[0] == _CONTROL
