"""Requests over one connection to NATS, and their answers.

nats-py's own requests are not used where thousands are made in a second: naming an inbox and limiting the
time costs as much as all the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from weft.store.nats_wire import NO_RESPONDERS_STATUS, STATUS

_SOON_FULL = 1024 * 1024
"""Bytes that wait to be written; nats-py has its callers wait at twice as many."""


_PAUSE = 0.15
"""Seconds until something is sent again that nobody took."""


class NotPermitted(nats.errors.Error):
    """The server does not permit a subject to this identity."""

    def __init__(self, subject: str) -> None:
        super().__init__(f"{subject} is not permitted")
        self.subject = subject


@dataclass(eq=False, slots=True)
class _Waiting:
    subjects: tuple[str, ...]
    """Which the server must permit for there to be an answer."""
    answer: asyncio.Future[Msg]


class Requests:
    """What one client has asked and not heard yet."""

    def __init__(self, client: Client) -> None:
        """Ask through `client`; begin with `open`."""
        self.client = client
        self._inbox = ""
        self._numbers = count(1)
        self._waiting: dict[str, _Waiting] = {}
        self._loop = asyncio.get_running_loop()

    async def open(self) -> None:
        """Begin to listen for answers, as soon as the client is connected."""
        self._inbox = f"{self.client.new_inbox()}."
        await self.client.subscribe(f"{self._inbox}*", cb=self._take)

    async def ask(
        self,
        subject: str,
        data: bytes,
        headers: dict[str, str] | None,
        limit: float,
        *,
        patient: bool = False,
    ) -> Msg:
        """The answer to a request. Raises TimeoutError if there is none within `limit` seconds.

        For so long one that is `patient` is sent again if nobody takes it: who did may just have gone.

        Raises NotPermitted, nats-py's NoRespondersError if nobody takes it, and ConnectionError if the
        connection is lost meanwhile.
        """
        end = self._loop.time() + limit
        while True:
            left = max(end - self._loop.time(), _PAUSE)
            answer = await self._answer((subject,), subject, data, headers, left)
            if answer.headers is None or answer.headers.get(STATUS) != NO_RESPONDERS_STATUS:
                return answer
            if not patient or self._loop.time() + _PAUSE > end:
                raise nats.errors.NoRespondersError
            await asyncio.sleep(_PAUSE)

    async def settle(self, subjects: Sequence[str], limit: float) -> None:
        """Return when the server has dealt with all that was sent before. Raises as `ask` does.

        NotPermitted if that were subscriptions to `subjects`, of which one is not permitted.
        """
        # A message to oneself. A ping of nats-py's overtakes what is still to be written, and when it is
        # cancelled its answer ends the reading from the connection.
        await self._answer(tuple(subjects), "", b"", None, limit)

    @property
    def under_way(self) -> bool:
        """Whether anything waits for its answer."""
        return bool(self._waiting)

    def deny(self, subject: str) -> None:
        """Let fail what was sent to `subject` (in lower case, as nats-py hands it on)."""
        for each in self._waiting.values():
            if subject in map(str.lower, each.subjects) and not each.answer.done():
                each.answer.set_exception(NotPermitted(subject))

    def lose(self, reason: str) -> None:
        """Let everything fail: nobody will answer."""
        for each in self._waiting.values():
            if not each.answer.done():
                each.answer.set_exception(ConnectionError(reason))

    async def _answer(
        self, subjects: tuple[str, ...], to: str, data: bytes, headers: dict[str, str] | None, limit: float
    ) -> Msg:
        """What comes to the inbox after a message to `to`; if that is empty to the inbox itself."""
        number = str(next(self._numbers))
        inbox = self._inbox + number
        answer: asyncio.Future[Msg] = self._loop.create_future()
        self._waiting[number] = _Waiting(subjects, answer)
        timer = self._loop.call_later(limit, _expire, answer)
        try:
            if self.client.pending_data_size + len(data) < _SOON_FULL:
                await self.client.publish(to or inbox, data, inbox if to else "", headers)
            else:
                # It may have to wait for room in the buffer.
                async with asyncio.timeout(limit):
                    await self.client.publish(to or inbox, data, inbox if to else "", headers)
            return await answer
        finally:
            timer.cancel()
            del self._waiting[number]
            if answer.done() and not answer.cancelled():
                answer.exception()  # nobody else looks at it if this was cancelled at that very moment

    async def _take(self, message: Msg) -> None:
        waiting = self._waiting.get(message.subject[len(self._inbox) :])
        if waiting is not None and not waiting.answer.done():
            waiting.answer.set_result(message)


def _expire(answer: asyncio.Future[Msg]) -> None:
    if not answer.done():
        answer.set_exception(TimeoutError())
