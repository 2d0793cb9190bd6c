"""What members do of their own accord: which subscriptions there are, and who gets an event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from weft.errors import InvalidRequest, MeshError
from weft.events.filters import parse_filter
from weft.events.subscriber import EventHandler, ReceivedEvent
from weft.model.cloud_event import CloudEvent
from weft.model.topic import TopicSpec
from weft.work.event_duty import EventDuty
from weft.work.sharing import shared

SPEC = TopicSpec()


def event(name: str, kind: str = "t") -> ReceivedEvent:
    topic, _, subtopic = name.partition(".")
    return ReceivedEvent(CloudEvent(id="1", source="/a", type=kind), topic, subtopic)


def duty(topic: str, got: list[str] | None = None, name: str = "", **options: Any) -> EventDuty:
    """A duty that notes who got what."""

    def handler(_: TopicSpec) -> EventHandler:
        async def handle(event: ReceivedEvent) -> None:
            if got is not None:
                got.append(f"{name}<{event.name}")

        return handle

    return EventDuty(topic, handler, **options)


def topics(*duties: EventDuty) -> list[str]:
    return sorted(each.topic for each in shared(duties))


def test_duties_that_share_no_group_stay_as_they_are() -> None:
    apart = [duty("orders.created"), duty("bills.>"), duty("orders.*", every_instance=True)]
    assert shared(apart) == apart


def test_duties_of_one_topic_are_one_subscription_to_all_of_it() -> None:
    assert topics(duty("orders.created"), duty("orders.paid"), duty("bills.paid")) == ["bills.paid", "orders"]


def test_whoever_wants_every_topic_leaves_one_subscription_but_for_dead_letters() -> None:
    assert topics(duty("*.failed"), duty("orders.paid"), duty("dead-letters")) == [">", "dead-letters"]
    assert topics(duty("*.failed"), duty("dead-letters")) == ["*.failed", "dead-letters"]


def test_a_shared_subscription_begins_where_the_first_says_that_says_so() -> None:
    first, second = duty("orders.a"), duty("orders.b", start={"sequence": 7})
    (both,) = shared([first, second, duty("orders.c", start={"time": 1.0})])
    assert both.start == {"sequence": 7}


async def test_an_event_of_a_shared_subscription_reaches_all_who_want_it_and_nobody_else() -> None:
    got: list[str] = []
    paid = parse_filter({"exact": {"type": "paid"}})
    (one,) = shared(
        [
            duty("orders.created", got, "created"),
            duty("orders.>", got, "paid", filter=paid),
            duty("*.created", got, "any"),
            duty("bills", got, "bills"),
        ]
    )
    handle = one.handler(SPEC)
    for each in (event("orders.created"), event("orders.done", "paid"), event("orders"), event("bills.x")):
        await handle(each)
    assert got == ["created<orders.created", "any<orders.created", "paid<orders.done", "bills<bills.x"]


async def test_one_handler_gets_an_event_once_however_often_it_is_subscribed() -> None:
    got: list[str] = []
    same = duty("orders.*", got).handler
    (one,) = shared([EventDuty("orders.*", same), EventDuty("orders.created", same)])
    await one.handler(SPEC)(event("orders.created"))
    assert got == ["<orders.created"]


async def test_each_who_shares_a_subscription_has_no_more_events_at_once_than_it_asked_for() -> None:
    at_once, most = 0, 0
    go_on = asyncio.Event()

    async def handle(_: ReceivedEvent) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await go_on.wait()
        at_once -= 1

    careful: Callable[[TopicSpec], EventHandler] = lambda _: handle  # noqa: E731
    (one,) = shared([EventDuty("orders.a", careful, concurrency=1), duty("orders.b", concurrency=4)])
    assert one.concurrency == 4
    shared_handler = one.handler(SPEC)
    handled = asyncio.gather(*(shared_handler(event("orders.a")) for _ in range(4)))
    for _ in range(10):  # so that all had their turn
        await asyncio.sleep(0)
    go_on.set()
    await handled
    assert most == 1


async def test_what_fails_for_one_fails_for_all_and_comes_again() -> None:
    async def fail(_: ReceivedEvent) -> None:
        raise MeshError("not now")

    (one,) = shared([EventDuty("orders.a", lambda _: fail), duty("orders.>")])
    with pytest.raises(MeshError, match="not now"):
        await one.handler(SPEC)(event("orders.a"))


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        shared([duty("orders.")])
