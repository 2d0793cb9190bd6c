"""A branch that is a task in a queue: followed to its end, and cancelled with whoever waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from weft.errors import MeshError, Unavailable
from weft.model.task import TaskEventKind
from weft.sdk.calls import pauses
from weft.sdk.mesh import Mesh
from weft.sdk.task_handle import TaskHandle

CANCEL_TIMEOUT = 5.0
"""Seconds in which a task is cancelled that nobody waits for any more; else its deadline ends it."""

logger = logging.getLogger("weft.orchestration")


@dataclass(frozen=True, slots=True)
class Order:
    """A task to submit."""

    queue: str
    arguments: Mapping[str, Any]
    left: float
    """Seconds until its deadline."""
    idempotency_key: str | None


@dataclass(frozen=True, slots=True)
class Done:
    """A task that succeeded."""

    value: Any
    worker: str
    """`<id>.<type>` of who did it."""


async def work_off(
    mesh: Mesh,
    order: Order,
    *,
    begun: Callable[[TaskHandle], None],
    emit: Callable[[Any], Awaitable[None]],
) -> Done:
    """Submit a task, and wait for its result; `begun` hears of it, and `emit` of its partial results.

    If that is broken off, the task is cancelled. A store that cannot be reached is waited for. Raises what
    `submit` and TaskHandle.result raise.
    """
    submission = asyncio.ensure_future(
        mesh.submit(order.queue, order.arguments, deadline=order.left, idempotency_key=order.idempotency_key)
    )
    try:
        task = await asyncio.shield(submission)
        begun(task)
        worker = await _followed(task, emit)
        return Done(await task.result(timeout=order.left), worker)
    except asyncio.CancelledError:
        await _given_up(submission)
        raise


async def _followed(task: TaskHandle, emit: Callable[[Any], Awaitable[None]]) -> str:
    """Follow a task to its end; who worked on it last."""
    worker = cursor = ""
    delays = pauses()
    while True:
        try:
            async with aclosing(task.updates(cursor)) as updates:
                async for news in updates:
                    cursor = news.cursor
                    if news.task is not None:
                        worker = news.task.worker
                    elif news.event is not None and news.event.kind is TaskEventKind.PARTIAL:
                        await emit(news.event.data)
            break
        except Unavailable as error:
            logger.warning("task %r cannot be followed for now (%s)", task.id, error)
        await asyncio.sleep(next(delays))
    agent_type, _, instance = worker.partition(".")
    return f"{instance}.{agent_type}" if instance else worker


async def _given_up(submission: asyncio.Future[TaskHandle]) -> None:
    """Cancel a task that was, or is just being, submitted."""
    try:
        async with asyncio.timeout(CANCEL_TIMEOUT):
            task = await submission
            await task.cancel()
    except (MeshError, TimeoutError) as error:
        # It was not submitted, has ended meanwhile, or its deadline ends it.
        logger.warning("a task of a branch that is not needed any more was not cancelled: %r", error)
