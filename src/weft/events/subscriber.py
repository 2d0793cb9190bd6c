"""Handing the events of a topic to one handler, as a member of a group.

What a handler raises decides what becomes of the event:

| raised | event |
|---|---|
| nothing | done with |
| TooMany, Refused | tried again by this subscriber for some seconds, then comes again |
| InvalidRequest | dead letter at once |
| anything else | comes again after the topic's back-off |

What was delivered `max_deliveries` times, for whatever reason, is a dead letter when that fails, too.

An event that cannot be put into the dead-letter topic comes again, until it can: nothing is lost. In a topic
with partitions an event that fails holds back its own partition only, until it is done with or given up.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from weft.aio.backoff import backoff
from weft.errors import InvalidRequest, MeshError, NotFound, Refused, TooMany, Unavailable
from weft.events.dead_letters import DeadLetters
from weft.events.filters import EventFilter
from weft.events.json_format import is_json
from weft.events.publisher import EventPublisher
from weft.events.wire import event_in, passed_on
from weft.messaging.broker import Broker, Consumer, Delivery
from weft.messaging.middleware import acknowledging, extending, retrying
from weft.messaging.processing import Handle, Middleware, Processor, hand_back, stacked
from weft.messaging.protection import NoProtection, Protection
from weft.model.cloud_event import CloudEvent
from weft.model.topic import TopicSpec

logger = logging.getLogger(__name__)

DEFAULT_CONCURRENCY = 8
"""Events that one subscriber has under way."""

LONGEST_POSTPONEMENT = 300.0
"""Seconds after which an event comes again at the latest, whatever its handler asks for."""

PATIENCE = 15.0
"""Seconds for which an event is kept whose handler is busy, or away: so a restart costs it no delivery."""

_SHORTEST_WAIT = 0.1


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """An event, and how it came."""

    event: CloudEvent
    topic: str
    subtopic: str = ""
    """Empty if it was published to the topic itself."""
    sequence: int = 0
    """Its place in the topic; 0 where the broker does not tell."""
    deliveries: int = 1
    """How often it has been delivered to the group, this time included."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Trace and conversation, which calls made for this event pass on."""

    @property
    def name(self) -> str:
        """Topic and subtopic, as in `orders.created`."""
        return f"{self.topic}.{self.subtopic}" if self.subtopic else self.topic

    @property
    def data(self) -> Any:
        """What the event says: JSON types if its media type is one of JSON's, else bytes; None if nothing.

        Raises InvalidRequest if that is no JSON: trying again will not help.
        """
        event = self.event
        if event.data is None or not is_json(event.datacontenttype):
            return event.data
        try:
            return json.loads(event.data)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"the data of event {event.id[:100]!r} is no JSON: {error}") from error


EventHandler = Callable[[ReceivedEvent], Awaitable[None]]


