"""Tasks while workers, store and broker are killed: every one that was confirmed has one result."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import pytest
from tests.integration.task_worker import SPEC
from tests.rabbitmq_server import MISSING, rabbitmq_server
from tests.redis_server import redis_server
from tests.servers import nats_server

from weft.aio.children import Child, spawn
from weft.aio.guard import Guard
from weft.aio.poll import until
from weft.errors import Unavailable
from weft.messaging.broker import QueueSettings
from weft.messaging.opening import BrokerAccess, open_broker
from weft.model.queue import QueueSpec
from weft.model.task import Task, TaskState
from weft.store.nats import NatsStore
from weft.tasks.client import TaskClient

QUEUE = "killed"
TASKS = 1500
WORKERS = 3
LIMIT = 200.0
SCRIPT = Path(__file__).with_name("task_worker.py")


class Crew:
    """Workers in processes, each replaced as soon as it is killed."""

    def __init__(self, url: str, access: BrokerAccess, directory: Path, guard: Guard) -> None:
        self._url = url
        self._environ = {**os.environ, "BROKER": json.dumps(asdict(access))}
        self._directory = directory
        self._guard = guard
        self._numbers = iter(range(1000))
        self.members: list[Child] = []

    async def hire(self) -> None:
        """One more."""
        number = next(self._numbers)
        with (self._directory / f"{number}.out").open("wb") as out:
            child = await spawn(
                [sys.executable, str(SCRIPT), self._url, QUEUE, f"adder.{number}"],
                guard=self._guard,
                environ=self._environ,
                stdout=out.fileno(),
                stderr=asyncio.subprocess.DEVNULL,
            )
        self.members.append(child)

    async def kill_one(self) -> None:
        """SIGKILL one, any, and put another in its place."""
        victim = self.members.pop(random.randrange(len(self.members)))
        victim.send(signal.SIGKILL)
        await victim.wait()
        await self.hire()

    async def dismiss(self) -> None:
        """SIGKILL all."""
        for each in self.members:
            each.send(signal.SIGKILL)
            await each.wait()

    def begun(self) -> list[int]:
        """What their attempts were given."""
        return [int(line) for file in self._directory.glob("*.out") for line in file.read_text().split()]


class Server(Protocol):
    """What can be killed."""

    async def restart(self) -> None:
        """SIGKILL it, and start it again with its data."""
        ...


@asynccontextmanager
async def no_other(directory: Path) -> AsyncIterator[tuple[BrokerAccess, Server | None]]:
    """The store is the broker, too."""
    yield BrokerAccess("nats"), None


@asynccontextmanager
async def on_redis(directory: Path) -> AsyncIterator[tuple[BrokerAccess, Server | None]]:
    """A Redis."""
    async with redis_server(directory) as server:
        yield BrokerAccess("redis", server.url), server


@asynccontextmanager
async def on_rabbitmq(directory: Path) -> AsyncIterator[tuple[BrokerAccess, Server | None]]:
    """A RabbitMQ."""
    if MISSING is not None:
        pytest.skip(MISSING)
    async with rabbitmq_server(directory) as server:
        user = server.username
        yield BrokerAccess("rabbitmq", server.url, user, user, server.management_url), server


@asynccontextmanager
async def crew_of(url: str, access: BrokerAccess, directory: Path) -> AsyncIterator[Crew]:
    async with Guard(grace=0.1) as guard:
        crew = Crew(url, access, directory, guard)
        try:
            for _ in range(WORKERS):
                await crew.hire()
            yield crew
        finally:
            await crew.dismiss()


class Customer:
    """Submits numbers until each submission is confirmed."""

    def __init__(self, client: TaskClient) -> None:
        self._client = client
        self._numbers = iter(range(TASKS))
        self.tasks: dict[int, str] = {}

    async def submit(self) -> None:
        """Submit some of them, under keys: what was not confirmed is submitted again."""
        for number in self._numbers:
            while number not in self.tasks:
                try:
                    submitted = await self._client.submit(QUEUE, number, idempotency_key=str(number))
                except Unavailable:
                    await asyncio.sleep(0.1)
                else:
                    self.tasks[number] = submitted.task.id


async def havoc(crew: Crew, servers: Sequence[Server]) -> None:
    """Kill workers while they get on with it, and each server in between."""
    for number in range(9):
        enough = min(len(crew.begun()) + 20, TASKS - 1)

        async def got_on(enough: int = enough) -> bool:
            return len(crew.begun()) > enough

        await until(got_on)
        await crew.kill_one()
        if number % 3 == 1:
            await servers[number // 3 % len(servers)].restart()


async def declared(queue: str) -> QueueSpec:
    return SPEC


async def ended(client: TaskClient, task_id: str) -> Task:
    """The task at its end. Whoever asks may be cut off."""
    while True:
        with suppress(Unavailable):
            task = await client.wait(task_id, LIMIT)
            if task.state.terminal:
                return task


@pytest.mark.timeout(300)
@pytest.mark.parametrize("hosting", [no_other, on_redis, on_rabbitmq], ids=["nats", "redis", "rabbitmq"])
async def test_every_confirmed_task_has_one_result_though_workers_and_servers_are_killed(
    hosting: Callable[[Path], AbstractAsyncContextManager[tuple[BrokerAccess, Server | None]]],
    tmp_path: Path,
) -> None:
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    async with AsyncExitStack() as stack:
        home = await stack.enter_async_context(nats_server(tmp_path))
        access, other = await stack.enter_async_context(hosting(tmp_path))
        store = await NatsStore.connect([home.url], name="submitter", timeout=2.0)
        stack.push_async_callback(store.close)
        broker = await open_broker(access, store)
        stack.push_async_callback(broker.aclose)
        await broker.declare_queue(QueueSettings(QUEUE, SPEC.visibility_timeout))
        client = await TaskClient.open(store, broker, declared, submitter="key:test@gate")
        customer = Customer(client)
        crew = await stack.enter_async_context(crew_of(home.url, access, outputs))
        async with asyncio.timeout(LIMIT):
            async with asyncio.TaskGroup() as group:
                for _ in range(32):
                    group.create_task(customer.submit())
                group.create_task(havoc(crew, [home, *([other] if other else [])]))
            ends = {number: await ended(client, task_id) for number, task_id in customer.tasks.items()}
    assert {each.state for each in ends.values()} == {TaskState.SUCCEEDED}
    assert {number: each.result for number, each in ends.items()} == {each: 2 * each for each in range(TASKS)}
    # Claimed, and killed before it could say that it had begun, is an attempt, too.
    begun = crew.begun()
    assert set(begun) == set(ends)
    assert TASKS + TASKS // 50 <= len(begun) <= sum(each.attempts for each in ends.values())
