"""JetStream's own interface: questions and answers in JSON, its refusals translated into Weft's errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg

from weft.errors import MeshError, NotFound, QueueFull, Unavailable
from weft.messaging.brokers.nats_wire import NO_RESPONDERS, STATUS
from weft.store.nats_client import unsubscribe
from weft.store.nats_connection import NatsConnection

STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
MESSAGE_NOT_FOUND = 10037
_FULL = 10077
"""Maximum messages exceeded."""
_NO_STORAGE = frozenset({10023, 10028, 10047})
"""Insufficient resources; resources limits exceeded; insufficient storage."""
_NO_SPACE = "no space left"

_PAUSE = 0.15
"""Seconds until a stream or consumer that nobody answers for is asked for again."""
_ATTEMPTS = 3
"""How often it is asked for where there is but one server."""

_PIECE_BYTES = 8 * 1024 * 1024
"""Bytes of messages that are looked at in one go."""

_MISSING = frozenset({STREAM_NOT_FOUND, CONSUMER_NOT_FOUND, MESSAGE_NOT_FOUND})


class Refused(Unavailable):
    """JetStream said no, for a reason that is none of those that callers know what to do about."""

    def __init__(self, detail: str, number: int) -> None:
        super().__init__(detail)
        self.number = number
        """JetStream's own, `err_code`."""


class JetStreamApi:
    """Asks JetStream through a connection."""

    def __init__(self, connection: NatsConnection) -> None:
        self.connection = connection

    async def ask(self, what: str, question: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The answer to `question` (`STREAM.INFO.name`).

        Raises Unavailable, saying that Weft cannot `what`; NotFound for a missing stream, consumer or
        message; Refused; Denied.
        """
        data = json.dumps(body).encode() if body else b""
        subject = f"{self.connection.api}.{question}"
        answer = await self.connection.request(what, subject, data, again=".INFO." in subject)
        try:
            content = json.loads(answer.data)
            error = content.get("error")
        except (ValueError, AttributeError) as failure:
            raise self.connection.unavailable(what, failure) from failure
        if error:
            raise _refusal(what, int(error.get("err_code", 0)), str(error.get("description", "")))
        return dict(content)

    async def publish(self, what: str, subject: str, data: bytes, headers: dict[str, str]) -> int:
        """Have a stream take a message; return its sequence.

        Raises NotFound if there is no such stream (in a cluster Unavailable), QueueFull, Unavailable, saying
        that Weft cannot `what`, or Denied.
        """
        # Among several servers the connection itself waits for one that leads.
        for pause in (*(() if self.connection.clustered else pauses(self.connection)), None):
            try:
                return await self.connection.publish(what, subject, data, headers)
            except Unavailable as error:
                cause = error.__cause__
                if isinstance(cause, nats.js.errors.APIError):
                    raise _refusal(what, cause.err_code or 0, cause.description or "") from cause
                if not isinstance(cause, nats.errors.NoRespondersError):
                    raise
                if pause is None:
                    raise unanswered(self.connection, what) from cause
            await asyncio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    async def messages(
        self, what: str, stream: str, subject: str, limit: int, *, start: int = 1
    ) -> Sequence[Msg]:
        """Up to `limit` messages of a stream under `subject` (with wildcards), from sequence `start` on.

        Fewer if they are large: there may be more behind the last. Raises as `ask` does.
        """
        question = f"{self.connection.api}.DIRECT.GET.{stream}"
        body = {"batch": limit, "max_bytes": _PIECE_BYTES, "seq": start, "next_by_subj": subject}
        found: list[Msg] = []
        statuses: list[str] = []
        ended = asyncio.Event()

        async def receive(message: Msg) -> None:
            status = (message.headers or {}).get(STATUS)
            if status is not None:
                statuses.append(status)
                ended.set()
            else:
                found.append(message)

        client = await self._client(what)
        inbox = client.new_inbox()
        subscriptions = await self.connection.subscribe(what, [inbox], receive)
        try:
            async with asyncio.timeout(self.connection.timeout):
                await client.publish(question, json.dumps(body).encode(), inbox)
                await ended.wait()
        except (TimeoutError, nats.errors.Error) as error:
            raise self.connection.unavailable(what, error) from error
        finally:
            await unsubscribe(subscriptions)
        if statuses == [NO_RESPONDERS]:
            raise unanswered(self.connection, what)
        return found

    async def _client(self, what: str) -> Any:
        try:
            async with asyncio.timeout(self.connection.timeout):
                return await self.connection.client()
        except TimeoutError as error:
            raise self.connection.unavailable(what) from error


def pauses(connection: NatsConnection) -> Sequence[float]:
    """How many seconds to wait before each further attempt to reach what nobody answers for.

    It does not exist, or in a cluster is between two leaders.
    """
    attempts = int(connection.timeout / _PAUSE) if connection.clustered else _ATTEMPTS
    return [_PAUSE] * attempts


def unanswered(connection: NatsConnection, what: str) -> NotFound | Unavailable:
    """The error that tells that Weft cannot `what` since nobody answers for that queue, topic or group."""
    if connection.clustered:
        return Unavailable(
            f"cannot {what}: no server answers for it; it was not declared, or is between two leaders"
        )
    return NotFound(f"cannot {what}: it was not declared, or was removed")


def _refusal(what: str, number: int, description: str) -> MeshError:
    if number in _MISSING:
        return NotFound(f"cannot {what}: {description}; declare it first")
    if number == _FULL:
        return QueueFull(f"cannot {what}: it holds as many messages as it may; try again later")
    if number in _NO_STORAGE or _NO_SPACE in description:
        return Refused(
            f"cannot {what}: NATS's disk, or its share of it, is full ({description}); make room, or raise "
            "JetStream's limits",
            number,
        )
    return Refused(f"cannot {what}: NATS refused it ({description})", number)
