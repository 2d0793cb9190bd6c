"""Where the chaos tests take place: a NATS, a broker, and programs that are replaced when they end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

import pytest
from tests.freezing import freeze
from tests.rabbitmq_server import MISSING, rabbitmq_server
from tests.redis_server import redis_server
from tests.servers import NatsServer, nats_server

from weft.aio.children import Child, spawn
from weft.aio.guard import Guard
from weft.messaging.opening import BrokerAccess
from weft.model.message_broker import BrokerType

BROKERS = tuple(BrokerType)
"""Those of which there are real servers."""


class Server(Protocol):
    """What remembers: it can be killed and brought back with what it kept."""

    async def start(self) -> None: ...

    async def kill(self) -> None: ...


@asynccontextmanager
async def servers(
    kind: BrokerType, directory: Path, *, max_store: int | None = None
) -> AsyncIterator[tuple[NatsServer, Server, BrokerAccess]]:
    """A NATS for the records, and the broker: the same NATS, or another server.

    `max_store` is how many bytes NATS keeps, if given.
    """
    places = [directory / name for name in ("nats", kind.value)]
    for each in places:
        each.mkdir(exist_ok=True)
    async with AsyncExitStack() as stack:
        nats = await stack.enter_async_context(nats_server(places[0], max_store=max_store))
        if kind is BrokerType.NATS:
            yield nats, nats, BrokerAccess(kind)
        elif kind is BrokerType.REDIS:
            redis = await stack.enter_async_context(redis_server(places[1]))
            yield nats, redis, BrokerAccess(kind, redis.url)
        else:
            if MISSING is not None:
                pytest.skip(MISSING)
            rabbit = await stack.enter_async_context(rabbitmq_server(places[1]))
            who = rabbit.username
            yield nats, rabbit, BrokerAccess(kind, rabbit.url, who, who, rabbit.management_url)


class Post:
    """A program that is started again whenever it ends, whoever killed it."""

    def __init__(
        self, module: str, arguments: Callable[[int], Sequence[str]], log: Path, guard: Guard
    ) -> None:
        """`arguments` of its n-th start, counted from 0; `log` gets what it says."""
        self._module = module
        self._arguments = arguments
        self._log = log
        self._guard = guard
        self._child: Child | None = None
        self.starts = 0

    @property
    def name(self) -> str:
        """Of its log."""
        return self._log.stem

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text(errors="replace")

    async def keep(self) -> None:
        """Have it run, until cancelled; then it is killed."""
        try:
            while True:
                self._child = await self._started()
                await self._child.wait()
        finally:
            self.send(signal.SIGKILL)
            if self._child is not None:
                await self._child.wait()

    def send(self, number: int) -> None:
        """Send the one that runs a signal."""
        if self._child is not None and self._child.running:
            self._child.send(number)

    async def freeze(self, seconds: float) -> None:
        """SIGSTOP the one that runs, if it does, and let it go on after so many seconds."""
        child = self._child
        if child is None:
            return
        with suppress(ProcessLookupError):  # it was killed just now, and nobody has been told yet
            freeze(child.pid)
        try:
            await asyncio.sleep(seconds)
        finally:
            child.send(signal.SIGCONT)

    async def _started(self) -> Child:
        command = [sys.executable, "-m", self._module, *self._arguments(self.starts)]
        self.starts += 1
        with self._log.open("ab") as log:
            return await spawn(
                command,
                guard=self._guard,
                environ=os.environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log.fileno(),
                stderr=log.fileno(),
            )


@asynccontextmanager
async def manned(posts: Sequence[Post]) -> AsyncIterator[None]:
    """Every post manned for the block; nobody is left at its end."""
    keeping = [asyncio.create_task(each.keep()) for each in posts]
    try:
        yield
    finally:
        for each in keeping:
            each.cancel()
        for each in keeping:
            with suppress(asyncio.CancelledError):
                await each
