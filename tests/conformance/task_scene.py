"""What a test of tasks plays in: a broker, the store that goes with it, and workers."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from tests.conformance.running_broker import RunningBroker

from weft.aio.poll import until
from weft.errors import NotFound
from weft.messaging.broker import BrokerAdmin, Delivery, QueueSettings
from weft.model.message_subjects import WEBHOOK_QUEUE
from weft.model.queue import QueueSpec
from weft.model.redelivery import Backoff
from weft.model.task import Task, TaskState
from weft.store.bucket import Store
from weft.tasks.attempt import Runner, TaskRun
from weft.tasks.client import TaskClient
from weft.tasks.worker import Worker

LIMIT = 60.0
"""Seconds in which whatever is to happen has happened."""

SUBMITTER = "spiffe://weft.local/agent/tester/one"

QUICK = Backoff(initial=0.05, factor=1.0, longest=0.05)


async def double(run: TaskRun) -> Any:
    """A handler: twice what it is given."""
    return {"twice": 2 * int(run.payload)}


class TaskScene:
    """Queues, clients and workers of a test."""

    def __init__(self, running: RunningBroker, store: Store, ends: AsyncExitStack) -> None:
        """`ends` takes all away."""
        self.running = running
        self.store = store
        self.broker: BrokerAdmin = running.broker
        self._ends = ends
        self._specs: dict[str, QueueSpec] = {}

    async def queue(self, **spec: Any) -> str:
        """A queue of that spec, removed afterwards."""
        name = f"q-{secrets.token_hex(5)}"
        declared = QueueSpec(**{"backoff": QUICK, **spec})
        self._specs[name] = declared
        await self.broker.declare_queue(QueueSettings(name, declared.visibility_timeout, declared.max_length))
        self._ends.push_async_callback(self.broker.remove_queue, name)
        return name

    async def webhooks(self) -> None:
        """Have the queue of webhooks, empty."""
        await self.broker.remove_queue(WEBHOOK_QUEUE)
        await self.broker.declare_queue(QueueSettings(WEBHOOK_QUEUE))
        self._ends.push_async_callback(self.broker.remove_queue, WEBHOOK_QUEUE)

    async def spec(self, queue: str) -> QueueSpec:
        """How a queue of this scene is declared. Raises NotFound."""
        try:
            return self._specs[queue]
        except KeyError:
            raise NotFound(f"no queue {queue!r}") from None

    async def client(self, submitter: str = SUBMITTER, **options: Any) -> TaskClient:
        """Another client."""
        return await TaskClient.open(self.store, self.broker, self.spec, submitter=submitter, **options)

    @asynccontextmanager
    async def worker(
        self, queue: str, run: Runner = double, *, name: str = "adder.one", **options: Any
    ) -> AsyncIterator[Worker]:
        """A worker at work; left, it is stopped at once, and what it has in hand is handed back."""
        worker = await Worker.open(
            self.store, self.broker, queue, await self.spec(queue), run, name=name, **options
        )
        running = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            await worker.drained(0)
            await running
            await worker.aclose()

    @asynccontextmanager
    async def doomed(self, queue: str) -> AsyncIterator[Delivery]:
        """A message in the hands of a worker that dies without a word when the context is left."""
        broker = await self.running.connect()
        consumer = await broker.queue_consumer(queue)
        async with asyncio.timeout(LIMIT):
            while not (deliveries := await consumer.pull(1, wait=5)):
                pass
        yield deliveries[0]
        await broker.aclose()


async def ended(client: TaskClient, task_id: str) -> Task:
    """The task, when it is terminal."""
    async with asyncio.timeout(LIMIT):
        while not (task := await client.wait(task_id, LIMIT)).state.terminal:
            pass
    return task


async def in_state(client: TaskClient, task_id: str, state: TaskState) -> Task:
    """The task, when it is in that state."""

    async def there() -> bool:
        return (await client.get(task_id)).state is state

    async with asyncio.timeout(LIMIT):
        await until(there)
    return await client.get(task_id)


@asynccontextmanager
async def task_scene(running: RunningBroker, store: Store) -> AsyncIterator[TaskScene]:
    """A scene that takes everything away when it is left."""
    async with AsyncExitStack() as ends:
        yield TaskScene(running, store, ends)
