"""The keys of one encrypted topic or queue, held in memory by a process that publishes or consumes there.

Both keyrings get their keys by a function, which asks the control plane and raises what it raises: Denied,
NotFound, Unavailable. They are for one event loop, and any number of tasks in it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from weft.errors import MeshError, TimedOut, Unavailable
from weft.messaging.channel import Channel
from weft.messaging.keys import ConsumingKey, PublishingKey
from weft.messaging.sealing import Binding, open_sealed, seal, sealed_epoch

T = TypeVar("T")

FRESHNESS = 60.0
"""Seconds for which a publisher seals with the same key without asking whether there is a newer one."""

PAUSE = 1.0
"""Seconds at least between two questions to the control plane that failed, or that unknown epochs cause."""

FETCH_TIMEOUT = 5.0
"""Seconds in which the control plane must answer."""


class PublisherKeyring:
    """What a publisher holds: the public key of the current epoch, as far as it knows."""

    def __init__(
        self,
        channel: Channel,
        fetch: Callable[[], Awaitable[PublishingKey]],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`fetch` gets the current key; `clock` tells the seconds since 1970."""
        self._channel = channel
        self._fetch = fetch
        self._clock = clock
        self._key: PublishingKey | None = None
        self._ask_again = 0.0
        self._asking = asyncio.Lock()

    async def seal(self, payload: bytes, binding: Binding) -> bytes:
        """The envelope of `payload`, sealed for the current epoch.

        Raises InvalidRequest if the payload is too large; Denied, NotFound and Unavailable as `fetch` does.
        While the control plane cannot be reached, the key at hand is used for as long as it may be.
        """
        return seal(payload, await self._current(), binding)

    async def _current(self) -> PublishingKey:
        # Whoever publishes while another task asks goes on with the key at hand.
        if self._is_due() and not (self._usable() and self._asking.locked()):
            async with self._asking:
                if self._is_due():
                    await self._ask()
        key = self._usable()
        if key is None:
            raise Unavailable(
                f"{self._channel}: the control plane gives no key that may be used to publish now; "
                "try again, and if it does answer, compare its clock with the one here"
            )
        return key

    def _is_due(self) -> bool:
        return asyncio.get_running_loop().time() >= self._ask_again

    def _usable(self) -> PublishingKey | None:
        """The key at hand, if there is one and its time is not over."""
        if self._key is not None and self._clock() < self._key.publish_until:
            return self._key
        return None

    async def _ask(self) -> None:
        pause = PAUSE
        try:
            self._key = await _in_time(self._fetch(), self._channel)
            pause = min(FRESHNESS, max(PAUSE, self._key.publish_until - self._clock()))
        except Unavailable:
            if self._usable() is None:
                raise
        except MeshError:
            self._key = None  # no longer allowed to, or no longer encrypted: not with an old key either
            raise
        finally:
            self._ask_again = asyncio.get_running_loop().time() + pause


class ConsumerKeyring:
    """What a consumer holds: the private keys of all epochs of which messages may be under way."""

    def __init__(
        self,
        channel: Channel,
        fetch: Callable[[], Awaitable[Sequence[ConsumingKey]]],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`fetch` gets the keys of all live epochs; `clock` tells the seconds since 1970."""
        self._channel = channel
        self._fetch = fetch
        self._clock = clock
        self._keys: dict[str, ConsumingKey] = {}
        self._ask_again = 0.0
        self._asking = asyncio.Lock()

    async def open(self, envelope: bytes, binding: Binding) -> bytes:
        """The payload in `envelope`, which came as `binding` says.

        Raises InvalidRequest if it does not open: it never will. Raises Unavailable if the key of its epoch
        cannot be had now: let the message be delivered again later. Denied and NotFound as `fetch` does.
        """
        epoch = sealed_epoch(envelope, binding)
        if self._live(epoch) is None:
            await self._learn(epoch)
        key = self._live(epoch)
        return open_sealed(envelope, {} if key is None else {epoch: key}, binding)

    def _live(self, epoch: str) -> ConsumingKey | None:
        """The key of `epoch` if it is here; one whose time is over is forgotten."""
        key = self._keys.get(epoch)
        if key is not None and self._clock() >= key.keep_until:
            del self._keys[epoch]
            return None
        return key

    async def _learn(self, epoch: str) -> None:
        """Ask for all keys, unless somebody just did: messages of made-up epochs shall cost little."""
        async with self._asking:
            loop = asyncio.get_running_loop()
            if epoch in self._keys or loop.time() < self._ask_again:
                return
            try:
                keys = await _in_time(self._fetch(), self._channel)
            finally:
                self._ask_again = loop.time() + PAUSE
            self._keys = {each.epoch: each for each in keys if self._clock() < each.keep_until}


async def _in_time(answer: Awaitable[T], channel: Channel) -> T:
    """What the control plane answers. Raises Unavailable if it does not within FETCH_TIMEOUT."""
    try:
        async with asyncio.timeout(FETCH_TIMEOUT):
            return await answer
    except (TimeoutError, TimedOut) as error:
        raise Unavailable(
            f"{channel}: the control plane did not give its keys within {FETCH_TIMEOUT:g} s; try again"
        ) from error
