"""A worker in a process of its own: `python task_worker.py NATS_URL QUEUE NAME`, until it is killed.

The environment variable BROKER says, as JSON, where the broker is: the fields of BrokerAccess. The payload of
each attempt that it begins is written to its standard output, one on a line.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from contextlib import AsyncExitStack

from weft.errors import Unavailable
from weft.messaging.opening import BrokerAccess, open_broker
from weft.model.queue import QueueSpec
from weft.model.redelivery import Backoff
from weft.store.nats import NatsStore
from weft.tasks.attempt import TaskRun
from weft.tasks.worker import Worker

SPEC = QueueSpec(
    visibility_timeout=1.0,
    max_deliveries=50,
    concurrency=16,
    backoff=Backoff(initial=0.05, factor=1.0, longest=0.05),
)


async def handle(run: TaskRun) -> int:
    """Twice what is given, after a moment, and sometimes only at the second attempt."""
    print(run.payload.decode(), flush=True)
    await asyncio.sleep(random.uniform(0, 0.05))
    number = int(run.payload)
    if number % 50 == 0 and run.attempt == 1:
        raise RuntimeError("not at the first attempt")
    return 2 * number


async def opened(url: str, queue: str, name: str) -> Worker:
    """The worker, as soon as the servers are there, which are killed and brought back."""
    while True:
        async with AsyncExitStack() as ends:
            try:
                store = await NatsStore.connect([url], name=name)
                ends.push_async_callback(store.close)
                broker = await open_broker(BrokerAccess(**json.loads(os.environ["BROKER"])), store)
                ends.push_async_callback(broker.aclose)
                worker = await Worker.open(store, broker, queue, SPEC, handle, name=name)
            except Unavailable:
                await asyncio.sleep(0.1)
            else:
                ends.pop_all()
                return worker


async def work(url: str, queue: str, name: str) -> None:
    """Work, without end."""
    await (await opened(url, queue, name)).run()


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:4]))
