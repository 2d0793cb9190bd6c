"""Idempotency-Key: the same call, arriving again, gets the answer it already has.

What counts as the same: the key and the whole body. Only successful results are remembered, for ten minutes
at most, and only by the instance that computed them; a failed call may be tried again under its key. A copy
that arrives while the first is still being computed waits for it and shares its outcome, failure included.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from weft.errors import InvalidRequest
from weft.sdk.problem import Problem, Rejection

MAX_ANSWERS = 1024
MAX_BYTES = 64 * 1024 * 1024
TTL = 600.0
"""Seconds for which an answer is remembered."""

Compute = Callable[[], Coroutine[Any, Any, bytes]]


@dataclass(frozen=True, slots=True)
class _Remembered:
    fingerprint: bytes
    answer: bytes
    expires: float


class _Running:
    def __init__(self, fingerprint: bytes, task: asyncio.Task[bytes]) -> None:
        self.fingerprint = fingerprint
        self._task = task
        self._waiting = 0

    async def outcome(self) -> bytes:
        """Wait for the answer. When the last one who waits is cancelled, so is the computation."""
        self._waiting += 1
        try:
            return await asyncio.shield(self._task)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._task.cancel()

    @property
    def abandoned(self) -> bool:
        """Whether the computation was given up, so that nobody may join it any more."""
        return bool(self._task.cancelling())


class AnswerCache:
    """Answers by Idempotency-Key, bounded in number, bytes and age; the oldest goes first."""

    def __init__(
        self,
        *,
        max_answers: int = MAX_ANSWERS,
        max_bytes: int = MAX_BYTES,
        ttl: float = TTL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ttl` is in seconds of `clock`."""
        self._max_answers = max_answers
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._clock = clock
        self._remembered: dict[str, _Remembered] = {}
        self._running: dict[str, _Running] = {}
        self._bytes = 0

    async def answer(self, key: str, fingerprint: bytes, compute: Compute) -> bytes:
        """Return the answer of the call that `key` names, computing it if it is not known yet.

        `fingerprint` stands for the body. Raises Rejection (422) if the key came with another body before,
        and whatever `compute` raises.
        """
        self._expire()
        remembered = self._remembered.get(key)
        if remembered is not None:
            _check_same(key, remembered.fingerprint, fingerprint)
            return remembered.answer
        running = self._running.get(key)
        if running is None or running.abandoned:
            running = self._start(key, fingerprint, compute)
        _check_same(key, running.fingerprint, fingerprint)
        return await running.outcome()

    def _start(self, key: str, fingerprint: bytes, compute: Compute) -> _Running:
        task = asyncio.create_task(compute(), name=f"idempotent call {key}")
        running = self._running[key] = _Running(fingerprint, task)
        task.add_done_callback(lambda _: self._finish(key, running, task))
        return running

    def _finish(self, key: str, running: _Running, task: asyncio.Task[bytes]) -> None:
        if self._running.get(key) is running:
            del self._running[key]
        if not task.cancelled() and task.exception() is None:
            self._remember(key, _Remembered(running.fingerprint, task.result(), self._clock() + self._ttl))

    def _remember(self, key: str, entry: _Remembered) -> None:
        self._forget(key)
        self._remembered[key] = entry
        self._bytes += len(entry.answer)
        while len(self._remembered) > self._max_answers or self._bytes > self._max_bytes:
            self._forget(next(iter(self._remembered)))

    def _expire(self) -> None:
        now = self._clock()
        while self._remembered:  # in the order in which they expire
            oldest, entry = next(iter(self._remembered.items()))
            if entry.expires > now:
                return
            self._forget(oldest)

    def _forget(self, key: str) -> None:
        entry = self._remembered.pop(key, None)
        if entry is not None:
            self._bytes -= len(entry.answer)


def _check_same(key: str, known: bytes, fingerprint: bytes) -> None:
    if known != fingerprint:
        detail = f"Idempotency-Key {key!r} came with another body before: a new call needs a new key"
        raise Rejection(Problem(422, InvalidRequest, detail))
