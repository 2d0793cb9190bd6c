"""A worker process of Weft's, at work on one queue until SIGTERM.

Arguments: the URL of NATS, the type and URL of the broker, the queue, tasks at once.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from typing import Any

import uvloop

from weft.messaging.opening import BrokerAccess, open_broker
from weft.model.queue import QueueSpec
from weft.store.nats import NatsStore
from weft.tasks.attempt import TaskRun
from weft.tasks.worker import Worker


async def age(run: TaskRun) -> Any:
    """The task: how many seconds ago it was submitted."""
    return time.time() - float(run.payload)


async def main(nats: str, kind: str, url: str, queue: str, concurrency: str) -> None:
    """Work, until told to stop."""
    store = await NatsStore.connect([nats], name="worker")
    broker = await open_broker(BrokerAccess(kind, url), store)
    worker = await Worker.open(
        store, broker, queue, QueueSpec(), age, name="bench.one", concurrency=int(concurrency)
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.drain)
    try:
        await worker.run()
    finally:
        await worker.aclose()
        await broker.aclose()
        await store.close()


if __name__ == "__main__":
    # As `Agent.run` does.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(*sys.argv[1:]))
