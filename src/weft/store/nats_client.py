"""nats-py's client, and what it must be helped with."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from weft.aio.cancellation import cancellation_kept

FAILURES = (nats.errors.Error, OSError, EOFError, ValueError, TimeoutError)
"""What nats-py raises when a server is away, breaks off, answers garbage, or has a URL that is none."""

_GOODBYE_LIMIT = 0.5
"""Seconds for the closing of a connection that was never made."""


class TellingClient(Client):
    """nats-py's, that always tells when its connection broke, and whose callers can be cancelled.

    Its own methods keep some cancellations to themselves: what waits for the server by asyncio.wait_for, and
    what catches CancelledError, as flushing and hanging up do.
    """

    @property
    def clustered(self) -> bool:
        """Whether its server is one of several."""
        return bool(self._server_info.get("cluster"))

    async def connect(self, *arguments: Any, **options: Any) -> None:
        """As nats-py's."""
        with cancellation_kept():
            await super().connect(*arguments, **options)

    async def close(self) -> None:
        """As nats-py's."""
        with cancellation_kept():
            await super().close()

    async def request(self, *arguments: Any, **options: Any) -> Msg:
        """As nats-py's, and JetStream's is by this."""
        with cancellation_kept():
            return await super().request(*arguments, **options)

    async def flush(self, *arguments: Any, **options: Any) -> None:
        """As nats-py's."""
        with cancellation_kept():
            await super().flush(*arguments, **options)

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        with cancellation_kept():
            return await super()._flush_pending(force_flush)

    async def _process_op_err(self, e: Exception) -> None:
        # It would try to write what still waits to be written, fail, and end without a word to anybody.
        self._pending.clear()
        self._pending_data_size = 0
        self._hang_up()
        await super()._process_op_err(e)

    def _hang_up(self) -> None:
        """Close a broken connection without a farewell.

        TLS waits 30 seconds for the answer to one, and tells of the end only then: no answer comes from a
        machine that is gone, or frozen.
        """
        writer = getattr(self._transport, "_io_writer", None)
        if isinstance(writer, asyncio.StreamWriter):
            writer.transport.abort()


async def unsubscribe(subscriptions: Iterable[Subscription]) -> None:
    """End subscriptions, if their connection is still there."""
    with suppress(*FAILURES):
        for each in subscriptions:
            await each.unsubscribe()


async def give_up(client: Client) -> None:
    """Close a client's connection, in whichever state it is, within half a second."""
    # Where the TLS handshake failed, or the server hung up, nobody tells nats-py that the connection is gone,
    # and it waits for ever.
    with suppress(*FAILURES):
        async with asyncio.timeout(_GOODBYE_LIMIT):
            await client.close()


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("returning true from eof_received()")


# nats-py does not tell asyncio's streams that they are over TLS, of which asyncio then warns at every end.
logging.getLogger("asyncio").addFilter(_is_news)
