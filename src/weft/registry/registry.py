"""The registry: each instance under its key, for as long as its lease is renewed."""

from __future__ import annotations

import asyncio

from weft.aio.backoff import backoff
from weft.errors import Conflict, InvalidRequest, Unavailable
from weft.model.agent import Instance
from weft.registry.record import InstanceCodec
from weft.store.bucket import Bucket, Store

BUCKET = "instances"

DEFAULT_LEASE_TTL = 10.0
"""Seconds for which an instance stays registered after its lease was last renewed."""

_EXPIRY_SLACK = 2.0
"""Seconds by which the store may be late to drop a key whose time ran out."""

_ATTEMPTS = 5
"""How often a write is tried against a key that changes under it."""


class _Unsettled(Unavailable):
    """Nobody else has the key, and yet it cannot be written.

    So it is with a server of several that is cut off from the others, and has not noticed yet: what waits for
    them is neither there nor not there.
    """


class Lease:
    """An instance's place in the registry, held by its incarnation. Made by `Registry.register`."""

    def __init__(self, bucket: Bucket[Instance], instance: Instance, revision: int, *, ttl: float) -> None:
        self._bucket = bucket
        self._key = instance.key
        self._incarnation = instance.incarnation
        self._revision = revision
        self._ttl = ttl
        self._released = False
        self._writing = asyncio.Lock()

    async def update(self, instance: Instance) -> None:
        """Write the instance as it is now, which renews the lease.

        If the key has lapsed meanwhile it is made again. Raises Conflict if another incarnation holds it,
        InvalidRequest if `instance` is another one or the lease was released, Unavailable if the store cannot
        be reached, or cannot say what is at the key.
        """
        async with self._writing:
            if self._released:
                raise InvalidRequest(f"the lease of {self._key} was released; register the instance again")
            if (instance.key, instance.incarnation) != (self._key, self._incarnation):
                raise InvalidRequest(f"the lease of {self._key} cannot be used for {instance.key}")
            self._revision = await self._write(instance)

    async def release(self) -> None:
        """Leave the registry. A second time, or if another incarnation has the key, it does nothing.

        Raises Unavailable if the store cannot be reached: then the lease lapses by itself.
        """
        async with self._writing:
            if not self._released:
                await self._delete()
                self._released = True

    async def _write(self, instance: Instance) -> int:
        try:
            return await self._bucket.update(self._key, instance, revision=self._revision, ttl=self._ttl)
        except Conflict:
            return await _take(self._bucket, instance, ttl=self._ttl)

    async def _delete(self) -> None:
        # An update whose answer was lost may have moved the key on: the revision in the store counts.
        for _ in range(_ATTEMPTS):
            entry = await self._bucket.get(self._key)
            if entry is None or entry.value.incarnation != self._incarnation:
                return
            try:
                await self._bucket.delete(self._key, revision=entry.revision)
            except Conflict:
                continue
            return


class Registry:
    """All instances that are registered. Open it with `open`."""

    def __init__(self, store: Store, bucket: Bucket[Instance], *, lease_ttl: float) -> None:
        self._store = store
        self.bucket = bucket
        """Where the instances are, by key."""
        self.lease_ttl = lease_ttl
        """Seconds."""

    @classmethod
    async def open(cls, store: Store, *, lease_ttl: float = DEFAULT_LEASE_TTL) -> Registry:
        """Open the registry in `store`; a lease not renewed lasts `lease_ttl` seconds. Raises Unavailable."""
        return cls(store, await store.bucket(BUCKET, InstanceCodec()), lease_ttl=lease_ttl)

    @property
    def connected(self) -> bool:
        """Whether the store can be reached now."""
        return self._store.connected

    async def register(self, instance: Instance) -> Lease:
        """Register `instance` and return its lease, to be renewed well within `lease_ttl` seconds.

        If a namesake (another incarnation) has the key, this waits for up to `lease_ttl` seconds whether its
        lease lapses: so an instance can come back that died without a word. Raises Conflict as soon as the
        namesake turns out to be alive, InvalidRequest if a field is out of its limits, and Unavailable.
        """
        try:
            async with asyncio.timeout(self.lease_ttl + _EXPIRY_SLACK):
                for pause in backoff(first=0.05, longest=1.0):
                    try:
                        revision = await _take(self.bucket, instance, ttl=self.lease_ttl)
                    except (Conflict, _Unsettled):
                        await self._wait_for_vacancy(instance)
                    else:
                        return Lease(self.bucket, instance, revision, ttl=self.lease_ttl)
                    # Somebody may have been faster, again and again.
                    await asyncio.sleep(pause)
        except TimeoutError as error:
            raise Conflict(
                f"the key {instance.key} is taken, and did not lapse in {self.lease_ttl:g} s; take another id"
            ) from error
        raise AssertionError("back-off has no end")

    async def get(self, type_: str, id_: str) -> Instance | None:
        """Return the instance `id_` of type `type_`, or None. Raises Unavailable."""
        entry = await self.bucket.get(f"{type_}.{id_}")
        return entry.value if entry else None

    async def instances(self) -> list[Instance]:
        """Return all instances, by key. Raises Unavailable."""
        return [entry.value for entry in await self.bucket.entries()]

    async def _wait_for_vacancy(self, instance: Instance) -> None:
        """Return when the key of `instance` is free. Raises Conflict if its holder renews its lease."""
        seen: int | None = None
        # Asked again and again rather than watched: a sidecar's identity may read its key, and follow none.
        for pause in backoff(first=0.05, longest=0.5):
            holder = await self.bucket.get(instance.key)
            if holder is None or holder.value.incarnation == instance.incarnation:
                return
            if seen not in {None, holder.revision}:
                raise _taken(holder.value)
            seen = holder.revision
            await asyncio.sleep(pause)


async def _take(bucket: Bucket[Instance], instance: Instance, *, ttl: float) -> int:
    """Write `instance` where its key is free or its own; return the revision.

    Raises Conflict if another incarnation has it.
    """
    for _ in range(_ATTEMPTS):
        entry = await bucket.get(instance.key)
        if entry is not None and entry.value.incarnation != instance.incarnation:
            raise _taken(entry.value)
        try:
            if entry is None:
                return await bucket.create(instance.key, instance, ttl=ttl)
            return await bucket.update(instance.key, instance, revision=entry.revision, ttl=ttl)
        except Conflict:
            continue
    raise _Unsettled(
        f"the key {instance.key} cannot be written: it is held by something that is no instance, or the "
        f"server that was asked is cut off from the others"
    )


def _taken(holder: Instance) -> Conflict:
    return Conflict(
        f"instance {holder.id!r} of type {holder.type!r} is running already, at {holder.endpoint}; "
        f"choose another id, or stop that one first"
    )
