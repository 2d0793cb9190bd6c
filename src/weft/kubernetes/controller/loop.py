"""The loop: whatever changes wakes the reconcilers that it concerns, which look at how things stand.

A reconciler is told which key to look at, never what happened: it compares what is declared with what is
there, and does what is missing. So an event may be lost, doubled or late, and nothing goes wrong for good.

| metric | kind | what |
|---|---|---|
| `weft_controller_reconciles_total{reconciler,outcome}` | counter | looks: `done`, `again` or `failed` |
| `weft_controller_reconcile_seconds_total{reconciler}` | counter | how long they took |
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter

from weft.aio.backoff import backoff
from weft.aio.tasks import TaskOwner
from weft.errors import Conflict, MeshError
from weft.kubernetes.controller.following import Followed
from weft.kubernetes.controller.kinds import Document, Key, key_of
from weft.kubernetes.controller.work_queue import WorkQueue

logger = logging.getLogger(__name__)

RECONCILE_TIMEOUT: Final = 120.0
"""Seconds for one look at one key."""

WORKERS: Final = 4
"""Keys that a reconciler looks at at once. One key is never looked at twice at once."""


def own_key(document: Document) -> Iterable[Key]:
    """An object concerns its own key."""
    return (key_of(document),)


@dataclass(frozen=True, slots=True)
class Source:
    """What wakes a reconciler."""

    followed: Followed
    keys: Callable[[Document], Iterable[Key]] = own_key
    """Which keys an object concerns that is there, changed or gone."""


class Reconciler(Protocol):
    """Makes things be as they are declared, one key at a time."""

    @property
    def name(self) -> str:
        """In logs and metrics."""
        ...

    @property
    def sources(self) -> Sequence[Source]:
        """What wakes it. Nothing is reconciled before all of it is known."""
        ...

    async def reconcile(self, key: Key) -> float | None:
        """See to `key`; in how many seconds to look again though nothing changes, if so.

        A MeshError has it tried again, after ever longer pauses; a Conflict soon. It can be
        cancelled anywhere.
        """
        ...


class LoopMetrics:
    """How often reconcilers looked, and what came of it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._looks = Counter(
            "weft_controller_reconciles",
            "Looks at one key, by what came of them.",
            ("reconciler", "outcome"),
            registry=registry,
        )
        self._seconds = Counter(
            "weft_controller_reconcile_seconds",
            "How long looks at one key took, in seconds.",
            ("reconciler",),
            registry=registry,
        )

    def looked(self, reconciler: str, outcome: str, seconds: float) -> None:
        """Count one look."""
        self._looks.labels(reconciler, outcome).inc()
        self._seconds.labels(reconciler).inc(seconds)


async def run_loop(reconcilers: Sequence[Reconciler], metrics: LoopMetrics) -> None:
    """Follow what wakes `reconcilers`, and run them, without end."""
    turns = [_Turns(each, metrics) for each in reconcilers]
    async with TaskOwner("controller") as tasks:
        await asyncio.gather(
            *(tasks.start(each.run(), name=each.name, endless=True) for each in turns),
            *(
                tasks.start(each.run(), name=f"source {number}", endless=True)
                for number, each in enumerate(_followed(reconcilers))
            ),
        )


def _followed(reconcilers: Sequence[Reconciler]) -> Iterable[Followed]:
    """What is followed, each once."""
    return {id(source.followed): source.followed for each in reconcilers for source in each.sources}.values()


class _Turns:
    """The keys of one reconciler, as they come."""

    def __init__(self, reconciler: Reconciler, metrics: LoopMetrics) -> None:
        self.name = reconciler.name
        self._reconciler = reconciler
        self._metrics = metrics
        self._queue = WorkQueue()
        self._pauses: dict[Key, Iterator[float]] = {}
        """Of keys that failed."""
        for source in reconciler.sources:
            source.followed.on_change(self._waking(source))

    def _waking(self, source: Source) -> Callable[[Document], None]:
        def heard(document: Document) -> None:
            for key in source.keys(document):
                self._queue.add(key)

        return heard

    async def run(self) -> None:
        for source in self._reconciler.sources:
            await source.followed.known()
        try:
            async with TaskOwner(self.name) as workers:
                names = [f"worker {number}" for number in range(WORKERS)]
                await asyncio.gather(*(workers.start(self._work(), name=each) for each in names))
        finally:
            self._queue.close()

    async def _work(self) -> None:
        while True:
            key = await self._queue.take()
            again: float | None = None
            try:
                again = await self._look(key)
            finally:
                self._queue.done(key, again)

    async def _look(self, key: Key) -> float | None:
        began = time.monotonic()
        outcome, again = await self._outcome(key)
        self._metrics.looked(self.name, outcome, time.monotonic() - began)
        if outcome == "done":
            self._pauses.pop(key, None)
        return again

    async def _outcome(self, key: Key) -> tuple[str, float | None]:
        try:
            async with asyncio.timeout(RECONCILE_TIMEOUT):
                return "done", await self._reconciler.reconcile(key)
        except Conflict as error:
            logger.debug("%s %s is looked at anew: %s", self.name, key, error.detail)
            return "again", self._pause(key, first=0.2, longest=5.0)
        except (MeshError, TimeoutError) as error:
            reason = str(error) or f"it took longer than {RECONCILE_TIMEOUT:g} s"
            logger.warning("%s %s is tried again: %s", self.name, key, reason)
            return "failed", self._pause(key, first=1.0, longest=60.0)
        except Exception:  # a mistake in what is done with one object must not stop the others
            logger.exception("%s %s is tried again", self.name, key)
            return "failed", self._pause(key, first=5.0, longest=300.0)

    def _pause(self, key: Key, *, first: float, longest: float) -> float:
        return next(self._pauses.setdefault(key, backoff(first=first, longest=longest)))
