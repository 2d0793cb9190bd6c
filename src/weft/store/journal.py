"""The contract of a journal: a log that is only ever added to, bounded by age and size.

What it is for: the audit trail. Each entry carries the *tail* of the subject it was written to. NATS
permissions say who may write where, so the tail tells for certain who wrote an entry, whatever it says.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")

MAX_RECORD_BYTES = 8 * 1024
"""A larger record is refused with InvalidRequest."""

MAX_RECORDS_PER_TAIL = 20_000
"""Of one tail the oldest make room for more. Full of the largest, a tail leaves a third of the default size
to the others: no writer can make the journal forget what all the others said."""

MAX_RECENT = 10_000
"""As many entries may be asked for at once."""


@dataclass(frozen=True, slots=True)
class JournalLimits:
    """What a journal keeps; the oldest entries are forgotten beyond it. Applies when the journal is made."""

    max_age: float = 30 * 86400.0
    """Seconds."""
    max_bytes: int = 256 * 1024 * 1024


DEFAULT_LIMITS = JournalLimits()


@dataclass(frozen=True, slots=True)
class JournalEntry(Generic[T]):
    """One record, as the journal holds it."""

    tail: str
    """The subject it was written to, without the journal's name."""
    record: T
    position: int
    """Grows with every entry of the journal."""
    written_at: float
    """Seconds since 1970, by the store's clock."""


class Journal(Protocol[T]):
    """Records in the order in which they were written. Tails are made as a bucket's keys are.

    Every method raises Unavailable when the store cannot be reached within its time limit, and Denied where
    it does not permit this to the connection's identity. A record that cannot be decoded is logged and
    skipped.
    """

    async def append(self, tail: str, record: T) -> int:
        """Write `record` down; return its position. Raises InvalidRequest for a bad tail or record."""
        ...

    async def recent(self, limit: int = 100, prefix: str = "") -> list[JournalEntry[T]]:
        """The last `limit` entries whose tails are `prefix` or begin with `prefix.`, oldest first."""
        ...

    def follow(self, prefix: str = "") -> AbstractAsyncContextManager[AsyncIterator[JournalEntry[T]]]:
        """Each entry of those tails that is written from now on, once, in order; never ends by itself.

        After a lost connection it goes on where it was. A reader too slow for the journal's limits misses
        what they drop.
        """
        ...
