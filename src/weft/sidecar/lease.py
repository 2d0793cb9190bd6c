"""The lease of a task that an agent works on: what keeps it, and how it ends."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable
from typing import Any, ClassVar, Protocol

from weft.errors import AgentFailed, InvalidRequest, MeshError, TimedOut

GRACE = 1.0
"""Seconds that an extension may be late."""

MAX_DETAIL_LENGTH = 1024
"""Characters of an agent's reason for failing that are kept."""


class LeaseGone(MeshError):
    """The task is not the agent's any more: cancelled, too late, or ended. It should stop working on it."""

    code: ClassVar[str] = "lease-gone"
    status: ClassVar[int] = 410


class Told(Protocol):
    """Who hears how the work goes: a TaskRun."""

    def progress(self, fraction: float | None = None, message: str = "") -> Awaitable[None]:
        """How far it is."""
        ...

    def partial(self, data: Any) -> Awaitable[None]:
        """A part of the result."""
        ...


class Lease:
    """One attempt at a task, in an agent's hands. Once it has ended every call raises LeaseGone."""

    def __init__(self, told: Told, seconds: float) -> None:
        """An agent that works on in the background must `extend` it every so many seconds."""
        self.seconds = seconds
        self._told = told
        self._clock = asyncio.get_running_loop().time
        self._extended = self._clock()
        self._over = False
        self._outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    @property
    def ended(self) -> bool:
        """Whether the agent has said that it is done, or has failed."""
        return self._outcome.done()

    def extend(self) -> None:
        """The agent is still at it."""
        self._check()
        self._extended = self._clock()

    def complete(self, result: Any) -> None:
        """The agent is done."""
        self._check()
        self._outcome.set_result(result)

    def fail(self, detail: str, *, retry: bool) -> None:
        """The agent has failed; `retry` says whether it is to be tried again."""
        self._check()
        text = detail[:MAX_DETAIL_LENGTH] or "the agent gave no reason"
        self._outcome.set_exception(AgentFailed(text) if retry else InvalidRequest(text))

    async def progress(self, fraction: float | None, message: str) -> None:
        """The agent is so far. Also extends."""
        self.extend()
        await self._told.progress(fraction, message)

    async def partial(self, data: Any) -> None:
        """The agent has a part of the result. Also extends."""
        self.extend()
        await self._told.partial(data)

    async def outcome(self) -> Any:
        """The result, as soon as the agent gives it.

        Raises InvalidRequest or AgentFailed if it says that it has failed, TimedOut if it did not extend the
        lease in time. The time of the lease begins with this call.
        """
        self._extended = self._clock()
        while not self._outcome.done():
            ends = self._extended + self.seconds + GRACE
            remaining = ends - self._clock()
            if remaining <= 0:
                raise TimedOut(
                    "the agent works on in the background, and has not extended its lease within "
                    f"{self.seconds:g} s"
                )
            await asyncio.wait([self._outcome], timeout=remaining)
        return self._outcome.result()

    async def decided(self) -> None:
        """Wait until the agent has said that it is done, or has failed."""
        await asyncio.wait([self._outcome])

    def end(self) -> None:
        """The task is not the agent's any more."""
        self._over = True
        if self._outcome.done() and not self._outcome.cancelled():
            self._outcome.exception()  # what nobody took is no error that asyncio would have to log
        self._outcome.cancel()

    def _check(self) -> None:
        if self._over or self._outcome.done():
            raise LeaseGone("the lease is gone: stop working on the task")


def progress_in(document: Any) -> tuple[float | None, str]:
    """The progress that an agent posts, `{"fraction": 0.5, "message": "..."}`. Raises InvalidRequest."""
    if not isinstance(document, dict) or not document.keys() <= {"fraction", "message"}:
        raise InvalidRequest('progress is a JSON object of "fraction" and "message", or one of them')
    fraction, message = document.get("fraction"), document.get("message", "")
    if fraction is not None and (isinstance(fraction, bool) or not isinstance(fraction, int | float)):
        raise InvalidRequest('"fraction" must be a number from 0 to 1')
    if fraction is not None and not (math.isfinite(fraction) and 0 <= fraction <= 1):
        raise InvalidRequest('"fraction" must be a number from 0 to 1')
    if not isinstance(message, str):
        raise InvalidRequest('"message" must be a text')
    return fraction, message


def failure_in(document: Any) -> tuple[str, bool]:
    """What an agent that failed posts, `{"detail": "...", "retry": true}`. Raises InvalidRequest."""
    if not isinstance(document, dict):
        raise InvalidRequest('a failure is a JSON object of "detail" and "retry"')
    detail, retry = document.get("detail", ""), document.get("retry", True)
    if not isinstance(detail, str) or not isinstance(retry, bool):
        raise InvalidRequest('"detail" must be a text, and "retry" true or false')
    return detail, retry
