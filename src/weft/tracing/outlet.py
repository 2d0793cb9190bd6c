"""The way out of spans: gathered, written as OTLP in a thread, and handed to whoever sends them.

It never holds anybody up. What nobody takes is kept for a while, up to a limit, and then dropped and counted.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final

from weft.tracing.span import RecordedSpan, Value

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

logger = logging.getLogger(__name__)

Send = Callable[[bytes], Awaitable[None]]
"""Sends an OTLP request (protobuf). Raises SpansRefused where sending it again would not help, and whatever
else where it might."""

MAX_SPANS: Final = 2048
"""Spans that wait; further ones are dropped."""

MAX_BYTES: Final = 8 * 1024 * 1024
"""Characters of their texts, together."""

BATCH: Final = 512
"""Spans that go together; so many go at once."""

INTERVAL: Final = 1.0
"""Seconds for which spans are gathered."""

LONGEST_PAUSE: Final = 30.0
"""Seconds between two attempts to send, at most, while they fail."""

FLUSH_TIMEOUT: Final = 2.0
"""Seconds that the last spans have to go out when their process ends."""


class SpansRefused(Exception):
    """Whoever takes spans says no to these, and would again."""


class Outlet:
    """Spans on their way out of this process, by its event loop."""

    def __init__(self, send: Send, resource: Callable[[], Mapping[str, Value]]) -> None:
        """`resource` tells whose spans they are, once the first goes out."""
        self._send = send
        self._resource = resource
        self._waiting: deque[RecordedSpan | ReadableSpan] = deque()
        self._bytes = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sending: asyncio.Task[None] | None = None
        self._pause = 0.0
        self._loud = True
        self.closed = False
        """Whether it takes no more."""
        self._process = os.getpid()
        self.sent = 0
        """Spans that were taken."""
        self.dropped = 0
        """Spans that were not, and never will be."""

    def attach(self) -> None:
        """Have the running event loop send what is put in; other threads may put, too."""
        if self._process != os.getpid():
            self._forget()
        self._loop = asyncio.get_running_loop()

    def put(self, span: RecordedSpan | ReadableSpan) -> None:
        """Have a span that has ended sent some time. From any thread; it takes microseconds."""
        if self.closed or self._process != os.getpid():
            return
        size = _size(span)
        if len(self._waiting) >= MAX_SPANS or self._bytes + size > MAX_BYTES:
            self._drop(1, "they come faster than they are taken")
            return
        self._waiting.append(span)
        self._bytes += size
        if self._timer is None or len(self._waiting) == BATCH:
            self._call(self._schedule)

    async def flush(self) -> None:
        """Send what waits now, once: what is not taken waits on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sending is not None:
            await asyncio.wait((self._sending,))
        await self._send_all()

    async def aclose(self) -> None:
        """Send what waits, within FLUSH_TIMEOUT seconds, and take no more."""
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT):
                if self._waiting or self._sending is not None:
                    await self.flush()
        except TimeoutError:
            pass
        finally:
            self.closed = True
            if self._timer is not None:
                self._timer.cancel()
            if self._sending is not None:
                self._sending.cancel()
                await asyncio.wait((self._sending,))
            if self._waiting:
                self._drop(len(self._waiting), "the process ends")
                self._waiting.clear()

    def _call(self, function: Callable[[], None]) -> None:
        loop = self._loop
        if loop is None:
            return  # the next span that somebody begins in an event loop brings one
        try:
            if _running_loop() is loop:
                function()
            else:
                loop.call_soon_threadsafe(function)
        except RuntimeError:
            self.closed = True  # the event loop has ended, and with it the process, or nearly

    def _schedule(self) -> None:
        loop = self._loop
        if loop is None or self.closed or self._sending is not None:
            return
        if len(self._waiting) >= BATCH and not self._pause:
            self._begin()
        elif self._timer is None:
            self._timer = loop.call_later(self._pause or INTERVAL, self._begin)

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._loop is not None and self._sending is None and not self.closed:
            # In no call's context: what sends these would tell of that call, else.
            self._sending = self._loop.create_task(self._send_all(), name="export spans", context=Context())
            self._sending.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._sending = None
        if not task.cancelled() and task.exception() is not None:
            logger.error("spans cannot be written as OTLP", exc_info=task.exception())
        if self._waiting:
            self._schedule()

    async def _send_all(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            # Threads may have counted past each other.
            self._bytes = max(0, self._bytes - sum(map(_size, batch))) if self._waiting else 0
            if not await self._sent(batch):
                return

    async def _sent(self, batch: list[RecordedSpan | ReadableSpan]) -> bool:
        """Whether a batch was taken, or refused; else it waits again, for its turn after a pause."""
        try:
            for request in await asyncio.to_thread(_requests_of, batch, self._resource()):
                await self._send(request)
        except SpansRefused as error:
            self._drop(len(batch), str(error))
        except asyncio.CancelledError:
            self._drop(len(batch), "the process ends")
            raise
        except Exception as error:  # noqa: BLE001 -- whatever is wrong with sending is nobody else's trouble
            self._wait_again(batch, error)
            return False
        else:
            self.sent += len(batch)
            self._loud = True
        self._pause = 0.0
        return True

    def _wait_again(self, batch: list[RecordedSpan | ReadableSpan], error: Exception) -> None:
        self._pause = min(LONGEST_PAUSE, self._pause * 2 or INTERVAL)
        room = max(0, MAX_SPANS - len(self._waiting))
        if len(batch) > room:
            self._drop(len(batch) - room, f"nobody takes them ({type(error).__name__}: {error})")
        kept = batch[len(batch) - room :] if room < len(batch) else batch
        self._waiting.extendleft(reversed(kept))
        self._bytes += sum(map(_size, kept))
        logger.debug("spans wait: %s", error)

    def _drop(self, count: int, why: str) -> None:
        self.dropped += count
        log = logger.warning if self._loud else logger.debug
        log("%d spans are lost, %d by now: %s", count, self.dropped, why)
        self._loud = False  # until some are taken again

    def _forget(self) -> None:
        """What a forked process has of its parent's: none of its business."""
        self._process = os.getpid()
        self._waiting.clear()
        self._bytes = 0
        self._timer = self._sending = None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _size(span: RecordedSpan | ReadableSpan) -> int:
    attributes = span.attributes or {}
    return sum(len(each) for each in attributes.values() if isinstance(each, str))


def _requests_of(batch: list[RecordedSpan | ReadableSpan], resource: Mapping[str, Value]) -> list[bytes]:
    module: Any = importlib.import_module("weft.tracing.otlp")  # 2 MB, for who has something to send
    requests: list[bytes] = module.requests_of(batch, resource)
    return requests
