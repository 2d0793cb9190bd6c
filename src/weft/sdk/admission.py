"""Which requests an agent takes on: up to a limit, and none while it drains."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from weft.errors import Refused
from weft.sdk.problem import Problem, Rejection


class Admission:
    """Counts the requests in flight and turns away those beyond the limit."""

    def __init__(self, limit: int) -> None:
        """`limit` is how many requests may be in flight at once."""
        self.limit = limit
        self.in_flight = 0
        self.draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Take a place for the block. Raises Rejection, safe to repeat elsewhere, when there is none."""
        if self.draining:
            raise Rejection(
                Problem(503, Refused, "the agent is draining: it takes no new requests", refused="draining")
            )
        if self.in_flight >= self.limit:
            detail = f"the agent is busy: {self.in_flight} requests in flight, its limit is {self.limit}"
            # 429, not 503: a busy instance works, so outlier detection must not take it for a failing one.
            raise Rejection(Problem(429, Refused, detail, refused="busy"))
        self.in_flight += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()

    async def idle(self) -> None:
        """Return once no request is in flight."""
        await self._idle.wait()
