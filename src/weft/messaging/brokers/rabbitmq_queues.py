"""Queues in RabbitMQ: declaring them, and how they stand.

A queue is a quorum queue for each lane, one for its dead letters, and one for each delay that was asked for.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiormq.abc import AbstractChannel, DeliveredMessage

from weft.errors import Conflict, NotFound, Unavailable
from weft.messaging.broker import QueueSettings, QueueStats, StoredMessage
from weft.messaging.brokers.rabbitmq_batch import ready_in, tag_of, take_ready
from weft.messaging.brokers.rabbitmq_link import Link
from weft.messaging.brokers.rabbitmq_management import Management
from weft.messaging.brokers.rabbitmq_names import Line, Names
from weft.messaging.brokers.rabbitmq_publisher import Publisher, Refused, Unroutable
from weft.messaging.brokers.rabbitmq_quorum import NEVER_GIVEN_UP, have_for_good
from weft.messaging.brokers.rabbitmq_settings import Document, Settings
from weft.messaging.brokers.rabbitmq_wire import Parcel, parcel_of

BY_POLICY = "policy"
BY_ARGUMENTS = "arguments"

_BATCH = 200
_SOON = 0.01

_ALL = 0
"""What stands for all messages of a channel. Those given back together keep their order."""


@dataclass(frozen=True, slots=True)
class Queues:
    """What the control plane does with queues."""

    link: Link
    names: Names
    settings: Settings
    publisher: Publisher
    management: Management | None

    async def declare(self, wanted: QueueSettings) -> None:
        """Have a queue, or change it. Raises Conflict where RabbitMQ cannot."""
        line = self.names.queue(wanted.name)
        async with self.settings.turn(line.settings, line.what) as known:
            limited_by = known.get("limited_by", BY_ARGUMENTS if self.management is None else BY_POLICY)
            self._check_change(known, wanted, limited_by, line)
            await self._declare(line, wanted, limited_by)
            if limited_by == BY_POLICY and self.management is not None:
                await self.management.put_policy(
                    line.base, f"^{_quoted(line.base)}\\.[0-9]$", _limit_policy(wanted)
                )
            changed = {
                **known,
                "visibility": wanted.visibility_timeout,
                "max_length": wanted.max_length,
                "limited_by": limited_by,
            }
            if changed != known:
                await self.settings.write(line.settings, changed, line.what)

    async def remove(self, name: str) -> None:
        """Remove a queue with all it holds."""
        line = self.names.queue(name)
        async with self.settings.turn(line.settings, line.what) as known:
            async with self.link.errand(f"removing {line.what}") as channel:
                for each in (*line.lanes, self.names.dead(name), *delays(line, known)):
                    await channel.queue_delete(each)
            if self.management is not None:
                await self.management.remove_policy(line.base)
            await self.settings.remove(line.settings, line.what)

    async def stats(self, name: str) -> QueueStats:
        """How a queue stands."""
        line = self.names.queue(name)
        known = await self.settings.read(line.settings, line.what)
        lanes = await self.ready(line.lanes, line.what)
        delayed = await self.ready(delays(line, known), line.what)
        dead = await self.ready([self.names.dead(name)], line.what)
        waiting = [lane for lane, ready in lanes.items() if ready]
        sent = [each.sent_at for lane in waiting for each in await self._look_at(lane, line, 1)]
        return QueueStats(
            ready=sum(lanes.values()),
            in_flight=await self.under_way(line.lanes),
            delayed=sum(delayed.values()),
            dead=sum(dead.values()),
            oldest_age=max(0.0, time.time() - min(sent)) if sent else None,
            enqueued_total=None,
        )

    async def ready(self, queues: Collection[str], what: str) -> Mapping[str, int]:
        """How many messages wait in each of those that are there."""
        found: dict[str, int] = {}
        left = list(queues)
        while left:
            try:
                async with self.link.errand(f"counting what waits in {what}", timed=False) as channel:
                    while left:
                        queue = left.pop()
                        found[queue] = await ready_in(channel, queue)
            except NotFound:
                continue  # it has expired, and took the channel with it
        return found

    async def under_way(self, queues: Collection[str]) -> int:
        """How many of their messages consumers have, as of some seconds ago; 0 without the plugin."""
        if self.management is None:
            return 0
        return sum([await self.management.under_way(each) for each in queues])

    async def peek(self, name: str, limit: int, *, dead: bool) -> Sequence[StoredMessage]:
        """Look at the oldest."""
        line = self.names.queue(name)
        await self.settings.read(line.settings, line.what)
        seen: list[StoredMessage] = []
        for each in [self.names.dead(name)] if dead else line.lanes:
            if len(seen) < limit:
                parcels = await self._look_at(each, line, limit - len(seen))
                seen += [
                    StoredMessage(parcel.message, parcel.lane, parcel.sent_at, parcel.reason)
                    for parcel in parcels
                ]
        return seen

    async def purge(self, name: str, *, dead: bool) -> int:
        """Throw away what waits."""
        line = self.names.queue(name)
        known = await self.settings.read(line.settings, line.what)
        queues = [self.names.dead(name)] if dead else [*line.lanes, *delays(line, known)]
        purged = 0
        for each in queues:
            try:
                async with self.link.errand(f"purging {line.what}") as channel:
                    purged += (await channel.queue_purge(each)).message_count or 0
            except NotFound:
                continue  # nobody was delayed for so long for some time
        return purged

    async def redrive(self, name: str, ids: Collection[str]) -> int:
        """Put dead letters of these ids back."""
        line = self.names.queue(name)
        await self.settings.read(line.settings, line.what)
        wanted = set(ids)
        redriven = 0
        async with self.link.errand(f"redriving {line.what}", timed=False) as channel:
            # What is not wanted is held until the end: so each is seen once.
            while wanted and (ready := await ready_in(channel, self.names.dead(name))):
                for message in await take_ready(channel, self.names.dead(name), min(ready, _BATCH)):
                    parcel = parcel_of(message)
                    if parcel.message.id in wanted:
                        await self._put_back(line, parcel)
                        await channel.basic_ack(tag_of(message))
                        wanted.remove(parcel.message.id)
                        redriven += 1
            await channel.basic_nack(_ALL, multiple=True, requeue=True)
        return redriven

    async def _put_back(self, line: Line, parcel: Parcel) -> None:
        what = f"redriving message {parcel.message.id} of {line.what}"
        anew = parcel.anew(deliveries=0)
        try:
            await self.publisher.put(line.lanes[parcel.lane], anew, what=what)
        except Refused:
            # It is full: those that wait for their time get in as soon as there is room.
            await self.publisher.put_later(line, anew, _SOON, what=what)
        except Unroutable:
            raise NotFound(f"{what}: it is not there (any more); declare it") from None

    async def _look_at(self, queue: str, line: Line, limit: int) -> Sequence[Parcel]:
        async with self.link.errand(f"looking into {line.what}", timed=False) as channel:
            messages: list[DeliveredMessage] = []
            while len(messages) < limit and (ready := await ready_in(channel, queue)):
                messages += await take_ready(channel, queue, min(ready, _BATCH, limit - len(messages)))
            await channel.basic_nack(_ALL, multiple=True, requeue=True)
        return [parcel_of(each) for each in messages]

    async def _declare(self, line: Line, wanted: QueueSettings, limited_by: str) -> None:
        limit: dict[str, Any] = {}
        if limited_by == BY_ARGUMENTS:
            limit = {f"x-{name}": value for name, value in _limit_policy(wanted).items()}
        async with self.link.errand(f"declaring {line.what}") as channel:
            await declare_delays(channel, self.names)
            await channel.queue_declare(
                self.names.dead(wanted.name), durable=True, arguments={**NEVER_GIVEN_UP}
            )
            for number, lane in enumerate(line.lanes):
                await channel.queue_declare(lane, durable=True, arguments={**NEVER_GIVEN_UP, **limit})
                await channel.queue_bind(lane, self.names.due, line.delay_key("*", number))
            await have_for_good(channel, line.lanes[-1])

    def _check_change(self, known: Document, wanted: QueueSettings, limited_by: str, line: Line) -> None:
        if known and known.get("max_length") != wanted.max_length:
            check_changeable(self.management, limited_by, line.what)


def check_changeable(management: Management | None, limited_by: str, what: str) -> None:
    """Raise Conflict if limits cannot be changed."""
    if management is None:
        raise Conflict(
            f"{what}: RabbitMQ changes limits by its management plugin only: give its URL, or remove it first"
        )
    if limited_by == BY_ARGUMENTS:
        raise Conflict(
            f"{what} was declared without RabbitMQ's management plugin, so its limits stay: remove it first"
        )


async def declare_delays(channel: AbstractChannel, names: Names) -> None:
    """Have the exchanges before and behind the queues of those that wait."""
    for each in (names.delays, names.due):
        await channel.exchange_declare(each, exchange_type="topic", durable=True)


def delays(line: Line, known: Document) -> list[str]:
    """The queues of a line in which messages wait for their time."""
    levels = known.get("delays", {}).get(line.key, [])
    if not isinstance(levels, list):
        raise Unavailable(f"{line.what}: its settings in RabbitMQ cannot be read: not Weft wrote them")
    return [line.delay(int(each)) for each in levels]


def _limit_policy(wanted: QueueSettings) -> dict[str, Any]:
    # A queue refuses when it holds more than that: so it takes one more.
    return {"max-length": wanted.max_length - 1, "overflow": "reject-publish"}


def _quoted(name: str) -> str:
    return name.replace(".", "\\.")
