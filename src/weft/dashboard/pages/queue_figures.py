"""Queues, topics and dead letters as the API tells them, made into rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weft.dashboard import quantities

MAX_BODY = 4000
"""Characters of a message's body that are shown."""

_LOOKS = 4
"""That are kept beside the last one: what is done comes in bursts."""


@dataclass(frozen=True, slots=True)
class Look:
    """How queues stood at a time."""

    at: float
    """Seconds on any clock that only goes forward."""
    queues: Mapping[str, Mapping[str, Any]]
    """As the API told them, by name."""


def look(at: float, queues: Iterable[Mapping[str, Any]]) -> Look:
    """How they stand, for the next look to compare with."""
    return Look(at, {each["name"]: each for each in queues})


def done_rate(name: str, earlier: Look | None, now: Look) -> float | None:
    """Tasks of a queue that were done with in a second between two looks, however they ended.

    None where its broker does not count what comes in, or there is no earlier look.
    """
    before = earlier.queues.get(name) if earlier is not None else None
    after = now.queues.get(name)
    if earlier is None or before is None or after is None or now.at <= earlier.at:
        return None
    if before["enqueuedTotal"] is None or after["enqueuedTotal"] is None:
        return None
    came = after["enqueuedTotal"] - before["enqueuedTotal"]
    left = came - (_inside(after) - _inside(before))
    return max(0.0, left / (now.at - earlier.at)) if came >= 0 else None


class QueueLooks:
    """Queues, each time compared with a while ago."""

    def __init__(self) -> None:
        self._looks: list[Look] = []

    def rows(self, queues: Sequence[Mapping[str, Any]], at: float) -> list[dict[str, Any]]:
        """A row for each, with what was done a second since the oldest look that is kept; `at` as in Look."""
        now = look(at, queues)
        earlier = self._looks[0] if self._looks else None
        self._looks = [*self._looks[-_LOOKS:], now]
        return [queue_row(each, done_rate(each["name"], earlier, now)) for each in queues]


def queue_row(queue: Mapping[str, Any], done: float | None) -> dict[str, Any]:
    """A row for a queue; `done` is its `done_rate`."""
    depth = queue["ready"] + queue["delayed"]
    return {
        "id": queue["name"],
        "name": queue["name"],
        "depth": depth,
        "ready": queue["ready"],
        "delayed": queue["delayed"],
        "running": queue["inFlight"],
        "dead": queue["dead"],
        "deadTone": "bad" if queue["dead"] else "muted",
        "oldest": queue["oldestAge"],
        "arriving": queue["arrivalRate"],
        "done": done,
        "service": queue["serviceTime"],
        "workers": queue["desiredWorkers"],
        "full": (depth + queue["inFlight"]) / queue["maxLength"],
    }


def topic_row(topic: Mapping[str, Any]) -> dict[str, Any]:
    """A row for a topic: the group that is furthest behind tells how far."""
    groups = topic["groups"]
    return {
        "id": topic["name"],
        "name": topic["name"],
        "messages": topic["messages"],
        "size": quantities.size(topic["size"]),
        "last": topic["lastSequence"],
        "groups": len(groups),
        "lag": max((each["pending"] for each in groups), default=0),
        "inFlight": sum(each["inFlight"] for each in groups),
    }


def group_rows(topics: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each group of each topic, those furthest behind first."""
    rows = [
        {
            "id": f"{topic['name']}/{group['name']}",
            "topic": topic["name"],
            "group": group["name"],
            "lag": group["pending"],
            "inFlight": group["inFlight"],
        }
        for topic in topics
        for group in topic["groups"]
    ]
    return sorted(rows, key=lambda each: (-each["lag"], each["id"]))


def dead_task_row(message: Mapping[str, Any]) -> dict[str, Any]:
    """A row for a dead letter of a queue."""
    return {
        "id": message["id"],
        "reason": message["reason"],
        "priority": message["priority"],
        "sent": message["sentAt"],
    }


def dead_event_row(item: Mapping[str, Any]) -> dict[str, Any]:
    """A row for a dead letter of a topic: which event, who could not process it, and why."""
    event = item["event"]
    topic, group = str(event.get("wefttopic") or ""), str(event.get("weftgroup") or "")
    return {
        "id": f"{item['topic']}/{item['sequence']}",
        "sequence": item["sequence"],
        "topic": topic or str(item["topic"]),
        "group": group or str(item["topic"]).rpartition(".")[2],
        "type": str(event.get("type") or ("encrypted" if event.get("encrypted") else "")),
        "reason": str(event.get("weftreason") or ""),
        "published": item["publishedAt"],
    }


def body_text(message: Mapping[str, Any]) -> str:
    """The body of a message, as far as it is shown."""
    text = message.get("body")
    if text is None:
        return f"{len(message.get('bodyBase64') or '') * 3 // 4} bytes that are no text"
    return str(text) if len(text) <= MAX_BODY else f"{text[:MAX_BODY]}… ({len(text):,} characters)"


def _inside(queue: Mapping[str, Any]) -> int:
    return int(queue["ready"] + queue["inFlight"] + queue["delayed"])
