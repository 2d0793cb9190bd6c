"""Weft's tasks as a benchmark sees them: put into a queue, and counted once their results are recorded."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from weft.messaging.broker import BrokerAdmin, QueueSettings
from weft.messaging.brokers.nats_api import JetStreamApi
from weft.messaging.opening import BrokerAccess, open_broker
from weft.model.message_subjects import TASKS_BUCKET
from weft.model.queue import QueueSpec
from weft.model.task import TaskState
from weft.store.nats import NatsStore
from weft.store.nats_wire import stream_name
from weft.tasks.client import TaskClient

QUEUE = "bench"
MAX_LENGTH = 10_000_000
SUBMITTER = "spiffe://weft.local/agent/bench/one"

_LIMIT = 60.0
"""Seconds in which a task must have ended."""

_WRITES_OF_A_TASK = 2
"""A task that is submitted already gets a write when it begins, and one with its result."""


class Tasks:
    """One queue of tasks. Open it with `tasks`."""

    def __init__(self, store: NatsStore, broker: BrokerAdmin, client: TaskClient) -> None:
        self.store = store
        self.broker = broker
        self.client = client
        self._api = JetStreamApi(store.connection)

    async def submit(self) -> str:
        """Submit a task; return its id."""
        return (await self.client.submit(QUEUE, time.time())).task.id

    async def result(self, task_id: str) -> float:
        """The result of a task, when it is there. Raises RuntimeError if the task did not succeed."""
        task = await self.client.wait(task_id, _LIMIT)
        if task.state is not TaskState.SUCCEEDED:
            raise RuntimeError(f"{task_id} is {task.state}")
        return float(task.result)

    async def writes(self) -> int:
        """How often records have been written so far."""
        info = await self._api.ask("count writes", f"STREAM.INFO.{stream_name(TASKS_BUCKET)}")
        return int(info["state"]["last_seq"])

    async def finished(self, submitted: int) -> int:
        """How many have their results, of the `submitted` ones, which are all that there ever were."""
        return (await self.writes() - submitted) // _WRITES_OF_A_TASK

    async def check(self) -> None:
        """Raise RuntimeError unless those that were written last have succeeded, and nothing is left over."""
        page = await self.client.list(QUEUE, limit=1000)
        if any(each.state is not TaskState.SUCCEEDED or each.result is None for each in page.tasks):
            raise RuntimeError("there are tasks without results")
        stats = await self.broker.queue_stats(QUEUE)
        if stats.ready or stats.dead:
            raise RuntimeError(f"messages are left over: {stats}")


@asynccontextmanager
async def tasks(nats: str, kind: str = "nats", url: str = "") -> AsyncIterator[Tasks]:
    """A declared queue, and a client that submits to it; `kind` and `url` are the broker's."""
    store = await NatsStore.connect([nats], name="benchmark")
    try:
        broker = await open_broker(BrokerAccess(kind, url), store)
        await broker.declare_queue(QueueSettings(QUEUE, max_length=MAX_LENGTH))
        yield await tasks_of(store, broker)
        await broker.aclose()
    finally:
        await store.close()


async def tasks_of(store: NatsStore, broker: BrokerAdmin) -> Tasks:
    """The same, where the queue is declared already."""
    spec = QueueSpec(max_length=MAX_LENGTH)

    async def declared(_: str) -> QueueSpec:
        return spec

    return Tasks(store, broker, await TaskClient.open(store, broker, declared, submitter=SUBMITTER))
