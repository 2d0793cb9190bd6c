"""The task for Taskiq: by a list, and by a stream, which can be acknowledged."""

from __future__ import annotations

import os
import time
from typing import Any

from taskiq import AsyncBroker
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker


def application(kind: str, broker: str, results: str) -> tuple[AsyncBroker, Any]:
    """A client over those databases of Redis, and the task."""
    made: AsyncBroker = (
        ListQueueBroker(broker) if kind == "by_list" else RedisStreamBroker(broker, consumer_id="0")
    )
    made = made.with_result_backend(RedisAsyncResultBackend(results))
    return made, made.task("age")(age)


async def age(sent: float) -> float:
    """The task: how many seconds ago it was submitted."""
    return time.time() - sent


_URLS = (os.environ.get("BENCH_BROKER", "redis://"), os.environ.get("BENCH_RESULTS", "redis://"))

# What `taskiq worker` is told to take.
by_list, _ = application("by_list", *_URLS)
by_stream, _ = application("by_stream", *_URLS)
