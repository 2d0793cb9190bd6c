"""The streams and consumers that queues, topics and groups are in NATS, as JetStream takes them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from weft.messaging.broker import GroupSettings, QueueSettings, Start, TopicSettings
from weft.model.message_subjects import (
    LANES,
    dead_stream,
    dead_subjects,
    due_subject,
    lane_consumer,
    lane_subject,
    later_stream,
    later_subjects,
    queue_stream,
    queue_subjects,
    topic_filters,
    topic_stream,
    topic_subjects,
)

Config = dict[str, Any]

MAX_LENGTH = "weft-max-length"
"""In the metadata of the stream of delayed messages: how many these may be. NATS does not see to it there."""
PARTITIONS = "weft-partitions"
"""In the metadata of a topic's stream."""
GROUP = "weft-group"
"""In the metadata of a group's consumers."""

_SECOND = 1_000_000_000
_DUPLICATE_WINDOW = 3600 * _SECOND
"""How long a dead letter, or one put back, is recognised as the same; longer than anybody tries again."""
_MAX_WAITING = 16384
"""Requests that may wait at a consumer: one or two of each instance."""
_UNLIMITED = -1


def queue_streams(settings: QueueSettings, replicas: int) -> list[Config]:
    """The streams of a queue: of its lanes, of what is delayed, and of dead letters."""
    name = settings.name
    return [
        {
            **_stream(queue_stream(name), [queue_subjects(name)], replicas),
            "retention": "workqueue",
            "discard": "new",
            "max_msgs": settings.max_length,
        },
        {
            **_stream(later_stream(name), [later_subjects(name), due_subject(name, "*")], replicas),
            "retention": "workqueue",
            "allow_msg_schedules": True,
            "metadata": {MAX_LENGTH: str(settings.max_length)},
        },
        {
            **_stream(dead_stream(name), [dead_subjects(name)], replicas),
            "max_msgs": settings.max_length,
        },
    ]


def lane_consumers(settings: QueueSettings) -> list[tuple[str, Config]]:
    """The consumers of a queue's lanes, each with its stream."""
    name = settings.name
    return [
        (stream, _consumer(lane_consumer(lane), [subject], settings.visibility_timeout))
        for lane in LANES
        for stream, subject in (
            (queue_stream(name), lane_subject(name, lane)),
            (later_stream(name), due_subject(name, lane)),
        )
    ]


def topic_config(settings: TopicSettings, replicas: int) -> Config:
    """The stream of a topic."""
    return {
        **_stream(topic_stream(settings.name), [topic_subjects(settings.name)], replicas),
        "max_age": int(settings.max_age * _SECOND),
        "max_bytes": settings.max_bytes,
        "metadata": {PARTITIONS: str(settings.partitions)},
    }


def partitions_of(config: Mapping[str, Any]) -> int:
    """How many partitions the topic has whose stream is so configured."""
    text = (config.get("metadata") or {}).get(PARTITIONS, "0")
    return int(text) if text.isdecimal() and len(text) < 4 else 0


def group_config(settings: GroupSettings, name: str, partition: int, *, ordered: bool) -> Config:
    """The consumer `name` of a group, for one partition; `ordered`: one message at a time."""
    config = _consumer(
        name, topic_filters(settings.topic, settings.pattern, partition), settings.visibility_timeout
    )
    config["inactive_threshold"] = int((settings.expires or 0) * _SECOND)
    if ordered:
        config["max_ack_pending"] = 1
    config["metadata"] = {GROUP: settings.name}
    return {**config, **_start(settings.start)}


def changed(there: Mapping[str, Any], wanted: Config, keep: tuple[str, ...]) -> Config | None:
    """What to make of a configuration that is there; None if it is as wanted.

    Of what Weft does not set, and what is named by `keep`, all stays: an operator may have changed it.
    """
    merged = {**there, **{name: value for name, value in wanted.items() if name not in keep}}
    if "filter_subjects" in wanted:
        merged.pop("filter_subject", None)
    merged["metadata"] = {**(there.get("metadata") or {}), **wanted.get("metadata", {})}
    return None if merged == {**there, "metadata": there.get("metadata") or {}} else merged


def _stream(name: str, subjects: list[str], replicas: int) -> Config:
    return {
        "name": name,
        "subjects": subjects,
        "storage": "file",
        "num_replicas": replicas,
        "retention": "limits",
        "discard": "old",
        "allow_direct": True,
        "duplicate_window": _DUPLICATE_WINDOW,
    }


def _consumer(name: str, subjects: list[str], visibility_timeout: float) -> Config:
    return {
        "name": name,
        "durable_name": name,
        "filter_subjects": subjects,
        "ack_policy": "explicit",
        "ack_wait": int(visibility_timeout * _SECOND),
        "max_deliver": _UNLIMITED,
        "max_ack_pending": _UNLIMITED,
        "max_waiting": _MAX_WAITING,
    }


def _start(start: Start) -> Config:
    if start.sequence is not None:
        return {"deliver_policy": "by_start_sequence", "opt_start_seq": max(start.sequence, 1)}
    if start.time is not None:
        at = datetime.fromtimestamp(start.time, UTC)
        return {"deliver_policy": "by_start_time", "opt_start_time": f"{at:%Y-%m-%dT%H:%M:%S.%f}Z"}
    return {"deliver_policy": "new"}
