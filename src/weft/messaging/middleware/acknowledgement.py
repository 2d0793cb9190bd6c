"""Acknowledging what was processed."""

from __future__ import annotations

import logging

from weft.errors import MeshError
from weft.messaging.broker import Delivery
from weft.messaging.processing import Handle, Middleware

logger = logging.getLogger(__name__)


def acknowledging() -> Middleware:
    """Acknowledge a message when what is inside returns, and not if it raises.

    If the broker does not take the acknowledgement, the message is delivered again, which is logged: what was
    done is done.
    """

    def around(inner: Handle) -> Handle:
        async def handle(delivery: Delivery) -> None:
            await inner(delivery)
            try:
                await delivery.ack()
            except MeshError as error:
                logger.warning(
                    "message %s was processed, but not acknowledged; it comes again: %s",
                    delivery.message.id,
                    error,
                )

        return handle

    return around
