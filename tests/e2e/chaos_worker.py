"""A worker of the chaos tests: `python -m tests.e2e.chaos_worker PLAN NAME`, until it is killed."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path
from typing import Any

from tests.e2e.chaos_plan import QUEUE, SPEC, Journal, Kind, Plan, kind_of

from weft.errors import InvalidRequest
from weft.tasks.attempt import TaskRun
from weft.tasks.worker import Worker


class Handler:
    """Does what a task's number says, and notes first that it began."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def __call__(self, run: TaskRun) -> Any:
        number = int(run.payload)
        self._journal.append(f"{number} {run.task.id} {os.getpid()} {run.attempt}")
        match kind_of(number):
            case Kind.POISON:
                os._exit(9)
            case Kind.HANGING:
                await asyncio.Event().wait()
            case Kind.REFUSED:
                raise InvalidRequest(f"{number} makes no sense")
            case Kind.FAILING:
                raise RuntimeError(f"{number} never works")
            case Kind.FLAKY if run.attempt == 1:
                raise RuntimeError(f"{number} does not work at the first attempt")
        await asyncio.sleep(random.uniform(0, 0.02))
        return {"number": number, "pid": os.getpid(), "attempt": run.attempt}


async def work(plan: Plan, name: str) -> None:
    """Work, without end."""
    store, broker = await plan.opened(name)
    worker = await Worker.open(store, broker, QUEUE, SPEC, Handler(Journal(plan.executions)), name=name)
    await worker.run()


if __name__ == "__main__":
    asyncio.run(work(Plan.read(Path(sys.argv[1])), sys.argv[2]))
