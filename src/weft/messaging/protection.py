"""What protects messages end to end: sealed by who sends them, opened by who may take them."""

from __future__ import annotations

from typing import Protocol

from weft.errors import Denied
from weft.messaging.channel import Channel

_NO_KEYS = "is encrypted, and this process has no keys: have it run within the mesh"


class Protection(Protocol):
    """Seals and opens the bodies of messages with the keys of their topics and queues."""

    async def seal(
        self, channel: Channel, message_id: str, content_type: str, body: bytes, *, encrypted: bool
    ) -> bytes:
        """The body to send: `body` itself unless the channel is `encrypted`, as it is declared.

        Raises InvalidRequest if it is too large to be sealed; Denied, NotFound and Unavailable where there is
        no key to be had.
        """
        ...

    async def open(
        self, channel: Channel, message_id: str, content_type: str, body: bytes, *, encrypted: bool
    ) -> bytes:
        """What `seal` was given. Raises InvalidRequest if it was not sealed so; else as `seal` does."""
        ...


class NoProtection:
    """The Protection of who has no keys: what is not encrypted goes through, what is raises Denied."""

    def __init__(self, refusal: str = _NO_KEYS) -> None:
        """`refusal` is said of a channel that is encrypted."""
        self._refusal = refusal

    async def seal(
        self,
        channel: Channel,
        message_id: str,  # noqa: ARG002 -- the protocol's
        content_type: str,  # noqa: ARG002
        body: bytes,
        *,
        encrypted: bool,
    ) -> bytes:
        """`body` as it is. Raises Denied if it had to be sealed."""
        return self._plain(channel, body, encrypted=encrypted)

    async def open(
        self,
        channel: Channel,
        message_id: str,  # noqa: ARG002
        content_type: str,  # noqa: ARG002
        body: bytes,
        *,
        encrypted: bool,
    ) -> bytes:
        """`body` as it is. Raises Denied if it had to be opened."""
        return self._plain(channel, body, encrypted=encrypted)

    def _plain(self, channel: Channel, body: bytes, *, encrypted: bool) -> bytes:
        if encrypted:
            raise Denied(f"{channel} {self._refusal}")
        return body
