"""What was declared of queues, topics and groups, for all clients to know: RabbitMQ does not tell it by AMQP.

The settings of each are one message in a queue of their own. Who reads takes it and gives it back; a reader
who finds none waits for a moment, for somebody else is just reading. Writing puts a second one there, which
pushes out the first; writers take turns by an exclusive queue, which ends with their connection.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiormq.abc import AbstractChannel

from weft.aio.backoff import backoff
from weft.errors import NotFound, Unavailable
from weft.messaging.brokers.rabbitmq_link import Link, Locked
from weft.messaging.brokers.rabbitmq_names import Line
from weft.messaging.brokers.rabbitmq_quorum import have_for_good
from weft.messaging.brokers.rabbitmq_wire import marker

Document = dict[str, Any]
"""JSON."""

_ARGUMENTS: dict[str, Any] = {
    "x-queue-type": "quorum",
    "x-max-length": 1,
    "x-overflow": "drop-head",
    "x-delivery-limit": 1_000_000_000,
}
_LONGEST = 1024 * 1024


class Settings:
    """Reads and writes settings. They are called as the queue they are in."""

    def __init__(self, link: Link, publishing: Link) -> None:
        """They are read over `link`, and written over `publishing`."""
        self._link = link
        self._publishing = publishing
        self._turns: dict[str, asyncio.Lock] = {}

    async def read(self, name: str, what: str) -> Document:
        """The settings of `what`. Raises NotFound, Unavailable, Denied."""
        found = await self._find(name, what)
        if found is None:
            raise Unavailable(f"{what}: its settings are being read or written by others for too long")
        return found

    @asynccontextmanager
    async def turn(self, name: str, what: str) -> AsyncIterator[Document]:
        """The settings of `what`, empty if there are none yet, while nobody else writes them."""
        async with self._turns.setdefault(name, asyncio.Lock()), self._locked(name, what):
            try:
                found = await self._find(name, what)
            except NotFound:
                found = None
            yield found or {}

    async def write(self, name: str, document: Mapping[str, Any], what: str) -> None:
        """Have these settings of `what`. To be called in one's turn."""
        async with self._publishing.errand(f"writing the settings of {what}", confirms=True) as channel:
            answer = await channel.queue_declare(name, durable=True, arguments=_ARGUMENTS)
            if not answer.message_count:
                await have_for_good(channel, name)
            body = json.dumps(document).encode()
            await channel.basic_publish(body, routing_key=name, properties=marker("settings"))

    async def remove(self, name: str, what: str) -> None:
        """Forget the settings of `what`, if there are any. To be called in one's turn."""
        async with self._link.errand(f"removing the settings of {what}") as channel:
            await channel.queue_delete(name)

    async def note_level(self, line: Line, milliseconds: int) -> None:
        """Have it known that messages of the line may wait for so long. Raises NotFound."""
        known = await self.read(line.settings, line.what)
        if milliseconds in known.get("delays", {}).get(line.key, ()):
            return
        async with self.turn(line.settings, line.what) as document:
            if not document:
                raise NotFound(f"{line.what} is not there (any more); declare it")
            levels = document.setdefault("delays", {}).setdefault(line.key, [])
            levels.append(milliseconds)
            await self.write(line.settings, document, line.what)

    async def _find(self, name: str, what: str) -> Document | None:
        pauses = backoff(first=0.01, longest=0.1)
        deadline = asyncio.get_running_loop().time() + self._link.timeout
        async with self._link.errand(f"reading the settings of {what}", timed=False) as channel:
            while asyncio.get_running_loop().time() < deadline:
                body = await _take_a_look(channel, name, self._link.timeout)
                if body is not None:
                    return _parsed(body, what)
                await asyncio.sleep(next(pauses))
        return None

    @asynccontextmanager
    async def _locked(self, name: str, what: str) -> AsyncIterator[None]:
        lock = f"{name}.turn"
        pauses = backoff(first=0.05, longest=0.5)
        deadline = asyncio.get_running_loop().time() + self._link.timeout
        while True:
            try:
                async with self._link.errand(f"changing {what}") as channel:
                    await channel.queue_declare(lock, exclusive=True)
                break
            except Locked:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(next(pauses))
        try:
            yield
        finally:
            with suppress(Unavailable):  # then it ends with the connection
                async with self._link.errand(f"changing {what}") as channel:
                    await channel.queue_delete(lock)


async def _take_a_look(channel: AbstractChannel, name: str, timeout: float) -> bytes | None:
    async with asyncio.timeout(timeout):
        got = await channel.basic_get(name)
        if got.delivery_tag is None:
            return None
        await channel.basic_reject(got.delivery_tag, requeue=True)
        return bytes(got.body)


def _parsed(body: bytes, what: str) -> Document:
    try:
        document = json.loads(body) if len(body) <= _LONGEST else None
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise Unavailable(f"{what}: its settings in RabbitMQ cannot be read: not Weft wrote them")
    return document
