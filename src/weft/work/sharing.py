"""Subscriptions of one member that share a group, put together.

Within a topic, a member has one group for its type, and one for itself: a group has one pattern, and whoever
pulls from it gets whatever comes. So where several functions want events of the same topic, the topic is
subscribed to as a whole, once, and each event is handed to every function that wants it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from weft.events.subscriber import EventHandler, ReceivedEvent
from weft.model.subtopic import REST, TopicPattern, matches, parse_topic_pattern
from weft.model.topic import DEAD_LETTERS, TopicSpec
from weft.work.event_duty import EventDuty


def shared(duties: Sequence[EventDuty]) -> list[EventDuty]:
    """The same duties, but no two of them for one group of one topic. Raises InvalidRequest."""
    found: list[EventDuty] = []
    for every_instance in (False, True):
        alike = [each for each in duties if each.every_instance is every_instance]
        found += [_together(topic, each) for topic, each in _by_topic(alike).items()]
    return found


def _by_topic(duties: Sequence[EventDuty]) -> dict[str, list[EventDuty]]:
    """What to subscribe to, and for whom: by topic; all in one if somebody wants every topic."""
    patterns = {each.topic: parse_topic_pattern(each.topic) for each in duties}
    # Those who want every topic do not mean the dead letters.
    everything = any(not each.topic for each in patterns.values())
    bundles: dict[str, list[EventDuty]] = {}
    for each in duties:
        topic = patterns[each.topic].topic
        key = REST if everything and topic != DEAD_LETTERS else topic
        bundles.setdefault(key, []).append(each)
    return bundles


def _together(topic: str, duties: Sequence[EventDuty]) -> EventDuty:
    if len(duties) == 1:
        return duties[0]
    return EventDuty(
        topic,
        _Everyone(duties),
        every_instance=duties[0].every_instance,
        concurrency=max(each.concurrency for each in duties),
        start=next((each.start for each in duties if each.start is not None), None),
    )


@dataclass(frozen=True, slots=True)
class _Wish:
    """What one duty wants to get, and how."""

    pattern: TopicPattern
    duty: EventDuty
    handler: EventHandler
    slots: asyncio.Semaphore

    def is_of(self, event: ReceivedEvent) -> bool:
        duty = self.duty
        return (
            self.pattern.is_of(event.topic)
            and matches(self.pattern.pattern, event.subtopic)
            and (duty.filter is None or duty.filter.matches(event.event))
        )


@dataclass(frozen=True, slots=True)
class _Everyone:
    """Makes the handler that calls those of all duties."""

    duties: Sequence[EventDuty]

    def __call__(self, spec: TopicSpec) -> EventHandler:
        wishes = [
            _Wish(
                parse_topic_pattern(each.topic),
                each,
                each.handler(spec),
                asyncio.Semaphore(each.concurrency),
            )
            for each in self.duties
        ]

        async def handle(event: ReceivedEvent) -> None:
            for each in _once_each(wish for wish in wishes if wish.is_of(event)):
                async with each.slots:
                    await each.handler(event)

        return handle


def _once_each(wishes: Iterable[_Wish]) -> list[_Wish]:
    """One of those whose duties have the same handler, as all of a sidecar have: it is to be called once."""
    found: list[_Wish] = []
    for each in wishes:
        if all(each.duty.handler != other.duty.handler for other in found):
            found.append(each)
    return found
