"""A limit to how long one message is worked on."""

from __future__ import annotations

import asyncio

from weft.errors import TimedOut
from weft.messaging.broker import Delivery
from weft.messaging.processing import Handle, Middleware


def time_limited(seconds: float) -> Middleware:
    """Cancel what is inside after so many seconds, and raise TimedOut."""

    def around(inner: Handle) -> Handle:
        async def handle(delivery: Delivery) -> None:
            limit = asyncio.timeout(seconds)
            try:
                async with limit:
                    await inner(delivery)
            except TimeoutError:
                if not limit.expired():
                    raise
                raise TimedOut(
                    f"message {delivery.message.id} was not processed within {seconds:g} s, "
                    f"at delivery {delivery.deliveries}"
                ) from None

        return handle

    return around
