"""Writing down, in the audit, what came of requests."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from weft.model.audit import AuditRecord, Outcome

DENIALS_PER_SECOND = 10.0
DENIALS_AT_ONCE = 100
"""Denials are recorded at that rate, after so many at once: who knocks all day must not fill the audit."""

_MAX_TEXT = 1000


class AuditLog(Protocol):
    """Where the audit is kept."""

    def record(self, record: AuditRecord) -> None:
        """Keep `record`; returns at once."""
        ...

    async def recent(self, limit: int, *, since: float | None = None) -> list[AuditRecord]:
        """The last `limit` records, oldest first; of those, only what was written `since` a time."""
        ...


class Recorder:
    """Writes down what came of requests. All changes; of the denials at most so many per second."""

    def __init__(
        self,
        log: AuditLog,
        observer: str,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`observer` is this replica; `clock` tells the seconds since 1970."""
        self._log = log
        self._observer = observer
        self._clock = clock
        self._monotonic = monotonic
        self._allowance = float(DENIALS_AT_ONCE)
        self._refilled = monotonic()
        self._left_out = 0

    def done(self, who: str, action: str, target: str, *, reason: str = "", **details: str) -> None:
        """`who` did `action` (verb and noun) to `target`."""
        self._write(who, action, target, Outcome.DONE, reason, details)

    def denied(self, who: str, action: str, target: str, reason: str) -> None:
        """`who` was refused `action` on `target`. If there are too many, they are only counted."""
        if not self._allowed():
            self._left_out += 1
            return
        details = {"leftOut": str(self._left_out)} if self._left_out else {}
        self._left_out = 0
        self._write(who, action, target, Outcome.DENIED, reason, details)

    def _write(
        self, who: str, action: str, target: str, outcome: Outcome, reason: str, details: dict[str, str]
    ) -> None:
        self._log.record(
            AuditRecord(
                time=self._clock(),
                who=who,
                action=action,
                target=target[:_MAX_TEXT],
                outcome=outcome,
                reason=reason[:_MAX_TEXT],
                observer=self._observer,
                details=details,
            )
        )

    def _allowed(self) -> bool:
        now = self._monotonic()
        gained = (now - self._refilled) * DENIALS_PER_SECOND
        self._allowance, self._refilled = min(DENIALS_AT_ONCE, self._allowance + gained), now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True
