"""Replicas that schedule calls to models are killed and frozen, and limits hold."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from grpc import aio
from tests.freezing import freeze
from tests.llm_declared import declare, model_pool
from tests.llm_sidecar import Answer, Asked, LlmSidecar, llm_sidecar
from tests.pki import Pki
from tests.servers import NatsServer, nats_server
from tests.xds import server_identity

from weft.aio.children import Child, spawn
from weft.aio.guard import Guard
from weft.aio.ports import reserve_port
from weft.store.nats import NatsStore

PKI = Pki()
LIMIT = 60.0
"""Seconds for anything that is waited for."""

PROGRAM = Path(__file__).with_name("llm_replica.py")


class Replica:
    """One in a process of its own."""

    def __init__(self, name: str, directory: Path, guard: Guard, url: str) -> None:
        self.name = name
        self.leases: dict[str, Any] = {}
        self.scheduler = ""
        self._directory = directory
        self._guard = guard
        self._url = url
        self._news = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._child: Child | None = None
        self._serving = False
        with reserve_port("127.0.0.1") as reserved:
            self.port = reserved.port

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it, and wait until it serves."""
        arguments = (self._url, self.name, str(self._directory), str(self.port))
        self._child = await spawn(
            [sys.executable, str(PROGRAM), *arguments],
            guard=self._guard,
            environ={**os.environ, "PYTHONPATH": str(Path.cwd()), "PYTHONUNBUFFERED": "1"},
            stdout=asyncio.subprocess.PIPE,
        )
        self._reading = asyncio.create_task(self._read(self._child))
        await self.heard(lambda: self._serving)

    def freeze(self) -> None:
        """SIGSTOP it."""
        assert self._child is not None
        freeze(self._child.pid)

    def send(self, number: int) -> None:
        """Send it a signal."""
        assert self._child is not None
        self._child.send(number)

    async def kill(self) -> None:
        """SIGKILL it, and wait for its end."""
        if self._child is not None and self._reading is not None:
            if self._child.running:
                self._child.send(signal.SIGKILL)
            await self._child.wait()
            await self._reading
        self._child = None

    async def heard(self, condition: Callable[[], bool]) -> None:
        """Wait until what its sidecars would know is so."""
        async with asyncio.timeout(LIMIT):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def follows(self, leader: Replica) -> None:
        """Wait until it has its sidecars ask at `leader`."""
        await self.heard(lambda: self.scheduler == leader.address)

    async def leased(self, holder: str, pool: str) -> None:
        """Wait until `holder` may send to `pool` without asking."""
        await self.heard(lambda: pool in self.leases.get(holder, {}))

    async def _read(self, child: Child) -> None:
        assert child.stdout is not None
        async for line in child.stdout:
            told = json.loads(line)
            self._serving |= "serving" in told
            self.leases = told.get("leases", self.leases)
            self.scheduler = told.get("scheduler", self.scheduler)
            self._news.set()


class Replicas:
    """Two of them; the first leads."""

    def __init__(self, server: NatsServer, leader: Replica, other: Replica) -> None:
        self.server = server
        self.leader = leader
        self.other = other
        self.store: NatsStore


@pytest.fixture
async def replicas(tmp_path: Path) -> AsyncIterator[Replicas]:
    shown = server_identity(PKI)
    for name, content in (("server.pem", shown.chain), ("server.key", shown.key), ("roots.pem", shown.roots)):
        (tmp_path / name).write_bytes(content)
    async with AsyncExitStack() as stack:
        nats = tmp_path / "nats"
        nats.mkdir()
        server = await stack.enter_async_context(nats_server(nats))
        store = await NatsStore.connect([server.url], name="declare")
        stack.push_async_callback(store.close)
        await declare(
            store,
            model_pool("one", limits={"concurrency": 1}),
            model_pool("minute", limits={"requestsPerMinute": 5}),
            model_pool("free"),
        )
        guard = await stack.enter_async_context(Guard(grace=0.1))
        pair = [Replica(name, tmp_path, guard, server.url) for name in ("a", "b")]
        for each in pair:
            await each.start()
            stack.push_async_callback(each.kill)
            await each.follows(pair[0])
        yield Replicas(server, *pair)


