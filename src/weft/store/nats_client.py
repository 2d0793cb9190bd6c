"""nats-py's client, and what it must be helped with."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress

import nats.errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription

FAILURES = (nats.errors.Error, OSError, EOFError, ValueError, TimeoutError)
"""What nats-py raises when a server is away, breaks off, answers garbage, or has a URL that is none."""

_GOODBYE_LIMIT = 0.5
"""Seconds for the closing of a connection that was never made."""


class TellingClient(Client):
    """nats-py's, that always tells when its connection broke."""

    async def _process_op_err(self, e: Exception) -> None:
        # It would try to write what still waits to be written, fail, and end without a word to anybody.
        self._pending.clear()
        self._pending_data_size = 0
        await super()._process_op_err(e)


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


def heed_cancellation() -> None:
    """End the task if it was cancelled: nats-py keeps some cancellations to itself, as while it hangs up."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("returning true from eof_received()")


# nats-py does not tell asyncio's streams that they are over TLS, of which asyncio then warns at every end.
logging.getLogger("asyncio").addFilter(_is_news)
