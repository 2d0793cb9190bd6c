"""The objects of a kind as they stand, followed in the background: listed once, then watched."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing
from typing import Protocol

from weft.aio.backoff import backoff
from weft.aio.reminder import Reminder
from weft.errors import MeshError, NotFound
from weft.kubernetes.controller.cluster import Cluster, Expired
from weft.kubernetes.controller.kinds import ClusterKind, Document, Key, key_of

logger = logging.getLogger(__name__)

Heard = Callable[[Document], None]
"""Told of an object that is there, changed or gone: as it is now, or was last."""

MISSING_PAUSE = 30.0
"""Seconds between looks for a kind that the cluster does not have."""


class Followed(Protocol):
    """Objects that are followed."""

    @property
    def objects(self) -> Mapping[Key, Document]:
        """All that are there. Not to be changed."""
        ...

    def on_change(self, heard: Heard) -> None:
        """Have `heard` told of every change from now on, and of what is there at first."""
        ...

    async def known(self) -> None:
        """Wait until it is known what is there."""
        ...

    async def run(self) -> None:
        """Follow, without end."""
        ...


class Known:
    """Objects that are known, and who is told when that changes."""

    def __init__(self) -> None:
        self._objects: dict[Key, Document] = {}
        self._heard: list[Heard] = []

    @property
    def objects(self) -> Mapping[Key, Document]:
        """All that are there, or were when that was last known. Not to be changed."""
        return self._objects

    def on_change(self, heard: Heard) -> None:
        """Have `heard` told of every change from now on, and of what is there at first."""
        self._heard.append(heard)

    def take(self, objects: dict[Key, Document]) -> None:
        """These are all."""
        before, self._objects = self._objects, objects
        for key, document in before.items():
            if key not in objects:
                self._tell(document)
        for key, document in objects.items():
            if before.get(key) != document:
                self._tell(document)

    def _tell(self, document: Document) -> None:
        for heard in self._heard:
            heard(document)


class Following(Known):
    """The objects of a kind in the cluster."""

    def __init__(
        self,
        cluster: Cluster,
        kind: ClusterKind,
        *,
        namespace: str = "",
        within: frozenset[str] = frozenset(),
        labels: str = "",
    ) -> None:
        """Of all namespaces, unless `namespace` is given; `labels` is a selector as kubectl has it.

        Where `within` has any, what is in other namespaces than those is as if it were not there.
        """
        super().__init__()
        self.kind = kind
        self.missing = False
        """Whether the cluster has no such kind. Then `objects` are those that were known last."""
        self._cluster = cluster
        self._namespace = namespace
        self._within = within
        self._labels = labels
        self._known = asyncio.Event()
        self._pauses = _pauses()

    async def known(self) -> None:
        """Wait until it is known what is there: also that there is no such kind."""
        await self._known.wait()

    async def run(self) -> None:
        """Follow, without end; what goes wrong is logged now and then, and tried again."""
        reminder = Reminder(0.0, first=0.0)
        loop = asyncio.get_running_loop()
        while True:
            try:
                listing = await self._cluster.list(self.kind, namespace=self._namespace, labels=self._labels)
                self._take(listing.items)
                await self._watch(listing.resource_version)
            except Expired:
                logger.debug("%s are listed anew", self.kind.plural)
            except NotFound:
                self._miss()
                await asyncio.sleep(MISSING_PAUSE)
            except MeshError as error:
                if reminder.due(loop.time()):
                    logger.warning("%s cannot be followed: %s", self.kind.plural, error.detail)
                await asyncio.sleep(next(self._pauses))

    async def _watch(self, version: str) -> None:
        while True:
            watched = self._cluster.watch(self.kind, version, namespace=self._namespace, labels=self._labels)
            async with aclosing(watched) as changes:
                async for change in changes:
                    version = change.resource_version
                    self._note(change.type, change.object)

    def _note(self, what: str, document: Document) -> None:
        self._pauses = _pauses()
        if what == "BOOKMARK" or not self._counts(document):
            return
        key = key_of(document)
        if what == "DELETED":
            self._objects.pop(key, None)
        else:
            self._objects[key] = document
        self._tell(document)

    def _take(self, items: list[Document]) -> None:
        self.missing = False
        self._known.set()
        self.take({key_of(each): each for each in items if self._counts(each)})

    def _counts(self, document: Document) -> bool:
        namespace = key_of(document).namespace
        return not self._within or not namespace or namespace in self._within

    def _miss(self) -> None:
        if not self.missing:
            logger.warning("the cluster has no kind %s (%s)", self.kind.kind, self.kind.api_version)
        self.missing = True
        self._known.set()


def _pauses() -> Iterator[float]:
    return backoff(first=0.2, longest=15.0)