@asynccontextmanager
async def sidecars(replicas: Replicas) -> AsyncIterator[tuple[LlmSidecar, LlmSidecar]]:
    """The same one's connections to both."""
    async with llm_sidecar(PKI, replicas.leader.port) as here, llm_sidecar(PKI, replicas.other.port) as there:
        yield here, there


async def outcome(asked: Asked) -> Answer | None:
    """The answer; None if the scheduler died."""
    with suppress(aio.AioRpcError):
        return await asked.answer()
    return None


async def test_a_successor_knows_what_a_killed_leader_had_admitted(replicas: Replicas) -> None:
    async with sidecars(replicas) as (here, there):
        held = await (await here.ask("one")).answer()
        used = [await (await here.ask("minute")).answer() for _ in range(5)]
        assert len({each.call for each in used}) == 5
        waiting = await here.ask("one")
        replicas.leader.send(signal.SIGKILL)
        killed = time.monotonic()
        assert await outcome(waiting) is None
        # Envoy asks once more, at any replica: it holds the question until it leads.
        again, over = await there.ask("one"), await there.ask("minute")
        await replicas.other.follows(replicas.other)
        answering = asyncio.create_task(again.answer())
        limited = asyncio.create_task(over.answer())
        await there.tell(held.call, "one", "p1")
        answer = await answering
        assert answer.admitted
        assert answer.call != held.call
        done, _ = await asyncio.wait({limited}, timeout=2.0)
        assert not done, f"a sixth call in a minute, {time.monotonic() - killed:.0f} s after"
        limited.cancel()


async def test_a_frozen_leader_does_not_admit_after_it_wakes(replicas: Replicas) -> None:
    async with sidecars(replicas) as (here, there):
        held = await (await here.ask("one")).answer()
        waiting = await here.ask("one")
        replicas.leader.freeze()
        await replicas.other.follows(replicas.other)
        # What it reads when it wakes: room for one call more, which has been given away meanwhile.
        await here.tell(held.call, "one", "p1")
        await there.tell(held.call, "one", "p1")
        successor = await (await there.ask("one")).answer()
        assert successor.admitted
        replicas.leader.send(signal.SIGCONT)
        answer = await waiting.answer()
        assert (answer.status, answer.error["code"]) == (503, "scheduler_unavailable")
        assert answer.headers["retry-after"] == "1"
        # Whom it was told about calls has gone elsewhere.
        assert (await here.log_ended()).name == "UNAVAILABLE"


async def test_a_leader_that_stops_gives_way_at_once(replicas: Replicas) -> None:
    async with sidecars(replicas) as (_, there):
        asked = await there.ask("one")
        replicas.leader.send(signal.SIGINT)
        answer = await asked.answer()
        # Whom it reached while there was a leader, it refused; then it led itself.
        if not answer.admitted:
            await replicas.other.follows(replicas.other)
            answer = await (await there.ask("one")).answer()
        assert answer.admitted


async def test_leases_reach_every_replica_and_are_void_when_calls_have_to_wait(replicas: Replicas) -> None:
    async with sidecars(replicas) as (here, _):
        holder = here.holder

        async def use() -> None:
            while True:
                for _ in range(20):
                    await here.tell("", "minute", "p1")
                    await here.tell("", "free", "p1")
                await asyncio.sleep(0.1)

        using = asyncio.create_task(use())
        try:
            for each in (replicas.leader, replicas.other):
                await each.leased(holder, "free")
        finally:
            using.cancel()


async def test_nothing_is_admitted_that_cannot_be_written(replicas: Replicas) -> None:
    async with sidecars(replicas) as (here, _):
        assert (await (await here.ask("free")).answer()).admitted
        replicas.server.freeze()
        asked = await here.ask("free")
        answering = asyncio.create_task(asked.answer())
        done, _ = await asyncio.wait({answering}, timeout=3.0)
        assert not done
        replicas.server.thaw()
        answer = await answering
        assert answer.admitted or answer.error["code"] == "scheduler_unavailable"
