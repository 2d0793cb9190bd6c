"""Making quorum queues that are there for good.

RabbitMQ (3.10) keeps the latest entry of its register of quorum queues in memory, for about a second or until
the next one is made. Killed before that, it has a queue afterwards that answers nobody, and what that queue
had confirmed is lost.
"""

from __future__ import annotations

import secrets
from typing import Any

from aiormq.abc import AbstractChannel

QUORUM: dict[str, Any] = {"x-queue-type": "quorum"}

# RabbitMQ 4 throws away what came back 20 times, unless it is told otherwise.
NEVER_GIVEN_UP: dict[str, Any] = {**QUORUM, "x-delivery-limit": 1_000_000_000}

_EXPIRES = 60_000
"""Milliseconds after which the other queue goes by itself, if who made it dies midway."""


async def have_for_good(channel: AbstractChannel, queue: str) -> None:
    """Have the register keep `queue`, which was made just now, by making another one for a moment."""
    # Not one that is there: somebody else may be doing the same, or have died over it.
    other = f"{queue}.made.{secrets.token_hex(4)}"
    await channel.queue_declare(other, durable=True, arguments={**QUORUM, "x-expires": _EXPIRES})
    await channel.queue_delete(other)
