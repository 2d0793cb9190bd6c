"""Tasks while workers and NATS are killed: every one that was confirmed has one result, whoever dies."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.integration.task_worker import SPEC
from tests.servers import NatsServer, nats_server

from weft.aio.children import Child, spawn
from weft.aio.guard import Guard
from weft.aio.poll import until
from weft.errors import Unavailable
from weft.messaging.broker import QueueSettings
from weft.messaging.brokers.nats import NatsBroker
from weft.model.queue import QueueSpec
from weft.model.task import TaskState
from weft.store.nats import NatsStore
from weft.tasks.client import TaskClient

QUEUE = "killed"
TASKS = 1500
WORKERS = 3
LIMIT = 60.0
SCRIPT = Path(__file__).with_name("task_worker.py")


class Crew:
    """Workers in processes, each replaced as soon as it is killed."""

    def __init__(self, url: str, directory: Path, guard: Guard) -> None:
        self._url = url
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
                environ=os.environ,
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


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with nats_server(tmp_path) as running:
        yield running


@asynccontextmanager
async def crew_of(server: NatsServer, directory: Path) -> AsyncIterator[Crew]:
    async with Guard(grace=0.1) as guard:
        crew = Crew(server.url, directory, guard)
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


async def havoc(crew: Crew, server: NatsServer) -> None:
    """Kill workers while they get on with it, and NATS."""
    for number in range(9):
        enough = min(len(crew.begun()) + 20, TASKS - 1)

        async def got_on(enough: int = enough) -> bool:
            return len(crew.begun()) > enough

        await until(got_on)
        await crew.kill_one()
        if number % 3 == 0:
            await server.restart()


async def declared(queue: str) -> QueueSpec:
    return SPEC


async def test_every_confirmed_task_has_one_result_though_workers_and_nats_are_killed(
    server: NatsServer, tmp_path: Path
) -> None:
    store = await NatsStore.connect([server.url], name="submitter", timeout=2.0)
    broker = NatsBroker(store.connection)
    await broker.declare_queue(QueueSettings(QUEUE, SPEC.visibility_timeout))
    client = await TaskClient.open(store, broker, declared, submitter="key:test@gate")
    customer = Customer(client)
    outputs = tmp_path / "outputs"
    outputs.mkdir()

    async def over() -> bool:
        stats = await broker.queue_stats(QUEUE)
        return stats.ready + stats.in_flight + stats.delayed == 0

    async with crew_of(server, outputs) as crew, asyncio.timeout(LIMIT):
        async with asyncio.TaskGroup() as group:
            for _ in range(32):
                group.create_task(customer.submit())
            group.create_task(havoc(crew, server))
        await until(over)
        ends = {number: await client.get(task_id) for number, task_id in customer.tasks.items()}
    assert {each.state for each in ends.values()} == {TaskState.SUCCEEDED}
    assert {number: each.result for number, each in ends.items()} == {each: 2 * each for each in range(TASKS)}
    # Claimed, and killed before it could say that it had begun, is an attempt, too.
    begun = crew.begun()
    assert set(begun) == set(ends)
    assert TASKS + TASKS // 50 <= len(begun) <= sum(each.attempts for each in ends.values())
    await broker.aclose()
    await store.close()
