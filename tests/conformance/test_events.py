"""Events, published and subscribed to, over every broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.conformance.broker_scene import LIMIT, Scene, eventually, pull_one

from weft.errors import InvalidRequest, NotFound, TooMany, Unavailable
from weft.events.binding import to_structured
from weft.events.dead_letters import NO_EVENT_TYPE, SEALED_TYPE, original
from weft.events.filters import EventFilter, parse_filter
from weft.events.publisher import EventPublisher
from weft.events.subscriber import ReceivedEvent, Subscriber
from weft.messaging.broker import ALL, GroupSettings
from weft.messaging.message import Message
from weft.model.cloud_event import Attribute, CloudEvent
from weft.model.redelivery import Backoff
from weft.model.topic import TopicSpec

pytestmark = pytest.mark.asyncio(loop_scope="session")

SOURCE = "spiffe://weft.local/agent/shop/shop-1"
AT_ONCE = Backoff(initial=0.01, factor=1)

Received = list[ReceivedEvent]


class Mirror:
    """A Protection that turns bodies round, so that tests see which were sealed."""

    async def seal(self, *about: object, encrypted: bool) -> bytes:
        body = about[-1]
        assert isinstance(body, bytes)
        return body[::-1] if encrypted else body

    open = seal


class Shop:
    """Topics as they are declared, and subscribers that end with the test."""

    def __init__(self, stage: Scene) -> None:
        self.stage = stage
        self.specs: dict[str, TopicSpec] = {}
        self.publisher = EventPublisher(stage.broker, self.spec, source=SOURCE, protection=Mirror())

    async def spec(self, topic: str) -> TopicSpec:
        try:
            return self.specs[topic]
        except KeyError:
            raise NotFound(f"topic {topic!r} is not declared") from None

    async def topic(self, **spec: Any) -> str:
        """A topic that retries at once, and whose dead letters are dropped unless it says where they go."""
        declared = TopicSpec(**{"backoff": AT_ONCE, "max_deliveries": 3, "dead_letter": None, **spec})
        name = await self.stage.topic(partitions=declared.partitions)
        self.specs[name] = declared
        return name

    @asynccontextmanager
    async def subscribed(
        self,
        topic: str,
        handler: Callable[[ReceivedEvent], Awaitable[None]],
        group: str = "g",
        *,
        pattern: str = "",
        wanted: EventFilter | None = None,
    ) -> AsyncIterator[Subscriber]:
        """A subscriber that runs, of a group that gets all there ever was."""
        await self.stage.broker.declare_group(GroupSettings(topic, group, pattern, ALL))
        subscriber = Subscriber(
            self.stage.broker,
            topic,
            self.specs[topic],
            group,
            handler,
            dead_letters=self.publisher,
            filter=wanted,
            protection=Mirror(),
        )
        running = asyncio.create_task(subscriber.run())
        try:
            yield subscriber
        finally:
            await subscriber.drained(LIMIT)
            async with asyncio.timeout(LIMIT):
                await running

    async def gathered(self, topic: str, count: int, **options: Any) -> Received:
        """The first events that a new group gets, without waiting for more."""
        got: Received = []
        enough = asyncio.Event()

        async def take(received: ReceivedEvent) -> None:
            got.append(received)
            if len(got) >= count:
                enough.set()

        async with self.subscribed(topic, take, **options), asyncio.timeout(LIMIT):
            await enough.wait()
        return got


@pytest.fixture
def shop(stage: Scene) -> Shop:
    return Shop(stage)


async def test_an_event_reaches_every_group_with_its_attributes_trace_and_conversation(shop: Shop) -> None:
    topic = await shop.topic()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    sequence = await shop.publisher.publish(
        f"{topic}.created",
        {"total": 5},
        type="order.created",
        subject="order é 7",
        headers={"traceparent": trace, "x-weft-context": "chat-1", "authorization": "secret"},
        extensions={"region": "eu", "urgent": True},
    )
    for group in ("billing", "shipping"):
        [received] = await shop.gathered(topic, 1, group=group)
        event = received.event
        assert json.loads(event.data or b"") == {"total": 5}
        assert (event.type, event.subject, event.source) == ("order.created", "order é 7", SOURCE)
        assert event.extensions == {"region": "eu", "urgent": "true", "traceparent": trace}
        assert received.name == f"{topic}.created"
        assert received.headers == {"traceparent": trace, "x-weft-context": "chat-1"}
        assert received.deliveries == 1
        # Not all brokers tell it, and RabbitMQ only to who reads again.
        assert not (sequence and received.sequence) or received.sequence == sequence


async def test_a_structured_message_of_somebody_else_is_an_event(shop: Shop) -> None:
    topic = await shop.topic()
    encoded = to_structured(CloudEvent(id="7 é", source="/other", type="t", data=b'{"a":1}'))
    await shop.stage.broker.publish(topic, Message("m", encoded.body, encoded.headers))
    [received] = await shop.gathered(topic, 1)
    assert (received.event.id, received.event.data) == ("7 é", b'{"a":1}')


async def test_patterns_and_filters_let_through_what_they_match(shop: Shop) -> None:
    topic = await shop.topic()
    for place in ("eu", "us"):
        for kind in ("created", "cancelled"):
            await shop.publisher.publish(
                f"{topic}.{kind}.{place}", type=f"order.{kind}", extensions={"region": place}
            )
    await shop.publisher.publish(
        f"{topic}.created.eu", type="order.created", id="last", extensions={"region": "eu"}
    )
    wanted = parse_filter({"exact": {"region": "eu"}})
    got = await shop.gathered(topic, 2, pattern="created.*", wanted=wanted)
    assert [each.name for each in got] == [f"{topic}.created.eu"] * 2
    assert got[1].event.id == "last"


async def test_a_failing_event_is_tried_again_and_then_a_dead_letter_with_its_reason(shop: Shop) -> None:
    graveyard = await shop.topic()
    topic = await shop.topic(dead_letter=graveyard)
    seen: list[int] = []
    others = asyncio.Event()

    async def fail(received: ReceivedEvent) -> None:
        if received.event.id == "good":
            others.set()
            return
        seen.append(received.deliveries)
        raise ValueError("no\nsuch \x07customer €")

    await shop.publisher.publish(
        f"{topic}.created", {"a": 1}, id="bad", subject="x", extensions={"region": "eu"}
    )
    await shop.publisher.publish(topic, id="good")
    async with shop.subscribed(topic, fail, "billing"), asyncio.timeout(LIMIT):
        await others.wait()
        # What is published while a group is made that begins before it may come to that group twice.
        dead = (await shop.gathered(graveyard, 1))[0]
    assert seen == [1, 2, 3]
    assert dead.subtopic == f"{topic}.billing"
    letter = dead.event
    about = {name: value for name, value in letter.extensions.items() if name.startswith("weft")}
    assert about.pop("weftsequence", "1") == "1"
    assert about == {
        "wefttopic": topic,
        "weftsubtopic": "created",
        "weftgroup": "billing",
        "weftreason": "ValueError: no such  customer €",
        "weftdeliveries": "3",
    }
    assert (letter.id, letter.source, letter.subject, letter.data) == ("bad", SOURCE, "x", b'{"a":1}')
    assert original(letter).extensions == {"region": "eu"}


async def test_what_is_no_event_is_a_dead_letter_at_once(shop: Shop) -> None:
    graveyard = await shop.topic()
    topic = await shop.topic(dead_letter=graveyard)
    headers = {"content-type": "text/plain", "ce-id": "1"}
    await shop.stage.broker.publish(topic, Message("garbage-1", b"\x00garbage", headers))

    async with shop.subscribed(topic, _never):
        # What is published while a group is made that begins before it may come to that group twice.
        dead = (await shop.gathered(graveyard, 1))[0]
    assert (dead.event.id, dead.event.type, dead.event.data) == ("garbage-1", NO_EVENT_TYPE, b"\x00garbage")
    assert dead.event.extensions["weftreason"].startswith("invalid-request: ")
    assert dead.event.extensions["weftdeliveries"] == "1"


async def test_an_event_waits_for_a_dead_letter_topic_that_cannot_take_it(shop: Shop) -> None:
    topic = await shop.topic(dead_letter="graveyard-yet-to-be")
    await shop.publisher.publish(topic, id="bad")
    tried: list[int] = []

    async def fail(received: ReceivedEvent) -> None:
        tried.append(received.deliveries)
        raise InvalidRequest("not this one")

    async with shop.subscribed(topic, fail):
        await eventually(lambda: _holds(lambda: max(tried, default=0) > 1))
        graveyard = await shop.topic()
        shop.specs[topic] = shop.specs[topic].model_copy(update={"dead_letter": graveyard})
    async with shop.subscribed(topic, fail):
        # What is published while a group is made that begins before it may come to that group twice.
        dead = (await shop.gathered(graveyard, 1))[0]
    assert dead.event.id == "bad"


async def test_a_large_event_leaves_behind_what_does_not_fit_into_its_dead_letter(shop: Shop) -> None:
    graveyard = await shop.topic()
    topic = await shop.topic(dead_letter=graveyard)
    extensions: dict[str, Attribute] = {f"x{number}": "y" * 2000 for number in range(7)}
    await shop.publisher.publish(topic, b"z" * 900 * 1024, id="large", extensions=extensions)

    async def fail(received: ReceivedEvent) -> None:
        raise InvalidRequest("€" * 500)

    async with shop.subscribed(topic, fail):
        # What is published while a group is made that begins before it may come to that group twice.
        dead = (await shop.gathered(graveyard, 1))[0]
    assert dead.event.id == "large"
    assert len(dead.event.data or b"") == 900 * 1024
    assert dead.event.extensions["wefttopic"] == topic


async def test_dead_letters_of_the_dead_letter_topic_are_dropped(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    graveyard = await shop.topic()
    shop.specs[graveyard] = shop.specs[graveyard].model_copy(update={"dead_letter": graveyard})
    topic = await shop.topic(dead_letter=graveyard)

    async def fail(received: ReceivedEvent) -> None:
        raise InvalidRequest("never")

    await shop.publisher.publish(topic, id="bad")
    async with shop.subscribed(topic, fail), shop.subscribed(graveyard, fail):
        await eventually(lambda: _holds(lambda: "dropped message bad" in caplog.text))


async def test_a_handler_that_is_busy_is_asked_again_without_a_delivery_more(shop: Shop) -> None:
    topic = await shop.topic()
    await shop.publisher.publish(topic)
    seen: list[int] = []
    done = asyncio.Event()

    async def busy(received: ReceivedEvent) -> None:
        seen.append(received.deliveries)
        if len(seen) < 3:
            raise TooMany("busy", retry_after=0.01)
        done.set()

    async with shop.subscribed(topic, busy), asyncio.timeout(LIMIT):
        await done.wait()
    assert seen == [1, 1, 1]


async def test_a_handler_that_wants_an_event_much_later_does_not_have_it_held_here(shop: Shop) -> None:
    topic = await shop.topic()
    await shop.publisher.publish(topic, id="later")
    postponed, other = asyncio.Event(), asyncio.Event()

    async def busy(received: ReceivedEvent) -> None:
        if received.event.id == "later":
            postponed.set()
            raise TooMany("busy", retry_after=3600)
        other.set()

    async with shop.subscribed(topic, busy) as subscriber, asyncio.timeout(LIMIT):
        await postponed.wait()
        await eventually(lambda: _holds(lambda: subscriber.in_flight == 0))
        await shop.publisher.publish(topic)
        await other.wait()


async def test_events_of_one_key_stay_in_order_though_one_fails_for_a_while(shop: Shop) -> None:
    topic = await shop.topic(partitions=4, max_deliveries=3)
    for number in range(12):
        await shop.publisher.publish(topic, number, key=f"customer-{number % 3}")
    got: dict[str, list[int]] = {}
    failed: set[str] = set()
    enough = asyncio.Event()

    async def flaky(received: ReceivedEvent) -> None:
        key = received.event.extensions["partitionkey"]
        if key not in failed:
            failed.add(key)
            raise Unavailable("the database is away")
        got.setdefault(key, []).append(json.loads(received.event.data or b""))
        if sum(map(len, got.values())) == 12:
            enough.set()

    async with shop.subscribed(topic, flaky), asyncio.timeout(LIMIT):
        await enough.wait()
    assert got == {f"customer-{key}": list(range(key, 12, 3)) for key in range(3)}


async def test_encrypted_events_show_nothing_to_the_broker_and_nothing_to_open_dead_letters(
    shop: Shop,
) -> None:
    graveyard = await shop.topic()
    topic = await shop.topic(encrypted=True, dead_letter=graveyard)
    listener = await shop.stage.listener(topic, "spy")
    await shop.publisher.publish(topic, {"a": 1}, id="e1", subject="confidential")
    message = (await pull_one(listener)).message
    assert b"confidential" not in message.body
    assert set(message.headers) == {"content-type"}
    [received] = await shop.gathered(topic, 1)
    assert (received.event.id, received.event.subject) == ("e1", "confidential")

    async def fail(received: ReceivedEvent) -> None:
        raise InvalidRequest("confidential, too")

    async with shop.subscribed(topic, fail, "billing"):
        # What is published while a group is made that begins before it may come to that group twice.
        dead = (await shop.gathered(graveyard, 1))[0]
    assert (dead.event.type, dead.event.data) == (SEALED_TYPE, None)
    assert "confidential" not in repr(dead.event)
    assert dead.event.extensions["weftreason"] == "invalid-request"


async def test_a_plain_event_in_an_encrypted_topic_is_not_believed(shop: Shop) -> None:
    topic = await shop.topic(encrypted=True)
    await shop.stage.broker.publish(
        topic,
        Message("forged", b"", {"ce-specversion": "1.0", "ce-id": "f", "ce-source": "/", "ce-type": "t"}),
    )
    await shop.publisher.publish(topic, id="real")
    [received] = await shop.gathered(topic, 1)
    assert received.event.id == "real"


async def test_draining_finishes_what_is_under_way_and_takes_no_more(shop: Shop) -> None:
    topic = await shop.topic(partitions=1)
    started, go_on = asyncio.Event(), asyncio.Event()
    done: list[str] = []

    async def slow(received: ReceivedEvent) -> None:
        started.set()
        await go_on.wait()
        done.append(received.event.id)

    for name in ("first", "second"):
        await shop.publisher.publish(topic, id=name, key="k")
    async with shop.subscribed(topic, slow) as subscriber, asyncio.timeout(LIMIT):
        await started.wait()
        subscriber.drain()
        go_on.set()
    assert done == ["first"]
    [received] = await shop.gathered(topic, 1)
    assert received.event.id == "second"


async def test_what_cannot_be_published_is_refused(shop: Shop) -> None:
    topic = await shop.topic()
    with pytest.raises(NotFound):
        await shop.publisher.publish("no-such-topic")
    for wrong in (float("nan"), object(), b"x" * 2**20, "\ud800"):
        with pytest.raises(InvalidRequest):
            await shop.publisher.publish(topic, wrong)
    with pytest.raises(InvalidRequest):
        await shop.publisher.publish(topic, extensions={"Name": "x"})
    for name in ("UPPER", f"{topic}.", f"{topic}.*"):
        with pytest.raises(InvalidRequest):
            await shop.publisher.publish(name)


async def _holds(condition: Callable[[], bool]) -> bool:
    return condition()


async def _never(received: ReceivedEvent) -> None:
    raise AssertionError("nothing was to come here")
