"""The live picture of the registry that a control plane works from."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType, TracebackType
from typing import Self

from weft.aio.generation import Generation
from weft.aio.tasks import TaskOwner
from weft.errors import Unavailable
from weft.model.agent import Instance
from weft.registry.registry import Registry
from weft.store.bucket import Change, Put, Removal, Removed, Snapshot

logger = logging.getLogger(__name__)

SUBSCRIPTION_LIMIT = 1024
"""Batches of changes that may wait for a subscriber; one that falls further behind is dropped."""


class ChangeKind(StrEnum):
    """What happened to an instance."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class InstanceChange:
    """Something happened to an instance."""

    kind: ChangeKind
    instance: Instance
    """As it is now; where it was removed, as it was last."""


Batch = tuple[InstanceChange, ...]


REJOIN = 5.0
"""Seconds that sidecars may take to connect to a store that has come back. NATS asks the control plane about
each of them; one that is there before the control plane is waits, in vain, for three seconds."""


class FellBehind(Unavailable):
    """A subscriber did not take its changes fast enough; it may subscribe again."""


class View:
    """Follows the registry from the moment its context is entered.

    An outage of the store must not look like the death of every instance. So instances whose leases ran out
    while the store could not be reached, or in the `lease_ttl` and REJOIN seconds after it came back, stay in
    the picture until those are over, to give them time to renew. One that was deleted is gone at once.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._instances: dict[str, Instance] = {}
        self._held: set[str] = set()
        self._grace: asyncio.TimerHandle | None = None
        self._ready = asyncio.Event()
        self._generation = Generation()
        self._subscriptions: set[_Subscription] = set()
        self._tasks = TaskOwner("view of instances")

    @property
    def instances(self) -> Mapping[str, Instance]:
        """All instances by key, always current: take a copy to keep it over an `await`."""
        return MappingProxyType(self._instances)

    @property
    def generation(self) -> int:
        """Grows with every change of any instance that is more than its calls in flight."""
        return self._generation.number

    async def ready(self) -> None:
        """Wait until the picture is complete for the first time, which takes the store to be reachable."""
        await self._ready.wait()

    async def changed_since(self, generation: int) -> int:
        """Wait until `generation` is no longer the current one; return the current one."""
        return await self._generation.later_than(generation)

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[AsyncIterator[Batch]]:
        """Within the context, get changes in batches, as they come.

        The first batch has all instances there are, as added; it may be empty. A change in nothing but the
        calls in flight is not told. Waits until the view is ready. The iterator raises FellBehind, a kind of
        Unavailable, when more than SUBSCRIPTION_LIMIT batches wait to be taken.
        """
        await self.ready()
        subscription = _Subscription()
        subscription.add(tuple(InstanceChange(ChangeKind.ADDED, each) for each in self._instances.values()))
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    async def __aenter__(self) -> Self:
        self._tasks.start(self._follow(), name="follow the registry", endless=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.close()
        if self._grace is not None:
            self._grace.cancel()

    async def _follow(self) -> None:
        async with self._registry.bucket.watch() as changes:
            async for change in changes:
                self._publish(self._apply(change))

    def _apply(self, change: Change[Instance]) -> list[InstanceChange]:
        match change:
            case Snapshot():
                return self._apply_snapshot(change)
            case Put(entry):
                return self._put(entry.key, entry.value)
            case Removed(key, Removal.EXPIRED) if self._grace is not None:
                return self._hold(key)
            case Removed(key):
                return self._drop(key)

    def _apply_snapshot(self, snapshot: Snapshot[Instance]) -> list[InstanceChange]:
        if self._ready.is_set():
            self._begin_grace()
        changes = [change for entry in snapshot.entries for change in self._put(entry.key, entry.value)]
        for key in self._instances.keys() - {entry.key for entry in snapshot.entries}:
            self._hold(key)
        self._ready.set()
        return changes

    def _put(self, key: str, instance: Instance) -> list[InstanceChange]:
        if instance.key != key:
            # A sidecar may write under its own key only, so that is what it says the truth of.
            logger.warning("the instance under key %r says it is %r: it is left out", key, instance.key)
            return self._drop(key)
        self._held.discard(key)
        before = self._instances.get(key)
        self._instances[key] = instance
        if before is None:
            return [InstanceChange(ChangeKind.ADDED, instance)]
        if replace(before, in_flight=instance.in_flight) == instance:
            return []
        return [InstanceChange(ChangeKind.CHANGED, instance)]

    def _hold(self, key: str) -> list[InstanceChange]:
        if key in self._instances:
            self._held.add(key)
        return []

    def _drop(self, key: str) -> list[InstanceChange]:
        self._held.discard(key)
        instance = self._instances.pop(key, None)
        return [] if instance is None else [InstanceChange(ChangeKind.REMOVED, instance)]

    def _begin_grace(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
        loop = asyncio.get_running_loop()
        self._grace = loop.call_later(self._registry.lease_ttl + REJOIN, self._end_grace)

    def _end_grace(self) -> None:
        if not self._registry.connected:
            # Another outage: nobody could have come back.
            self._begin_grace()
            return
        self._grace = None
        if self._held:
            logger.warning("%d instances did not come back after the store did", len(self._held))
        self._publish([change for key in sorted(self._held) for change in self._drop(key)])

    def _publish(self, changes: Iterable[InstanceChange]) -> None:
        batch = tuple(changes)
        if not batch:
            return
        self._generation.advance()
        for subscription in self._subscriptions:
            subscription.add(batch)


class _Subscription:
    """Batches on their way to one subscriber."""

    def __init__(self) -> None:
        self._batches: asyncio.Queue[Batch] = asyncio.Queue(SUBSCRIPTION_LIMIT)
        self._dropped = False

    def add(self, batch: Batch) -> None:
        if self._batches.full():
            self._dropped = True
        if not self._dropped:
            self._batches.put_nowait(batch)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        if self._dropped:
            raise FellBehind(
                f"more than {SUBSCRIPTION_LIMIT} batches of changes were waiting for this subscriber; "
                f"subscribe again, and take them faster"
            )
        return await self._batches.get()
