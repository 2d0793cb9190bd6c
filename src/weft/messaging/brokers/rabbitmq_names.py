"""What everything is called in RabbitMQ.

Queues and topics have names without dots; so a dot ends every part of these names.
"""

from __future__ import annotations

from dataclasses import dataclass

from weft.messaging.broker import Priority
from weft.model.subtopic import ONLY_ROOT, REST


@dataclass(frozen=True, slots=True)
class Line:
    """A queue, or a group of a topic, as far as both are the same: queues of RabbitMQ, beside delays."""

    what: str
    """What errors call it."""
    base: str
    """What the names of its queues begin with."""
    key: str
    """One word of routing keys."""
    settings: str
    """Where its settings are."""
    lanes: tuple[str, ...]
    """Its queues, by lane or partition."""

    def delay(self, level: int) -> str:
        """The queue of those that wait for so many milliseconds."""
        return f"{self.base}.delay.{level}"

    def delay_key(self, level: int | str, lane: int | str) -> str:
        """The routing key of what waits for so long, and comes to that lane then; `*` for any."""
        return f"{self.key}.{level}.{lane}"


@dataclass(frozen=True, slots=True)
class Names:
    """All that begins with one prefix."""

    prefix: str

    @property
    def delays(self) -> str:
        """The exchange before the queues of those that wait."""
        return f"{self.prefix}.delay"

    @property
    def due(self) -> str:
        """The exchange behind them."""
        return f"{self.prefix}.due"

    def queue(self, name: str) -> Line:
        """A queue."""
        base = f"{self.prefix}.q.{name}"
        lanes = tuple(f"{base}.{lane.value}" for lane in Priority)
        return Line(f"queue {name!r}", base, f"q/{name}", f"{base}.settings", lanes)

    def dead(self, name: str) -> str:
        """The dead letters of a queue."""
        return f"{self.prefix}.q.{name}.dead"

    def topic(self, name: str) -> str:
        """The exchange of a topic."""
        return f"{self.prefix}.t.{name}"

    def log(self, topic: str) -> str:
        """The stream of a topic."""
        return f"{self.topic(topic)}.log"

    def topic_settings(self, topic: str) -> str:
        """The settings of a topic and its groups."""
        return f"{self.topic(topic)}.settings"

    def group(self, topic: str, name: str, partitions: int) -> Line:
        """A group of a topic."""
        base = f"{self.topic(topic)}.g.{name}"
        lanes = tuple(f"{base}.{number}" for number in range(max(partitions, 1)))
        what = f"group {name!r} of topic {topic!r}"
        return Line(what, base, f"g/{topic}/{name}", self.topic_settings(topic), lanes)


def replay_of(lane: str) -> str:
    """What a new group gets out of the past before it gets what is in `lane`."""
    return f"{lane}.replay"


def routing_key(subtopic: str, partition: int) -> str:
    """Of a message in its topic's exchange."""
    return f"{partition}.{subtopic}" if subtopic else str(partition)


def binding_key(pattern: str, partition: int) -> str:
    """What matches the messages of a partition with subtopics of that pattern."""
    if not pattern:
        return f"{partition}.#"
    if pattern == ONLY_ROOT:
        return str(partition)
    tokens = pattern.split(".")
    if tokens[-1] == REST:
        tokens[-1:] = ["*", "#"]
    return ".".join((str(partition), *tokens))
