"""How the queues stand, looked at every few seconds: for metrics, for people, and for autoscalers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge

from weft.controlplane.brokerage import Brokerage
from weft.errors import MeshError
from weft.messaging.broker import QueueStats
from weft.model.queue import QueueSpec
from weft.model.task import Task, TaskState
from weft.tasks.client import TaskClient
from weft.tasks.scaling import desired_workers

logger = logging.getLogger(__name__)

INTERVAL = 2.0
"""Seconds between two looks."""

WINDOW = 30.0
"""Seconds over which the rate of arrivals is taken."""

SAMPLE = 100
"""How many of the tasks that changed last tell how long one takes."""

SAMPLE_SHARE = 0.02
"""So much of the time, at most, goes into looking how long tasks take, which is slow where a million wait."""

LOOK_LIMIT = 10.0
"""Seconds that a look at one queue may take."""


@dataclass(frozen=True, slots=True)
class Figures:
    """How a queue stands."""

    stats: QueueStats
    arrival_rate: float | None
    """Tasks submitted in a second; None: not known yet."""
    service_time: float | None
    """Seconds that a worker has a task, in the mean of those finished last; None: none was seen yet."""
    desired_workers: int | None
    """How many instances keep up with what arrives, and with what waits; None: not known yet."""
    at: float
    """When it was looked at, in seconds since 1970."""


@dataclass(slots=True)
class _Sample:
    """What was seen last of the tasks of one queue that changed last."""

    seconds: float | None = None
    """How long one takes."""
    submitted: tuple[float, ...] = ()
    """When they were submitted, in order; seconds since 1970."""
    standing: tuple[int, int, int | None] | None = None
    """How the queue stood then."""
    due: float = 0.0
    """When it may be looked at again, by the monotonic clock."""


class QueueFigures:
    """The figures of all queues. Have `run` run."""

    def __init__(self, brokerage: Brokerage, tasks: TaskClient, registry: CollectorRegistry) -> None:
        self._brokerage = brokerage
        self._tasks = tasks
        self._metrics = _Metrics(registry)
        self._current: dict[str, Figures] = {}
        self._totals: dict[str, deque[tuple[float, int]]] = {}
        self._samples: dict[str, _Sample] = {}

    @property
    def current(self) -> Mapping[str, Figures]:
        """By queue, as of the last look."""
        return self._current

    async def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            queues = self._brokerage.queues
            for name, spec in queues.items():
                try:
                    async with asyncio.timeout(LOOK_LIMIT):
                        self._take(name, await self._look(name, spec))
                except (MeshError, TimeoutError) as error:
                    logger.debug("queue %r cannot be looked at: %s", name, error)
            for gone in self._current.keys() - queues.keys():
                self._forget(gone)
            await asyncio.sleep(INTERVAL)

    async def look(self, name: str) -> Figures:
        """How a queue stands at this moment. Raises NotFound and Unavailable."""
        return await self._look(name, await self._brokerage.queue(name))

    async def _look(self, name: str, spec: QueueSpec) -> Figures:
        stats = await self._brokerage.broker.queue_stats(name)
        rate = self._arrival_rate(name, stats)
        sample = await self._sample(name, stats)
        service_time = sample.seconds
        if rate is None:
            rate = sampled_rate(sample.submitted, time.time())
        desired = (
            None
            if rate is None or service_time is None
            else desired_workers(
                arrival_rate=rate,
                service_time=service_time,
                concurrency=spec.concurrency,
                oldest_age=stats.oldest_age or 0.0,
                waiting=stats.ready,
            )
        )
        return Figures(stats, rate, service_time, desired, time.time())

    def _arrival_rate(self, name: str, stats: QueueStats) -> float | None:
        if stats.enqueued_total is None:
            return None
        now = time.monotonic()
        totals = self._totals.setdefault(name, deque())
        if totals and stats.enqueued_total < totals[-1][1]:
            totals.clear()  # the broker began to count anew
        totals.append((now, stats.enqueued_total))
        while len(totals) > 2 and totals[1][0] < now - WINDOW:
            totals.popleft()
        (since, before), (until, after) = totals[0], totals[-1]
        return (after - before) / (until - since) if until > since else None

    async def _sample(self, name: str, stats: QueueStats) -> _Sample:
        known = self._samples.setdefault(name, _Sample())
        standing = (stats.ready, stats.in_flight, stats.enqueued_total)
        begun = time.monotonic()
        # As long as nothing happens in a queue it stays as it is.
        idle = standing == known.standing and stats.enqueued_total is not None and not stats.in_flight
        if idle or begun < known.due:
            return known
        page = await self._tasks.list(name, limit=SAMPLE)
        known.seconds = sampled_service_time(page.tasks, time.time()) or known.seconds
        known.submitted = tuple(sorted(each.submitted_at for each in page.tasks))
        now = time.monotonic()
        known.standing, known.due = standing, now + (now - begun) / SAMPLE_SHARE
        return known

    def _take(self, name: str, figures: Figures) -> None:
        before = self._current.get(name)
        self._current[name] = figures
        self._metrics.take(name, figures, before)

    def _forget(self, name: str) -> None:
        del self._current[name]
        self._totals.pop(name, None)
        self._samples.pop(name, None)
        self._metrics.forget(name)


def sampled_rate(submitted: Sequence[float], now: float) -> float | None:
    """Tasks submitted in a second, by when those were submitted, in order, whose records changed last.

    For brokers that do not count. As long as workers keep up, what changed last is what was submitted last.
    None if there is none.
    """
    if not submitted:
        return None
    recent = [each for each in submitted if each > now - WINDOW]
    span = WINDOW if len(recent) < len(submitted) else now - submitted[0]
    return len(recent) / max(span, 1.0)


def sampled_service_time(latest: Sequence[Task], now: float) -> float | None:
    """Seconds that a worker has a task, by the records that changed last; None if these do not tell.

    The time that workers spent on tasks over the number that they finished, both of late. What is under way
    counts with the time that it has taken so far (as of times that are censored, in an exponential
    distribution): so work that becomes slow shows before the first slow task is done.
    """
    finished = [
        each.finished_at - each.started_at
        for each in latest
        if each.finished_at is not None and each.started_at is not None and each.finished_at > now - WINDOW
    ]
    under_way = [
        max(0.0, now - each.started_at)
        for each in latest
        if each.state is TaskState.RUNNING and each.started_at is not None
    ]
    if not finished and not under_way:
        return None
    return (sum(finished) + sum(under_way)) / max(1, len(finished) or len(under_way))


class _Metrics:
    """What Prometheus gets of all queues; the label `queue` is bounded by what is declared."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._tasks = Gauge(
            "weft_queue_tasks",
            "Tasks in a queue, by state: ready, in_flight, delayed, dead.",
            ["queue", "state"],
            registry=registry,
        )
        self._oldest = Gauge(
            "weft_queue_oldest_seconds",
            "Age of the oldest task that waits or is under way; 0 if there is none.",
            ["queue"],
            registry=registry,
        )
        self._enqueued = Counter(
            "weft_queue_enqueued",
            "Tasks put into a queue, as far as its broker counts them.",
            ["queue"],
            registry=registry,
        )
        self._service = Gauge(
            "weft_queue_service_seconds",
            "How long a worker has a task, in the mean of late; what is under way counts so far.",
            ["queue"],
            registry=registry,
        )
        self._desired = Gauge(
            "weft_queue_desired_workers",
            "How many instances keep up with a queue: what an autoscaler may go by.",
            ["queue"],
            registry=registry,
        )

    def take(self, queue: str, figures: Figures, before: Figures | None) -> None:
        """Show these figures."""
        stats = figures.stats
        for state in ("ready", "in_flight", "delayed", "dead"):
            self._tasks.labels(queue, state).set(getattr(stats, state))
        self._oldest.labels(queue).set(stats.oldest_age or 0.0)
        if (
            stats.enqueued_total is not None
            and before is not None
            and before.stats.enqueued_total is not None
        ):
            self._enqueued.labels(queue).inc(max(0, stats.enqueued_total - before.stats.enqueued_total))
        if figures.service_time is not None:
            self._service.labels(queue).set(figures.service_time)
        if figures.desired_workers is not None:
            self._desired.labels(queue).set(figures.desired_workers)

    def forget(self, queue: str) -> None:
        """Show nothing more of a queue that is gone."""
        for state in ("ready", "in_flight", "delayed", "dead"):
            self._tasks.remove(queue, state)
        for metric in (self._oldest, self._enqueued, self._service, self._desired):
            metric.remove(queue)
