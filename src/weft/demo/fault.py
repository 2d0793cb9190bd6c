"""The fault that the demo makes on purpose: one agent is killed, and the mesh has to notice."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass

from weft.demo.crew import ABOUT
from weft.demo.findings import About
from weft.errors import Unavailable
from weft.model.agent import Instance
from weft.sdk.directory import Change, ChangeKind
from weft.sdk.mesh import Mesh

NOTICE_TIMEOUT = 30.0
"""Seconds the mesh has to notice: longer than a lease."""

_ANSWER_TIMEOUT = 10.0
"""Seconds the victim has to say who it is."""

_WATCH_TIMEOUT = 10.0
"""Seconds discovery has to show the victim."""


@dataclass(frozen=True, slots=True)
class Kill:
    """An agent that was killed."""

    instance: Instance
    pid: int
    noticed_after: float | None
    """Seconds until discovery no longer returned it; None if it still did after NOTICE_TIMEOUT."""


async def kill_instance(mesh: Mesh, victim: Instance, announce: Callable[[int], None]) -> Kill:
    """Kill the program of `victim` with SIGKILL, and wait until discovery no longer returns that instance.

    `announce` is called with its process id just before. Raises MeshError if the victim cannot be reached.
    """
    about = await mesh.request(victim, ABOUT, result_type=About, timeout=_ANSWER_TIMEOUT)
    async with aclosing(mesh.watch(victim.type)) as changes:
        if not await _within(_WATCH_TIMEOUT, _first(changes, lambda each: each.instance.key == victim.key)):
            raise Unavailable(f"discovery does not know {victim.key}, though it answers")
        announce(about.pid)
        with suppress(ProcessLookupError):  # it ended by itself: what follows is the same
            os.kill(about.pid, signal.SIGKILL)
        started = time.monotonic()
        noticed = await _within(NOTICE_TIMEOUT, _first(changes, lambda each: _is_gone(victim, each)))
    return Kill(victim, about.pid, time.monotonic() - started if noticed else None)


async def _first(changes: AsyncIterator[Change], condition: Callable[[Change], bool]) -> bool:
    """Wait for the first of `changes` of which `condition` holds."""
    async for change in changes:
        if condition(change):
            return True
    return False


async def _within(seconds: float, event: Awaitable[bool]) -> bool:
    """Whether `event` comes true in time."""
    try:
        async with asyncio.timeout(seconds):
            return await event
    except TimeoutError:
        return False


def _is_gone(victim: Instance, change: Change) -> bool:
    """Whether `change` says that it is gone, or that a namesake has taken its place already."""
    if change.instance.key != victim.key:
        return False
    return change.kind is ChangeKind.REMOVED or change.instance.started_at != victim.started_at
