"""Topics and their groups in NATS, as the control plane declares them and looks after them."""

from __future__ import annotations

from typing import Any

from weft.errors import Conflict, NotFound
from weft.messaging.broker import GroupSettings, GroupStats, TopicSettings, TopicStats
from weft.messaging.brokers.nats_api import JetStreamApi
from weft.messaging.brokers.nats_declare import (
    declare_consumer,
    declare_stream,
    remove_consumer,
    remove_stream,
)
from weft.messaging.brokers.nats_streams import GROUP, group_config, partitions_of, topic_config
from weft.model.message_subjects import group_consumers, topic_stream


async def partitions(api: JetStreamApi, what: str, topic: str) -> int:
    """How many partitions a topic has. Raises NotFound, Denied or Unavailable."""
    return partitions_of((await api.ask(what, f"STREAM.INFO.{topic_stream(topic)}"))["config"])


async def declare_topic(api: JetStreamApi, settings: TopicSettings, replicas: int) -> None:
    """Have a topic, or change it. Raises Conflict for other partitions."""
    what = f"declare topic {settings.name!r}"
    try:
        there = await partitions(api, what, settings.name)
    except NotFound:
        pass
    else:
        if there != settings.partitions:
            raise Conflict(
                f"cannot {what} with {settings.partitions} partitions: it has {there}, for good; "
                "declare another topic"
            )
    await declare_stream(api, what, topic_config(settings, replicas))


async def remove_topic(api: JetStreamApi, topic: str) -> None:
    """Remove a topic with all it holds and its groups."""
    await remove_stream(api, f"remove topic {topic!r}", topic_stream(topic))


async def declare_group(api: JetStreamApi, settings: GroupSettings) -> None:
    """Have a group, or change it."""
    what = f"declare group {settings.name!r} of topic {settings.topic!r}"
    number = await partitions(api, what, settings.topic)
    for partition, name in enumerate(group_consumers(settings.name, number)):
        config = group_config(settings, name, partition, ordered=bool(number))
        await declare_consumer(api, what, topic_stream(settings.topic), config)


async def remove_group(api: JetStreamApi, topic: str, group: str) -> None:
    """Remove a group."""
    what = f"remove group {group!r} of topic {topic!r}"
    try:
        number = await partitions(api, what, topic)
    except NotFound:
        return
    for name in group_consumers(group, number):
        await remove_consumer(api, what, topic_stream(topic), name)


async def topic_stats(api: JetStreamApi, topic: str) -> TopicStats:
    """How a topic and its groups stand."""
    what = f"look at topic {topic!r}"
    stream = topic_stream(topic)
    state = (await api.ask(what, f"STREAM.INFO.{stream}"))["state"]
    groups: dict[str, GroupStats] = {}
    for each in await _consumers(api, what, stream):
        name = (each["config"].get("metadata") or {}).get(GROUP, each["name"])
        before = groups.get(name, GroupStats(topic, name, 0, 0))
        pending = before.pending + each["num_pending"]
        groups[name] = GroupStats(topic, name, pending, before.in_flight + each["num_ack_pending"])
    return TopicStats(
        messages=state["messages"],
        size=state["bytes"],
        first_sequence=state["first_seq"],
        last_sequence=state["last_seq"],
        groups=tuple(groups[name] for name in sorted(groups)),
    )


async def _consumers(api: JetStreamApi, what: str, stream: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        page = await api.ask(what, f"CONSUMER.LIST.{stream}", {"offset": len(found)})
        found += page.get("consumers") or []
        if len(found) >= page["total"] or not page.get("consumers"):
            return found
