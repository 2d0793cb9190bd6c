"""Topics that a member is to subscribe to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from weft.events.filters import EventFilter
from weft.events.subscriber import EventHandler
from weft.model.topic import TopicSpec


@dataclass(frozen=True, slots=True)
class EventDuty:
    """Topics to subscribe to."""

    topic: str
    """As in `orders`, `orders.*`, `>`."""
    handler: Callable[[TopicSpec], EventHandler]
    """Makes, of the topic as it is declared, what takes its events."""
    every_instance: bool = False
    filter: EventFilter | None = None
    concurrency: int = 8
    start: Mapping[str, float] | None = None
    """Where a new subscription begins: `{"time": seconds}` or `{"sequence": number}`."""
