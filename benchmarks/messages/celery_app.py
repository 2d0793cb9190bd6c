"""The task for Celery."""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery  # type: ignore[import-untyped]

PREFETCH = 128
"""Messages that a worker takes ahead: with Celery's own 4 it would wait for Redis more than work."""


def application(broker: str, results: str) -> tuple[Celery, Any]:
    """A client over those databases of Redis, and the task."""
    made = Celery("bench", broker=broker, backend=results)
    made.conf.update(
        worker_prefetch_multiplier=PREFETCH,
        broker_connection_retry_on_startup=True,
        worker_hijack_root_logger=False,
    )
    return made, made.task(name="age")(age)


def age(sent: float) -> float:
    """The task: how many seconds ago it was submitted."""
    return time.time() - sent


# What `celery worker` looks for.
app, _ = application(os.environ.get("BENCH_BROKER", ""), os.environ.get("BENCH_RESULTS", ""))
