"""Topic: a named log of events that every subscribing agent type gets."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, SerializationInfo, SerializerFunctionWrapHandler, model_serializer

from weft.model.redelivery import Backoff, MaxDeliveries, Retention, Visibility
from weft.model.spec import Name, Spec, Text

DEAD_LETTERS = "dead-letters"
"""Where events go that could not be delivered, unless their topic names another. It is always there."""


class TopicSpec(Spec):
    """A topic; metadata.name is the name under which events are published and subscribed to."""

    description: Text = ""
    encrypted: bool = False
    """Payloads are sealed by the publisher for those who may subscribe, so the broker cannot read them."""
    partitions: Annotated[int, Field(ge=0, le=16)] = 0
    """0: events are delivered in any order. Else those with the same key are delivered one after another to
    each subscribing type, which works on so many keys at once. It cannot be changed later."""
    max_age: Retention = 168 * 3600.0
    """How long events are kept, for replay and for subscribers that are behind."""
    max_bytes: Annotated[int, Field(ge=1024 * 1024, le=1024**4)] = 256 * 1024 * 1024
    """The oldest events make room beyond it."""
    visibility_timeout: Visibility = 30.0
    """How long an instance may be silent about an event it got before another gets it."""
    max_deliveries: MaxDeliveries = 5
    """After so many the event goes to the dead letters of the subscribing type."""
    backoff: Backoff = Backoff()
    dead_letter: Name | None = DEAD_LETTERS
    """The topic for events that a subscriber could not process, with the reason; null: they are dropped."""

    @model_serializer(mode="wrap")
    def _with_null(self, write: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        # Elsewhere what is null is not set, and left out.
        written: dict[str, Any] = write(self)
        if self.dead_letter is None:
            written["deadLetter" if info.by_alias else "dead_letter"] = None
        return written
