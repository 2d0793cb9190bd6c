"""What becomes of a message whose processing failed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from weft.errors import InvalidRequest, MeshError
from weft.messaging.broker import Delivery
from weft.messaging.middleware.extension import LeaseLost
from weft.messaging.processing import Handle, Middleware, hand_back

logger = logging.getLogger(__name__)

GiveUp = Callable[[Delivery, BaseException], Awaitable[None]]
"""Does what is to be done about a message that is not tried again: it dead-letters or acknowledges it."""


class TooManyDeliveries(MeshError):
    """The message was delivered as often as it may be, and nobody said what became of it: maybe each died."""

    code = "too-many-deliveries"


def retrying(backoff: Callable[[int], float], max_deliveries: int, give_up: GiveUp) -> Middleware:
    """Have a message whose processing raised delivered again, after `backoff(deliveries)` seconds.

    After `max_deliveries`, or at once if InvalidRequest says that another time won't help, it is given up. So
    is, unseen, one that comes more often: whoever had it did not live to tell. If giving up fails, that is
    tried again after such a pause. A cancelled one is given back at once, which counts as a delivery. About
    one whose lease was lost nothing is done: somebody else has it.
    """

    return lambda inner: _Retrying(inner, backoff, max_deliveries, give_up).handle


class _Retrying:
    def __init__(
        self, inner: Handle, backoff: Callable[[int], float], max_deliveries: int, give_up: GiveUp
    ) -> None:
        self._inner = inner
        self._backoff = backoff
        self._max_deliveries = max_deliveries
        self._give_up = give_up

    async def handle(self, delivery: Delivery) -> None:
        try:
            if delivery.deliveries > self._max_deliveries:
                await self._end(delivery, _died(delivery))
            else:
                await self._inner(delivery)
        except asyncio.CancelledError:
            await hand_back(delivery)
            raise
        except LeaseLost as error:
            logger.warning("%s", error)
        except Exception as error:  # noqa: BLE001 -- whatever a handler raises is a failed attempt
            await self._note_failure(delivery, error)

    async def _note_failure(self, delivery: Delivery, error: Exception) -> None:
        if isinstance(error, InvalidRequest) or delivery.deliveries >= self._max_deliveries:
            await self._end(delivery, error)
            return
        logger.info("message %s failed at delivery %d: %r", delivery.message.id, delivery.deliveries, error)
        await hand_back(delivery, self._backoff(delivery.deliveries))

    async def _end(self, delivery: Delivery, error: Exception) -> None:
        logger.warning("message %s is given up: %r", delivery.message.id, error)
        try:
            await self._give_up(delivery, error)
        except Exception as failure:  # noqa: BLE001 -- as of a handler: nobody else could do anything about it
            logger.warning("message %s could not be given up yet: %r", delivery.message.id, failure)
            await hand_back(delivery, self._backoff(delivery.deliveries))


def _died(delivery: Delivery) -> TooManyDeliveries:
    return TooManyDeliveries(
        f"message {delivery.message.id} was delivered {delivery.deliveries - 1} times, and none of those who "
        "had it said what became of it"
    )
