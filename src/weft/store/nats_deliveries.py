"""What an ephemeral push consumer delivers: in order and without gaps, or not at all.

nats-py's ordered consumer is not used: it goes on where it was, though what it has not seen may be gone along
with its marker, and it does not tell its reader to start over.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from weft.store.nats_connection import NatsConnection
from weft.store.nats_wire import CONTROL_STATUS, LAST_DELIVERED, STALLED, STATUS

_HEARTBEAT = 1.0
"""Seconds of silence after which the server says that it is still there."""
_SILENCE_LIMIT = 4 * _HEARTBEAT
_INACTIVE_THRESHOLD = 30.0
"""Seconds after which the server forgets a consumer that nobody listens to."""
_GOODBYE_TIMEOUT = 1.0
_BACKLOG_MESSAGES = 65536
_BACKLOG_BYTES = 64 * 1024 * 1024
"""What may wait to be read; a reader that falls further behind starts over."""


class StartOver(Exception):
    """The reader may have missed something."""


@asynccontextmanager
async def deliveries(
    connection: NatsConnection,
    stream: str,
    filters: list[str],
    *,
    policy: DeliverPolicy,
    start: int | None = None,
    what: str,
) -> AsyncIterator[Deliveries]:
    """A consumer of the messages of `stream` under `filters`, from `start` on with BY_START_SEQUENCE.

    Raises Unavailable, saying that Weft cannot `what`, Denied, or nats-py's NotFoundError.
    """
    client = await connection.client()
    found = Deliveries(client)
    inbox = client.new_inbox()
    consumer = ""
    subscription = await client.subscribe(inbox, cb=found.receive)
    try:
        with connection.on_loss(found.lose_connection):
            config = _config(inbox, filters, deliver_policy=policy, opt_start_seq=start)
            info = await connection.call(
                what,
                lambda jetstream: jetstream.add_consumer(stream, config),
                subjects=[f"{connection.api}.CONSUMER.CREATE.{stream}"],
            )
            consumer = info.name
            found.pending = info.num_pending or 0
            yield found
    finally:
        with suppress(nats.errors.Error, TimeoutError):
            await subscription.unsubscribe()
            if consumer:
                await connection.jetstream(client, timeout=_GOODBYE_TIMEOUT).delete_consumer(stream, consumer)


def _config(inbox: str, filters: list[str], **start: Any) -> ConsumerConfig:
    return ConsumerConfig(
        deliver_subject=inbox,
        ack_policy=AckPolicy.NONE,
        filter_subjects=filters,
        flow_control=True,
        idle_heartbeat=_HEARTBEAT,
        inactive_threshold=_INACTIVE_THRESHOLD,
        mem_storage=True,
        num_replicas=1,
        **start,
    )


class Deliveries:
    """What a consumer delivered, in order and without gaps, or else StartOver."""

    def __init__(self, client: Client) -> None:
        """`client` is what the consumer's questions are answered through."""
        self._client = client
        self._waiting: deque[Msg] = deque()
        self._bytes = 0
        self._delivered = 0
        self._broken = ""
        self._news = asyncio.Event()
        self._clock = asyncio.get_running_loop().time
        self._heard = self._clock()
        self.pending = 0
        """How many messages there were to deliver when the consumer was made."""

    async def receive(self, message: Msg) -> None:
        """Take a message from the subscription."""
        if self._broken:
            return
        self._heard = self._clock()
        if _is_control(message):
            await self._answer(message)
        self._waiting.append(message)
        self._bytes += len(message.data)
        if len(self._waiting) > _BACKLOG_MESSAGES or self._bytes > _BACKLOG_BYTES:
            self._break("its reader fell too far behind")
        self._news.set()

    def lose_connection(self) -> None:
        """Make the reader start over."""
        self._break("the connection was lost")

    async def next(self, until: float | None = None) -> Msg | None:
        """The next message; None when the server says that there is none for now. Raises StartOver.

        None too when it is `until`, by the loop's clock, and there is none yet.
        """
        while True:
            message = await self._wait(until)
            if message is None:
                return None
            if not _is_control(message):
                self._check(message.metadata.sequence.consumer == self._delivered + 1)
                self._delivered += 1
                return message
            headers = message.headers or {}
            if LAST_DELIVERED in headers and STALLED not in headers:
                self._check(int(headers[LAST_DELIVERED]) == self._delivered)
                return None

    def check_unbroken(self) -> None:
        """Raise StartOver if something may have been missed."""
        if self._broken:
            raise StartOver(self._broken)

    async def _wait(self, until: float | None) -> Msg | None:
        if not self._waiting and not self._broken:
            self._news.clear()
            silent = self._heard + _SILENCE_LIMIT
            try:
                async with asyncio.timeout_at(silent if until is None else min(silent, until)):
                    await self._news.wait()
            except TimeoutError:
                if self._clock() < silent:
                    return None
                self._break(f"the server was silent for {_SILENCE_LIMIT:g} s")
        self.check_unbroken()
        message = self._waiting.popleft()
        self._bytes -= len(message.data)
        return message

    def _check(self, unbroken: bool) -> None:
        if not unbroken:
            raise StartOver(f"messages after the {self._delivered}th were lost")

    def _break(self, reason: str) -> None:
        self._broken = reason
        self._waiting.clear()
        self._news.set()

    async def _answer(self, message: Msg) -> None:
        # Answered on arrival, not when read: a slow reader is dealt with by the limits above.
        reply = message.reply or (message.headers or {}).get(STALLED)
        if reply:
            await self._client.publish(reply)


def _is_control(message: Msg) -> bool:
    return message.headers is not None and message.headers.get(STATUS) == CONTROL_STATUS
