"""The contract of broadcasts: short messages to whoever listens at that moment, kept by nobody.

They may get lost: where the store is out of reach, where a listener falls behind, where too much waits to be
sent. Whoever sends must be able to do without, and whoever listens hears nothing of what was sent before.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Final, NamedTuple, Protocol

MAX_BROADCAST_BYTES: Final = 512 * 1024
"""Size of one message."""


class Heard(NamedTuple):
    """A message, and the key under which it was sent."""

    key: str
    data: bytes


class BroadcastListener(Protocol):
    """Hears messages, in the order in which each sender sent them."""

    @property
    def dropped(self) -> int:
        """Messages that came and were dropped, since too much waited to be asked for."""
        ...

    async def next(self) -> Heard:
        """The next message; waits for one, through lost connections too."""
        ...


class Broadcast(Protocol):
    """Messages of one name. Keys are made as a bucket's are."""

    async def send(self, key: str, data: bytes) -> bool:
        """Send to all who listen, the sender included; False: it was dropped. Never waits for a connection.

        Raises InvalidRequest for a bad key, or more than MAX_BROADCAST_BYTES.
        """
        ...

    async def settled(self, timeout: float) -> bool:
        """Wait until all that was sent has left for those who listen; False: it may be lost.

        `timeout` in seconds.
        """
        ...

    def listen(self) -> AbstractAsyncContextManager[BroadcastListener]:
        """Hear what is sent from when the context is entered.

        Raises Unavailable if the store cannot be reached, Denied where it does not permit this.
        """
        ...
