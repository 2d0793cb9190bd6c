"""Protection by the keys that the control plane gives out to those who may publish and consume."""

from __future__ import annotations

from functools import partial

from weft.messaging.channel import Channel
from weft.messaging.control import Ask
from weft.messaging.keyring import ConsumerKeyring, PublisherKeyring
from weft.messaging.keys import ConsumingKey, PublishingKey, parse_consuming_keys, parse_publishing_key
from weft.messaging.sealing import Binding


class KeyedProtection:
    """A Protection with a keyring for each encrypted topic and queue, filled when it is first used."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._publishing: dict[Channel, PublisherKeyring] = {}
        self._consuming: dict[Channel, ConsumerKeyring] = {}

    async def seal(
        self, channel: Channel, message_id: str, content_type: str, body: bytes, *, encrypted: bool
    ) -> bytes:
        """As weft.messaging.protection.Protection says."""
        if not encrypted:
            return body
        if channel not in self._publishing:
            self._publishing[channel] = PublisherKeyring(channel, partial(self._publishing_key, channel))
        return await self._publishing[channel].seal(body, Binding(channel, message_id, content_type))

    async def open(
        self, channel: Channel, message_id: str, content_type: str, body: bytes, *, encrypted: bool
    ) -> bytes:
        """As weft.messaging.protection.Protection says."""
        if not encrypted:
            return body
        if channel not in self._consuming:
            self._consuming[channel] = ConsumerKeyring(channel, partial(self._consuming_keys, channel))
        return await self._consuming[channel].open(body, Binding(channel, message_id, content_type))

    async def _publishing_key(self, channel: Channel) -> PublishingKey:
        return parse_publishing_key(await self._ask("GET", f"{_path(channel)}/publishing-key", None))

    async def _consuming_keys(self, channel: Channel) -> tuple[ConsumingKey, ...]:
        return parse_consuming_keys(await self._ask("GET", f"{_path(channel)}/consuming-keys", None))


def _path(channel: Channel) -> str:
    return f"/v1/{channel.kind}s/{channel.name}"
