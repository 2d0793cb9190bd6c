"""Who keeps the keys of encrypted topics and queues: makes them, rotates them, and gives them up in time.

The keys of one topic or queue are one sealed value in the bucket `message-keys`, so the broker, which holds
that bucket too, can neither read a key nor put one of its own in its place. Replicas share it by
compare-and-set.

A message that was sealed can be opened for as long as it may live. The life of an epoch, with the defaults:

| after | |
|---|---|
| 0 | it is made, and publishers get its public key |
| 30 days | the next epoch is made, and publishers get that |
| 1 day more | nobody may seal with it, not even publishers who heard of no other |
| 30 days and 1 hour more | no message of it can be under way any more: its private key is deleted |

Its end to sealing is fixed when it is made, so publishers that lost contact know it; rotating earlier on
request does not change it, for they would not hear of it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from weft.controlplane.sealing import Sealer
from weft.errors import Conflict, InvalidRequest, MeshError
from weft.messaging.channel import Channel, ChannelKind
from weft.messaging.keys import MAX_EPOCHS, ConsumingKey, PublishingKey
from weft.store.bucket import Bucket, Store

logger = logging.getLogger(__name__)

BUCKET = "message-keys"

DAY = 86400.0

ROTATION_AGE = 30 * DAY
"""Default age, in seconds, at which a key is followed by the next."""

MESSAGE_LIFETIME = 30 * DAY
"""Default for how long, in seconds, a message may wait or be kept before it is consumed."""

PUBLISH_GRACE = DAY
"""Seconds beyond its rotation for which publishers without contact to the control plane may use a key."""

CLOCK_MARGIN = 3600.0
"""Seconds that a private key is kept for longer than any message, since clocks differ."""

MAX_REQUESTED_EPOCHS = MAX_EPOCHS // 2
"""Rotation on request stops at so many live epochs; rotation by age needs the rest."""

TEND_INTERVAL = 600.0
"""Seconds between two looks of `run` for what is due."""

_ATTEMPTS = 20
"""How often a write is tried again because another replica wrote first."""


@dataclass(frozen=True, slots=True)
class _Epoch:
    key: X25519PrivateKey
    made: float
    publish_until: float


_Epochs = tuple[_Epoch, ...]
"""Oldest first; the last is the current one."""


class _Sealed:
    """Sealed bytes, as they are."""

    def encode(self, value: bytes) -> bytes:
        return value

    def decode(self, data: bytes) -> bytes:
        return data


class MessageKeys:
    """The keys of all encrypted topics and queues. Open it with `open`.

    All methods raise Unavailable if the store cannot be reached, and SealBroken if what it holds cannot be
    opened. Whether a topic is declared, encrypted, and open to who asks, the caller has to see to.
    """

    def __init__(
        self,
        bucket: Bucket[bytes],
        sealer: Sealer,
        *,
        rotation_age: float,
        message_lifetime: float,
        clock: Callable[[], float],
    ) -> None:
        self._bucket = bucket
        self._sealer = sealer
        self._rotation_age = rotation_age
        self._message_lifetime = message_lifetime
        self._clock = clock

    @classmethod
    async def open(
        cls,
        store: Store,
        sealer: Sealer,
        *,
        rotation_age: float = ROTATION_AGE,
        message_lifetime: float = MESSAGE_LIFETIME,
        clock: Callable[[], float] = time.time,
    ) -> MessageKeys:
        """Open the keys in `store`, which `sealer` seals.

        `rotation_age` and `message_lifetime` are in seconds: at which age a key is followed by the next, and
        how long a message may be under way. `clock` tells the seconds since 1970. Raises InvalidRequest if
        the one is so much shorter than the other that too many epochs would be live.
        """
        _check_durations(rotation_age, message_lifetime)
        bucket = await store.bucket(BUCKET, _Sealed())
        return cls(bucket, sealer, rotation_age=rotation_age, message_lifetime=message_lifetime, clock=clock)

    async def publishing_key(self, channel: Channel) -> PublishingKey:
        """The public key to seal with now; made or rotated if that is due."""
        current = (await self._read(channel))[-1:]
        if self._is_due(current):
            current = (await self._change(channel, self._with_what_is_due))[-1:]
        return _publishing_key(current[0])

    async def consuming_keys(self, channel: Channel) -> tuple[ConsumingKey, ...]:
        """The private keys of all epochs of which messages may be under way, oldest first."""
        live = self._live(await self._read(channel))
        return tuple(ConsumingKey(each.key, self._keep_until(each)) for each in live)

    async def rotate(self, channel: Channel) -> PublishingKey:
        """Begin a new epoch now. Raises InvalidRequest if there were too many already."""
        return _publishing_key((await self._change(channel, self._with_a_new_one))[-1])

    async def tend(self, encrypted: Collection[Channel]) -> None:
        """Delete the keys whose time is over; rotate those of `encrypted` channels for which it is time.

        What is sealed with a former sealing key is sealed anew.
        What fails is logged, and does not keep the others from their turn. A channel that nobody published to
        has no keys yet, and gets none.
        """
        for entry in await self._bucket.entries():
            try:
                channel = _channel(entry.key)
                change = self._with_what_is_due if channel in encrypted else self._live
                await self._change(channel, change)
            except MeshError as error:
                logger.warning("bucket %r: the keys in %r cannot be tended: %s", BUCKET, entry.key, error)

    async def run(self, encrypted: Callable[[], Collection[Channel]]) -> None:
        """Tend the keys for ever; `encrypted` tells which channels are encrypted now."""
        while True:
            try:
                await self.tend(encrypted())
            except MeshError as error:
                logger.warning("the keys of messages cannot be tended: %s", error)
            await asyncio.sleep(TEND_INTERVAL)

    async def _read(self, channel: Channel) -> _Epochs:
        entry = await self._bucket.get(_key(channel))
        return self._opened(channel, entry.value) if entry is not None else ()

    async def _change(self, channel: Channel, change: Callable[[_Epochs], _Epochs]) -> _Epochs:
        """Write what `change` makes of the epochs, and return it.

        Nothing is written if that is what is there already, unless it is sealed with a former sealing key.
        """
        for _ in range(_ATTEMPTS):
            entry = await self._bucket.get(_key(channel))
            before = self._opened(channel, entry.value) if entry is not None else ()
            after = change(before)
            if after == before and (entry is None or self._sealer.is_current(entry.value)):
                return after
            try:
                await self._write(channel, after, entry.revision if entry is not None else None)
            except Conflict:
                continue
            return after
        raise Conflict(f"{channel}: other replicas kept changing its keys; try again")

    async def _write(self, channel: Channel, epochs: _Epochs, revision: int | None) -> None:
        key = _key(channel)
        sealed = self._sealer.seal(_encoded(epochs), context=_context(channel))
        if revision is None:
            await self._bucket.create(key, sealed)
        elif epochs:
            await self._bucket.update(key, sealed, revision=revision)
        else:
            await self._bucket.delete(key, revision=revision)

    def _opened(self, channel: Channel, sealed: bytes) -> _Epochs:
        return _decoded(self._sealer.open(sealed, context=_context(channel)))

    def _is_due(self, epochs: _Epochs) -> bool:
        if not epochs:
            return True
        # The second: the rotation age may have been another when the key was made.
        return self._clock() >= min(epochs[-1].made + self._rotation_age, epochs[-1].publish_until)

    def _live(self, epochs: _Epochs) -> _Epochs:
        return tuple(each for each in epochs if self._clock() < self._keep_until(each))

    def _with_what_is_due(self, epochs: _Epochs) -> _Epochs:
        live = self._live(epochs)
        return (*live, self._new()) if self._is_due(live) else live

    def _with_a_new_one(self, epochs: _Epochs) -> _Epochs:
        live = self._live(epochs)
        if len(live) >= MAX_REQUESTED_EPOCHS:
            raise InvalidRequest(
                f"messages of {len(live)} epochs may be under way, and no more than {MAX_REQUESTED_EPOCHS} "
                "may be begun on request: wait until the oldest is over"
            )
        return (*live, self._new())

    def _new(self) -> _Epoch:
        now = self._clock()
        return _Epoch(X25519PrivateKey.generate(), now, now + self._rotation_age + PUBLISH_GRACE)

    def _keep_until(self, epoch: _Epoch) -> float:
        return epoch.publish_until + self._message_lifetime + CLOCK_MARGIN


def _check_durations(rotation_age: float, message_lifetime: float) -> None:
    whole_life = rotation_age + PUBLISH_GRACE + message_lifetime + CLOCK_MARGIN
    if rotation_age <= 0 or whole_life / rotation_age > MAX_EPOCHS - MAX_REQUESTED_EPOCHS - 1:
        raise InvalidRequest(
            f"keys of messages cannot be rotated every {rotation_age:g} s if messages live for "
            f"{message_lifetime:g} s: too many keys would be kept; rotate less often"
        )


def _publishing_key(epoch: _Epoch) -> PublishingKey:
    return PublishingKey(epoch.key.public_key(), epoch.publish_until)


def _key(channel: Channel) -> str:
    return f"{channel.kind}.{channel.name}"


def _channel(key: str) -> Channel:
    kind, _, name = key.partition(".")
    if kind not in set(ChannelKind):
        raise InvalidRequest(f"{key!r} is the key of no topic or queue")
    return Channel(ChannelKind(kind), name)


def _context(channel: Channel) -> str:
    return f"message keys of {channel}"


def _encoded(epochs: _Epochs) -> bytes:
    documents = [
        {
            "key": base64.b64encode(each.key.private_bytes_raw()).decode(),
            "made": each.made,
            "publishUntil": each.publish_until,
        }
        for each in epochs
    ]
    return json.dumps(documents).encode()


def _decoded(data: bytes) -> _Epochs:
    # No strict parser: the seal says that it was written by `_encoded`.
    return tuple(
        _Epoch(
            X25519PrivateKey.from_private_bytes(base64.b64decode(each["key"])),
            each["made"],
            each["publishUntil"],
        )
        for each in json.loads(data)
    )
