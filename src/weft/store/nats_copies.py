"""Waiting for a stream that further servers are about to keep."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

from weft.aio.poll import until
from weft.errors import Unavailable
from weft.store.nats_connection import NatsConnection

COPY_LIMIT = 15.0
"""Seconds: large streams go on being copied after that."""


async def copied(connection: NatsConnection, stream: str) -> None:
    """Return when the servers that are to keep a stream do so, or after COPY_LIMIT seconds.

    While more of them begin, and find out who leads, they swallow what is written.
    """

    async def is_copied() -> bool:
        with suppress(Unavailable):
            subject = f"{connection.api}.STREAM.INFO.{stream}"
            answer = await connection.request(f"copy stream {stream}", subject, again=True)
            return not _is_under_way(answer.data)
        return False

    with suppress(TimeoutError):
        async with asyncio.timeout(COPY_LIMIT):
            await until(is_copied)


def _is_under_way(answer: bytes) -> bool:
    """Whether `answer`, about a stream, says that the servers that keep it are not yet those desired."""
    with suppress(ValueError, AttributeError):
        return "desired" in (json.loads(answer).get("cluster") or {})
    return True
