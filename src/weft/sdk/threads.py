"""Threads for an agent's plain functions, which would hold up everything else."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any


class Threads:
    """Threads by purpose, so that none takes those of another: who works on tasks holds up no requests.

    A function that is cancelled goes on, unheard, and keeps its thread until it returns.
    """

    def __init__(self, name: str) -> None:
        """`name` is what the threads are called."""
        self._name = name
        self._pools: dict[tuple[str, int], ThreadPoolExecutor] = {}

    async def run(self, purpose: str, limit: int, call: Callable[[], Any]) -> Any:
        """What `call` returns, in a thread and in the caller's context; of a purpose, `limit` at once."""
        pool = self._pools.get((purpose, limit))
        if pool is None:
            # Not the loop's default pool, whose size follows the number of processors.
            pool = ThreadPoolExecutor(limit, thread_name_prefix=self._name)
            self._pools[purpose, limit] = pool
        inside = partial(contextvars.copy_context().run, call)
        return await asyncio.get_running_loop().run_in_executor(pool, inside)

    def shutdown(self) -> None:
        """Start none any more. Functions still at work are not waited for."""
        for each in self._pools.values():
            each.shutdown(wait=False, cancel_futures=True)
