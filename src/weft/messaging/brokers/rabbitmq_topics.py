"""Topics in RabbitMQ: declaring them and their groups, and how they stand.

A topic is an exchange with a stream behind it, which remembers; a group is a quorum queue for each partition,
bound to the exchange by its pattern.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from weft.errors import Conflict, NotFound
from weft.messaging.broker import NEW, GroupSettings, GroupStats, TopicSettings, TopicStats
from weft.messaging.brokers.rabbitmq_link import Link
from weft.messaging.brokers.rabbitmq_management import Management
from weft.messaging.brokers.rabbitmq_names import Line, Names, binding_key, replay_of
from weft.messaging.brokers.rabbitmq_publisher import Publisher
from weft.messaging.brokers.rabbitmq_queues import (
    BY_ARGUMENTS,
    BY_POLICY,
    Queues,
    check_changeable,
    declare_delays,
    delays,
)
from weft.messaging.brokers.rabbitmq_quorum import NEVER_GIVEN_UP, have_for_good
from weft.messaging.brokers.rabbitmq_replay import copy_past, first_of, mark_ends
from weft.messaging.brokers.rabbitmq_settings import Document, Settings
from weft.messaging.brokers.rabbitmq_wire import offset_of

_SMALLEST_SEGMENT = 256 * 1024
_LARGEST_SEGMENT = 64 * 1024 * 1024
_SEGMENTS = 64
"""A stream forgets whole segments."""


@dataclass(frozen=True, slots=True)
class Topics:
    """What the control plane does with topics."""

    link: Link
    names: Names
    settings: Settings
    publisher: Publisher
    queues: Queues
    management: Management | None

    async def declare(self, wanted: TopicSettings) -> None:
        """Have a topic, or change it. Raises Conflict where RabbitMQ cannot, and for other partitions."""
        what = f"topic {wanted.name!r}"
        async with self.settings.turn(self.names.topic_settings(wanted.name), what) as known:
            limits = {"max_age": wanted.max_age, "max_bytes": wanted.max_bytes}
            limited_by = known.get("limited_by", BY_ARGUMENTS if self.management is None else BY_POLICY)
            if known and known["partitions"] != wanted.partitions:
                raise Conflict(
                    f"{what} has {known['partitions']} partitions and cannot have {wanted.partitions} "
                    "instead: use another topic"
                )
            if known and any(known[name] != value for name, value in limits.items()):
                check_changeable(self.management, limited_by, what)
            segment = known.get("segment") or _segment(wanted.max_bytes)
            await self._declare(wanted, segment, limited_by)
            changed = {
                **known,
                **limits,
                "partitions": wanted.partitions,
                "segment": segment,
                "limited_by": limited_by,
            }
            if changed != known:
                await self.settings.write(self.names.topic_settings(wanted.name), changed, what)

    async def remove(self, name: str) -> None:
        """Remove a topic with all it holds and its groups."""
        what = f"topic {name!r}"
        async with self.settings.turn(self.names.topic_settings(name), what) as known:
            for group in known.get("groups", {}):
                await self._remove_group(self.names.group(name, group, known["partitions"]), known)
            async with self.link.errand(f"removing {what}") as channel:
                await channel.exchange_delete(self.names.topic(name))
                await channel.queue_delete(self.names.log(name))
            if self.management is not None:
                await self.management.remove_policy(self.names.log(name))
            await self.settings.remove(self.names.topic_settings(name), what)

    async def declare_group(self, wanted: GroupSettings) -> None:
        """Have a group, or change it. Raises NotFound without its topic, Conflict for another expiry."""
        what = f"group {wanted.name!r} of topic {wanted.topic!r}"
        async with self.settings.turn(self.names.topic_settings(wanted.topic), what) as known:
            if not known:
                raise NotFound(f"there is no topic {wanted.topic!r}: declare it")
            line = self.names.group(wanted.topic, wanted.name, known["partitions"])
            groups = known.setdefault("groups", {})
            group = groups.get(wanted.name)
            changed = {
                "pattern": wanted.pattern,
                "visibility": wanted.visibility_timeout,
                "expires": wanted.expires,
            }
            if group is None or not await self.queues.ready(line.lanes[:1], what):
                await self._make_group(line, wanted, known)
            elif group != changed:
                await self._change_group(line, wanted, group)
            else:
                return
            groups[wanted.name] = changed
            await self.settings.write(line.settings, known, what)

    async def remove_group(self, topic: str, name: str) -> None:
        """Remove a group."""
        what = f"group {name!r} of topic {topic!r}"
        async with self.settings.turn(self.names.topic_settings(topic), what) as known:
            if known.get("groups", {}).pop(name, None) is not None:
                line = self.names.group(topic, name, known["partitions"])
                await self._remove_group(line, known)
                known.get("delays", {}).pop(line.key, None)
                await self.settings.write(line.settings, known, what)

    async def stats(self, name: str) -> TopicStats:
        """How a topic and its groups stand."""
        what = f"topic {name!r}"
        known = await self.settings.read(self.names.topic_settings(name), what)
        log = self.names.log(name)
        messages = (await self.queues.ready([log], what)).get(log, 0)
        oldest = await first_of(self.link, log, what=f"looking into {what}") if messages else None
        first = 0 if oldest is None else offset_of(oldest) + 1
        groups: list[GroupStats] = []
        for group in known.get("groups", {}):
            stats = await self._group_stats(name, group, known)
            if stats is None:
                await self.remove_group(name, group)  # it has expired
            else:
                groups.append(stats)
        return TopicStats(
            messages=messages if oldest is not None else 0,
            # RabbitMQ does not tell the size of streams: as if all were as large as the oldest.
            size=0 if oldest is None else messages * (len(oldest.body) + _OVERHEAD),
            first_sequence=first,
            last_sequence=first + messages - 1 if oldest is not None else 0,
            groups=tuple(groups),
        )

    async def _group_stats(self, topic: str, name: str, known: Document) -> GroupStats | None:
        line = self.names.group(topic, name, known["partitions"])
        waiting = [*line.lanes, *map(replay_of, line.lanes), *delays(line, known)]
        ready = await self.queues.ready(waiting, line.what)
        if line.lanes[0] not in ready:
            return None
        there = [each for each in waiting if each in ready]
        return GroupStats(topic, name, sum(ready.values()), await self.queues.under_way(there))

    async def _declare(self, wanted: TopicSettings, segment: int, limited_by: str) -> None:
        exchange, log = self.names.topic(wanted.name), self.names.log(wanted.name)
        limits = {"max-age": f"{max(1, int(wanted.max_age))}s", "max-length-bytes": wanted.max_bytes}
        arguments: dict[str, Any] = {
            "x-queue-type": "stream",
            "x-stream-max-segment-size-bytes": segment,
        }
        if limited_by == BY_ARGUMENTS:
            arguments |= {f"x-{name}": value for name, value in limits.items()}
        async with self.link.errand(f"declaring topic {wanted.name!r}") as channel:
            await channel.exchange_declare(exchange, exchange_type="topic", durable=True)
            await channel.queue_declare(log, durable=True, arguments=arguments)
            await channel.queue_bind(log, exchange, "#")
        if limited_by == BY_POLICY and self.management is not None:
            await self.management.put_policy(log, f"^{log}$".replace(".", "\\."), limits)

    async def _make_group(self, line: Line, wanted: GroupSettings, known: Document) -> None:
        await self._remove_group(line, known)
        arguments = _arguments(wanted, known)
        async with self.link.errand(f"declaring {line.what}") as channel:
            await declare_delays(channel, self.names)
            for number, lane in enumerate(line.lanes):
                await channel.queue_declare(lane, durable=True, arguments=arguments)
                await channel.queue_bind(
                    lane, self.names.topic(wanted.topic), binding_key(wanted.pattern, number)
                )
                await channel.queue_bind(lane, self.names.due, line.delay_key("*", number))
            await have_for_good(channel, line.lanes[-1])
        if wanted.start != NEW:
            await self._replay(line, wanted, known)

    async def _replay(self, line: Line, wanted: GroupSettings, known: Document) -> None:
        what = f"replaying to {line.what}"
        lanes = line.lanes
        if known["partitions"]:
            lanes = tuple(map(replay_of, lanes))
            async with self.link.errand(what) as channel:
                for each in lanes:
                    await channel.queue_declare(each, durable=True, arguments=_arguments(wanted, known))
        await copy_past(
            self.link,
            self.publisher,
            self.names.log(wanted.topic),
            start=wanted.start,
            pattern=wanted.pattern,
            lanes=lanes,
            what=what,
        )
        if known["partitions"]:
            await mark_ends(self.publisher, lanes, what=what)

    async def _change_group(self, line: Line, wanted: GroupSettings, group: Document) -> None:
        if group["expires"] != wanted.expires:
            raise Conflict(
                f"{line.what}: RabbitMQ cannot change when it expires: remove it and declare it again"
            )
        exchange = self.names.topic(wanted.topic)
        if group["pattern"] == wanted.pattern:
            return
        async with self.link.errand(f"changing {line.what}") as channel:
            for number, lane in enumerate(line.lanes):
                await channel.queue_bind(lane, exchange, binding_key(wanted.pattern, number))
                await channel.queue_unbind(lane, exchange, binding_key(group["pattern"], number))

    async def _remove_group(self, line: Line, known: Document) -> None:
        async with self.link.errand(f"removing {line.what}") as channel:
            for each in (*line.lanes, *map(replay_of, line.lanes), *delays(line, known)):
                await channel.queue_delete(each)


_OVERHEAD = 200


def _arguments(wanted: GroupSettings, known: Document) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        **NEVER_GIVEN_UP,
        "x-message-ttl": int(known["max_age"] * 1000),
        "x-max-length-bytes": known["max_bytes"],
        "x-overflow": "drop-head",
    }
    if known["partitions"]:
        arguments["x-single-active-consumer"] = True
    if wanted.expires is not None:
        arguments["x-expires"] = max(1, int(wanted.expires * 1000))
    return arguments


def _segment(max_bytes: int) -> int:
    return min(max(max_bytes // _SEGMENTS, _SMALLEST_SEGMENT), _LARGEST_SEGMENT)