class Subscriber:
    """Takes events for one group of a topic until it is told to drain."""

    def __init__(
        self,
        broker: Broker,
        topic: str,
        spec: TopicSpec,
        group: str,
        handler: EventHandler,
        *,
        dead_letters: EventPublisher,
        filter: EventFilter | None = None,  # noqa: A002 -- what it is called everywhere
        concurrency: int = DEFAULT_CONCURRENCY,
        protection: Protection | None = None,
        middleware: Sequence[Middleware] = (),
    ) -> None:
        """`group` must be declared when it runs; `dead_letters` publishes what could not be processed.

        Events that `filter` does not match are done with unseen. At most `concurrency` are under way.
        `middleware` (such as `measured`) is put around each delivery.
        """
        self._broker = broker
        self._topic = topic
        self._spec = spec
        self._group = group
        self._handler = handler
        self._dead_letters = DeadLetters(dead_letters, topic, spec, group)
        self._filter = filter
        self._concurrency = concurrency
        self._protection = protection or NoProtection()
        self._middleware = middleware
        self._processor: Processor | None = None
        self._paused = False
        self._draining = asyncio.Event()

    async def run(self) -> None:
        """Take events until drained. Waits for a broker that cannot be reached.

        Raises NotFound if the topic or the group is not declared, Denied where it may not be taken from.
        """
        consumer = await self._open()
        if consumer is None:
            return
        try:
            name = f"events of {self._topic} for {self._group}"
            self._processor = Processor(consumer, self._stack(), concurrency=self._concurrency, name=name)
            if self._paused:
                self._processor.pause()
            if self._draining.is_set():
                self._processor.drain()
            await self._processor.run()
        finally:
            await consumer.aclose()

    def pause(self) -> None:
        """Take no more events until `resume`; those under way go on."""
        self._paused = True
        if self._processor is not None:
            self._processor.pause()

    def resume(self) -> None:
        """Take events again."""
        self._paused = False
        if self._processor is not None:
            self._processor.resume()

    def drain(self) -> None:
        """Take no more events."""
        self._draining.set()
        if self._processor is not None:
            self._processor.drain()

    async def drained(self, timeout: float) -> None:
        """Wait until what is under way is done with; after `timeout` seconds cancel it: it comes again."""
        if self._processor is not None:
            await self._processor.drained(timeout)

    @property
    def in_flight(self) -> int:
        """Events under way."""
        return 0 if self._processor is None else self._processor.in_flight

    async def _open(self) -> Consumer | None:
        """The group's consumer; None if drained meanwhile."""
        for pause in backoff(longest=5.0):
            try:
                return await self._broker.group_consumer(self._topic, self._group)
            except Unavailable as error:
                logger.warning("cannot take events of topic %r yet: %s", self._topic, error.detail)
            try:
                async with asyncio.timeout(pause):
                    await self._draining.wait()
            except TimeoutError:
                continue
            break
        return None

    def _stack(self) -> Handle:
        spec = self._spec
        return stacked(
            self._process,
            retrying(spec.backoff.pause, spec.max_deliveries, self._give_up),
            self._postponing,
            *self._middleware,
            acknowledging(),
            extending(spec.visibility_timeout / 3),
            self._patient,
        )

    async def _process(self, delivery: Delivery) -> None:
        event = await self._read(delivery)
        if self._filter is not None and not self._filter.matches(event):
            return
        received = ReceivedEvent(
            event=event,
            topic=self._topic,
            subtopic=delivery.subtopic,
            sequence=delivery.sequence,
            deliveries=delivery.deliveries,
            headers=passed_on(event, delivery.message),
        )
        await self._handler(received)

    async def _read(self, delivery: Delivery) -> CloudEvent:
        """The event of a delivery. Raises InvalidRequest if there is none, Refused for want of its key."""
        try:
            return await event_in(
                delivery.message, self._topic, self._protection, encrypted=self._spec.encrypted
            )
        except (Unavailable, NotFound) as error:
            raise Refused(error.detail) from error

    def _patient(self, handle: Handle) -> Handle:
        """Wait here for a handler that is busy or away, if that does not take long."""

        async def patient(delivery: Delivery) -> None:
            clock = asyncio.get_running_loop().time
            patience_ends = clock() + PATIENCE
            pauses = backoff(first=0.2, longest=2.0)
            while True:
                try:
                    return await handle(delivery)
                except (TooMany, Refused) as error:
                    pause = max(_SHORTEST_WAIT, _asked_for(error) or next(pauses))
                    if clock() + pause > patience_ends:
                        raise
                await asyncio.sleep(pause)

        return patient

    def _postponing(self, handle: Handle) -> Handle:
        """Have what is postponed delivered again when its handler said, rather than after the back-off."""

        async def postponed(delivery: Delivery) -> None:
            try:
                await handle(delivery)
            except TooMany as error:
                if delivery.deliveries >= self._spec.max_deliveries:
                    raise
                logger.info("an event of topic %r is postponed: %s", self._topic, error.detail)
                await hand_back(delivery, min(error.retry_after, LONGEST_POSTPONEMENT))

        return postponed

    async def _give_up(self, delivery: Delivery, error: BaseException) -> None:
        """Put a message into the dead letters. Raises MeshError if they can't take it: it comes again."""
        try:
            event = await self._read(delivery)
        except InvalidRequest:
            event = None
        await self._dead_letters.take(delivery, event, error)
        await delivery.ack()


def _asked_for(error: MeshError) -> float:
    """In how many seconds the handler wants to be asked again; 0 if it did not say."""
    return error.retry_after if isinstance(error, TooMany) else 0.0
