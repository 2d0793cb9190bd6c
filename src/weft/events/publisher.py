"""Publishing events to topics."""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from weft.errors import InvalidRequest
from weft.events.json_format import JSON_MEDIA_TYPE, is_json
from weft.events.wire import message_for, trace_in
from weft.messaging.broker import Broker
from weft.messaging.partition import partition_of
from weft.messaging.protection import NoProtection, Protection
from weft.model.cloud_event import PARTITION_KEY, TRACE_EXTENSIONS, Attribute, CloudEvent, canonical
from weft.model.subtopic import parse_topic
from weft.model.topic import TopicSpec

BYTES_MEDIA_TYPE = "application/octet-stream"

Topics = Callable[[str], Awaitable[TopicSpec]]
"""How a topic of that name is declared. Raises NotFound if it is not, Unavailable if that cannot be told."""

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_NO_EXTENSIONS: Mapping[str, Attribute] = MappingProxyType({})


class EventPublisher:
    """Publishes events to any topic of a broker."""

    def __init__(
        self, broker: Broker, topics: Topics, *, source: str, protection: Protection | None = None
    ) -> None:
        """`source` is the attribute that events get: who publishes. Asked for each event, `topics` had better
        remember. Without `protection` encrypted topics cannot be published to."""
        self._broker = broker
        self._topics = topics
        self._source = source
        self._protection = protection or NoProtection()

    async def publish(
        self,
        topic: str,
        data: Any = None,
        *,
        type: str | None = None,  # noqa: A002 -- as the specification calls it
        key: str | None = None,
        id: str | None = None,  # noqa: A002
        subject: str | None = None,
        time: datetime | None = None,
        datacontenttype: str | None = None,
        dataschema: str | None = None,
        extensions: Mapping[str, Attribute] = _NO_EXTENSIONS,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> int:
        """Make an event and publish it to a topic, or below it (`orders.created`); return its sequence.

        `data`: bytes as they are, all else as JSON; None is none. `type`: by default the topic. `key`: in a
        topic with partitions, events with the same one stay in order. `id`: by default drawn; `time`: now.
        `headers` are those of the call being handled, if there is one: its trace and conversation go on.
        `extensions` are further attributes. 0 where the broker does not tell sequences.

        When it returns the event is stored. Raises InvalidRequest for what makes no event or is too large,
        NotFound for a topic that is not declared, Denied where it may not be published to, and Unavailable,
        after which the event may have been published: publish it again with the same id.
        """
        body, media_type = _encoded(data, datacontenttype)
        event = CloudEvent(
            id=id or uuid.uuid4().hex,
            source=self._source,
            type=type or topic,
            subject=subject,
            time=time or datetime.now(UTC),
            datacontenttype=media_type,
            dataschema=dataschema,
            extensions=_texts(extensions, key),
            data=body,
        )
        return await self.publish_event(topic, event, headers=headers)

    async def publish_event(
        self, topic: str, event: CloudEvent, *, headers: Mapping[str, str] = _NO_HEADERS
    ) -> int:
        """Publish an event as it is, but for the trace, if it has none. Else as `publish`."""
        name, subtopic = parse_topic(topic)
        spec = await self._topics(name)
        trace = {} if TRACE_EXTENSIONS[0] in event.extensions else trace_in(headers)
        if trace:
            event = replace(event, extensions={**event.extensions, **trace})
        message = await message_for(event, name, self._protection, encrypted=spec.encrypted, headers=headers)
        # Without a key no order is wanted: spread what has none over all partitions.
        partition = partition_of(event.extensions.get(PARTITION_KEY, event.id), spec.partitions)
        return await self._broker.publish(name, message, subtopic=subtopic, partition=partition)

    async def spec(self, topic: str) -> TopicSpec:
        """How a topic is declared. Raises NotFound or Unavailable."""
        return await self._topics(topic)


def _texts(extensions: Mapping[str, Attribute], key: str | None) -> dict[str, str]:
    texts = {name: canonical(value) for name, value in extensions.items()}
    return texts if key is None else {**texts, PARTITION_KEY: key}


def _encoded(data: Any, media_type: str | None) -> tuple[bytes | None, str | None]:
    """The bytes of `data`, and their media type. Raises InvalidRequest for what JSON cannot say."""
    if data is None:
        return None, media_type
    if isinstance(data, bytes):
        return data, media_type or BYTES_MEDIA_TYPE
    try:
        if isinstance(data, str) and media_type is not None and not is_json(media_type):
            return data.encode(), media_type
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode(), media_type or JSON_MEDIA_TYPE
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"the data of an event must be bytes, or what JSON can say: {error}") from error
