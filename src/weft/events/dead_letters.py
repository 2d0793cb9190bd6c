"""Where events go that a subscriber could not process.

A dead letter is the event as it was, with these extensions:

| extension | what |
|---|---|
| `wefttopic`, `weftsubtopic` | where it was published |
| `weftsequence` | its sequence there, as long as the topic keeps it |
| `weftgroup` | the group that could not process it |
| `weftreason` | why |
| `weftdeliveries` | how often it was delivered |

It is published to the dead-letter topic under the subtopic `<topic>.<group>`.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace

from weft.errors import InvalidRequest, MeshError
from weft.events.binding import CONTENT_TYPE
from weft.events.publisher import EventPublisher
from weft.events.wire import passed_on
from weft.messaging.broker import Delivery
from weft.model.cloud_event import CloudEvent
from weft.model.topic import TopicSpec

logger = logging.getLogger(__name__)

TOPIC = "wefttopic"
SUBTOPIC = "weftsubtopic"
SEQUENCE = "weftsequence"
GROUP = "weftgroup"
REASON = "weftreason"
DELIVERIES = "weftdeliveries"

EXTENSIONS = frozenset({TOPIC, SUBTOPIC, SEQUENCE, GROUP, REASON, DELIVERIES})
"""What makes an event a dead letter."""

NO_EVENT_TYPE = "dev.weft.not-an-event"
"""The type of a dead letter made from a message that carried no event; its data is the message's body."""

SEALED_TYPE = "dev.weft.sealed"
"""The type of a dead letter from an encrypted topic in a topic that is not: it only says which it was."""

MAX_REASON_LENGTH = 512
"""Longer reasons are cut off. Not a byte of a header's value may be more than three in percent-encoding."""


def reason_text(error: BaseException) -> str:
    """What a dead letter says of the error that made it one: without control characters, and not too long."""
    text = (
        f"{error.code}: {error.detail}"
        if isinstance(error, MeshError)
        else f"{type(error).__name__}: {error}"
    )
    return "".join(each if each.isprintable() else " " for each in text[:MAX_REASON_LENGTH])


def original(event: CloudEvent) -> CloudEvent:
    """The event that a dead letter was, to publish it again."""
    kept = {name: value for name, value in event.extensions.items() if name not in EXTENSIONS}
    return replace(event, extensions=kept)


class DeadLetters:
    """Takes what one group of a topic could not process."""

    def __init__(self, publisher: EventPublisher, topic: str, spec: TopicSpec, group: str) -> None:
        """`publisher` is to know the dead-letter topic that `spec` names."""
        self._publisher = publisher
        self._topic = topic
        self._spec = spec
        self._group = group

    async def take(self, delivery: Delivery, event: CloudEvent | None, error: BaseException) -> None:
        """Publish what `delivery` brought, `event` if it was one, as a dead letter, or drop and log it.

        Raises MeshError where the dead-letter topic cannot take it.
        """
        target = self._spec.dead_letter
        is_dead_already = event is not None and TOPIC in event.extensions
        if target is None or target == self._topic or is_dead_already:
            logger.error(
                "dropped message %s of topic %r, which %r could not process: %s",
                delivery.message.id,
                self._topic,
                self._group,
                reason_text(error),
            )
            return
        hidden = self._spec.encrypted and not (await self._publisher.spec(target)).encrypted
        letter = self._sealed(delivery) if hidden else event or self._no_event(delivery)
        about = self._about(delivery, _code(error) if hidden else reason_text(error))
        headers = {} if event is None else passed_on(event, delivery.message)
        await self._publish(f"{target}.{self._topic}.{self._group}", letter, about, headers)
        logger.warning(
            "message %s of topic %r is a dead letter of %r now: %s",
            delivery.message.id,
            self._topic,
            self._group,
            reason_text(error),
        )

    async def _publish(
        self, target: str, letter: CloudEvent, about: Mapping[str, str], headers: Mapping[str, str]
    ) -> None:
        refusal: InvalidRequest | None = None
        for each in _ever_smaller(letter, about):
            try:
                await self._publisher.publish_event(target, each, headers=headers)
            except InvalidRequest as error:
                refusal = refusal or error
            else:
                return
        if refusal is not None:
            raise refusal

    def _about(self, delivery: Delivery, reason: str) -> dict[str, str]:
        about = {
            TOPIC: self._topic,
            SUBTOPIC: delivery.subtopic,
            SEQUENCE: str(delivery.sequence) if delivery.sequence else "",
            GROUP: self._group,
            REASON: reason,
            DELIVERIES: str(delivery.deliveries),
        }
        return {name: value for name, value in about.items() if value}

    def _no_event(self, delivery: Delivery) -> CloudEvent:
        """An event around a message that carries none."""
        message = delivery.message
        event = CloudEvent(
            id=message.id, source=f"/topics/{self._topic}", type=NO_EVENT_TYPE, data=message.body
        )
        try:
            return replace(event, datacontenttype=message.headers.get(CONTENT_TYPE))
        except InvalidRequest:
            return event

    def _sealed(self, delivery: Delivery) -> CloudEvent:
        message_id = delivery.message.id or uuid.uuid4().hex
        return CloudEvent(id=message_id, source=f"/topics/{self._topic}", type=SEALED_TYPE)


def _ever_smaller(letter: CloudEvent, about: Mapping[str, str]) -> Iterator[CloudEvent]:
    """The letter; where it is too large with what is told about it, without its extensions, or its data."""
    for without_data, extensions in (
        (False, letter.extensions),
        (False, {}),
        (True, letter.extensions),
        (True, {}),
    ):
        try:
            smaller = replace(letter, extensions={**extensions, **about})
        except InvalidRequest:
            continue  # too many extensions
        yield replace(smaller, data=None) if without_data else smaller


def _code(error: BaseException) -> str:
    return error.code if isinstance(error, MeshError) else type(error).__name__
