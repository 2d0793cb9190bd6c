"""Those whose tasks are compared: how they submit, their one worker process, their recorded results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from benchmarks.messages import celery_app, taskiq_app
from benchmarks.messages.ledger import QUEUE, Tasks, tasks
from benchmarks.messages.servers import Place
from benchmarks.messages.spread import spread
from benchmarks.processes import module_command
from redis.asyncio import Redis

CONCURRENCY = 100
"""Tasks at once in a worker process; what Taskiq has by default."""

SUBMITTERS = 64
"""Submissions at once, where submitting does not block."""


class Contest(Protocol):
    """One system with an empty queue, and a server of its own."""

    async def submit(self, count: int) -> None:
        """Submit so many tasks."""
        ...

    async def finished(self) -> int:
        """How many results are recorded."""
        ...

    async def send(self) -> Callable[[], Awaitable[float]]:
        """Submit one task; what is returned waits for its result, its age in seconds when it began."""
        ...

    def worker(self) -> AbstractAsyncContextManager[object]:
        """Its worker process, for the block."""
        ...

    async def check(self) -> None:
        """Raise RuntimeError unless all is as it should be when the last result is recorded."""
        ...


class WeftContest:
    """Weft's Worker in a process of its own."""

    def __init__(self, place: Place, queue: Tasks, nats: str, kind: str, url: str) -> None:
        self._place = place
        self._tasks = queue
        self._arguments = (nats, kind, url, QUEUE, str(CONCURRENCY))
        self._submitted = 0

    async def submit(self, count: int) -> None:
        """Submit so many tasks."""
        self._submitted += count
        await spread(lambda _: self._tasks.submit(), range(count), SUBMITTERS)

    async def send(self) -> Callable[[], Awaitable[float]]:
        """Submit one task."""
        self._submitted += 1
        return partial(self._tasks.result, await self._tasks.submit())

    async def finished(self) -> int:
        """How many results are recorded."""
        return await self._tasks.finished(self._submitted)

    def worker(self) -> AbstractAsyncContextManager[object]:
        """Its worker process."""
        return self._place.running(*module_command("benchmarks.messages.weft_worker", *self._arguments))

    async def check(self) -> None:
        """Raise RuntimeError unless the tasks have succeeded."""
        await self._tasks.check()


class PeerContest:
    """One of the peers, on Redis."""

    def __init__(
        self,
        place: Place,
        urls: Urls,
        command: Sequence[str],
        submit: Callable[[int], Awaitable[None]],
        send: Callable[[], Awaitable[Callable[[], Awaitable[float]]]],
    ) -> None:
        """`command` starts the worker."""
        self._place = place
        self._urls = urls
        self._command = command
        self._submit = submit
        self._send = send

    async def submit(self, count: int) -> None:
        """Submit so many tasks."""
        await self._submit(count)

    async def send(self) -> Callable[[], Awaitable[float]]:
        """Submit one task."""
        return await self._send()

    async def finished(self) -> int:
        """How many results are recorded."""
        return int(await self._urls.client.dbsize())

    def worker(self) -> AbstractAsyncContextManager[object]:
        """Its worker process."""
        environ = {"BENCH_BROKER": self._urls.broker, "BENCH_RESULTS": self._urls.results}
        return self._place.running(*self._command, environ=environ)

    async def check(self) -> None:
        """There is nothing that the number of its results does not say."""


@dataclass(frozen=True, slots=True)
class Urls:
    """Two databases of one Redis."""

    broker: str
    results: str
    """Nothing but results is in it, so its size is their number."""
    client: Redis
    """Of the results."""


Entrance = Callable[[Place], AbstractAsyncContextManager[Contest]]


@asynccontextmanager
async def weft_on_nats(place: Place) -> AsyncIterator[Contest]:
    """Records and messages in NATS."""
    nats = await place.nats()
    async with tasks(nats) as queue:
        yield WeftContest(place, queue, nats, "nats", "")


@asynccontextmanager
async def weft_on_redis(place: Place) -> AsyncIterator[Contest]:
    """Records in NATS, messages in Redis."""
    nats, redis = await place.nats(), await place.redis()
    async with tasks(nats, "redis", redis) as queue:
        yield WeftContest(place, queue, nats, "redis", redis)


def celery(pool: str) -> Entrance:
    """Celery with a worker of one process: of the pool `solo`, or `prefork` with one child."""

    @asynccontextmanager
    async def enter(place: Place) -> AsyncIterator[Contest]:
        async with _redis(place) as urls:
            app, task = celery_app.application(urls.broker, urls.results)
            options = ("worker", "-P", pool, "-c", "1", "-l", "WARNING")
            quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
            command = module_command("celery", "-A", celery_app.__name__, *options, *quiet)

            def submit_all(count: int) -> None:
                for _ in range(count):
                    task.apply_async((time.time(),))

            async def send() -> Callable[[], Awaitable[float]]:
                result = await asyncio.to_thread(task.apply_async, (time.time(),))
                return lambda: asyncio.to_thread(result.get)

            try:
                yield PeerContest(
                    place, urls, command, lambda count: asyncio.to_thread(submit_all, count), send
                )
            finally:
                app.close()

    return enter


def taskiq(kind: str) -> Entrance:
    """Taskiq by a broker of its: `by_list` loses what a worker dies with, `by_stream` does not."""

    @asynccontextmanager
    async def enter(place: Place) -> AsyncIterator[Contest]:
        async with _redis(place) as urls:
            broker, task = taskiq_app.application(kind, urls.broker, urls.results)
            options = ("--workers", "1", "--max-async-tasks", str(CONCURRENCY), "--log-level", "WARNING")
            command = module_command("taskiq", "worker", f"{taskiq_app.__name__}:{kind}", *options)
            await broker.startup()

            async def submit(count: int) -> None:
                await spread(lambda _: task.kiq(time.time()), range(count), SUBMITTERS)

            async def send() -> Callable[[], Awaitable[float]]:
                sent = await task.kiq(time.time())

                async def age() -> float:
                    return float((await sent.wait_result(check_interval=0.002)).return_value)

                return age

            try:
                yield PeerContest(place, urls, command, submit, send)
            finally:
                await broker.shutdown()

    return enter


@asynccontextmanager
async def _redis(place: Place) -> AsyncIterator[Urls]:
    server = await place.redis()
    root = server.rpartition("/")[0]
    async with Redis.from_url(f"{root}/1") as client:
        yield Urls(f"{root}/0", f"{root}/1", client)
