"""What happens to messages that could not be processed: as Topics and Queues declare it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from weft.model.duration import Duration, between
from weft.model.spec import Spec

Pause = Annotated[Duration, AfterValidator(between("0s", "24h"))]

MaxDeliveries = Annotated[int, Field(ge=1, le=1000)]
"""How often a message is delivered before it is given up."""

Visibility = Annotated[Duration, AfterValidator(between("1s", "12h"))]
"""Seconds after which what a consumer took and neither finished nor extended is delivered again."""

Retention = Annotated[Duration, AfterValidator(between("1s", "720h"))]
"""Seconds that something is kept, up to 30 days."""


class Backoff(Spec):
    """Pauses between deliveries of a message whose processing failed."""

    initial: Pause = 1.0
    """Before the second delivery."""
    factor: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)] = 2.0
    """How many times longer each pause is than the one before."""
    longest: Pause = 300.0

    def pause(self, deliveries: int) -> float:
        """Seconds after the delivery of that number, counted from 1, has failed."""
        try:
            return min(self.initial * self.factor ** (deliveries - 1), self.longest)
        except OverflowError:
            return self.longest
