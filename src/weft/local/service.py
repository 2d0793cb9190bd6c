"""One process of the mesh, kept running: started anew whenever it ends, until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from weft.aio.children import Child, spawn
from weft.aio.guard import Guard
from weft.aio.poll import until
from weft.errors import MeshError, Unavailable
from weft.local.logs import ProcessLog
from weft.model.local_state import ChildState

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_FAILURES_AT_START = 3
_CANNOT_START = 127
_LAST_WORDS = 2.0
_STEADY = 10.0
"""Seconds after which a process that ends is not taken to be failing over and over."""


class Phase(StrEnum):
    """Where a process stands."""

    WAITING = "waiting"
    """For its turn to be started."""
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    """It ended by itself, and will be started anew in a moment."""
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """What to run."""

    name: str
    command: Sequence[str]
    environ: Mapping[str, str]
    directory: Path
    ready: Callable[[float], Awaitable[bool]]
    """Whether the process that was started at that time (seconds since 1970) does its work."""
    stop_grace: float = 10.0
    """Seconds between SIGTERM and SIGKILL."""
    admission: Callable[[], Awaitable[Mapping[str, str]]] | None = None
    """Gives what one start needs beside `environ`: a join token, which is good once. May raise MeshError."""


class Service:
    """A process under supervision. `run` keeps it running; all else may be called meanwhile."""

    def __init__(
        self,
        spec: ServiceSpec,
        *,
        guard: Guard,
        log: ProcessLog,
        turn: AbstractAsyncContextManager[object],
        changed: Callable[[ChildState], None],
    ) -> None:
        """`turn` is held while it starts, to bound how many start at once; `changed` hears of every step."""
        self.spec = spec
        self._guard = guard
        self._log = log
        self._turn = turn
        self._changed = changed
        self._child: Child | None = None
        self._phase = Phase.WAITING
        self._detail = ""
        self._last_end = ""
        self._ends = 0
        self._failures = 0
        self._ready = asyncio.Event()
        self._failing = asyncio.Event()
        self._stop_asked = asyncio.Event()
        self._ended = asyncio.Event()

    @property
    def state(self) -> ChildState:
        """How it stands."""
        pid = self._child.pid if self._child is not None and self._child.running else None
        return ChildState(
            name=self.spec.name, pid=pid, phase=self._phase, restarts=self._ends, detail=self._detail
        )

    @property
    def ready(self) -> bool:
        """Whether the process that runs now has been found ready."""
        return self._ready.is_set()

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stop_asked.is_set()

    @property
    def failure(self) -> str:
        """Why it does not start, once it has ended several times before it was ready; else empty."""
        if not self._failing.is_set():
            return ""
        return f"{self.spec.name} does not start: {self._last_end} (log: {self._log.path})"

    async def wait_ready(self) -> None:
        """Wait until it is ready. Raises Unavailable, with the reason, when it ends over and over instead."""
        waits = [asyncio.create_task(each.wait()) for each in (self._ready, self._failing)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
        if failure := self.failure:
            raise Unavailable(failure)

    async def run(self) -> None:
        """Run it until `stop`."""
        try:
            while not self.stopping:
                started = time.monotonic()
                code = await self._run_once()
                if not self.stopping:
                    await self._pause_after(code, time.monotonic() - started)
        finally:
            self._enter(Phase.STOPPED)
            self._ended.set()

    def ask_to_stop(self) -> None:
        """Don't start it again; `stop` is to follow."""
        self._stop_asked.set()

    async def stop(self) -> None:
        """End it, with SIGKILL once `stop_grace` is over. Returns when it has ended, and `run` too."""
        self.ask_to_stop()
        await self._stop_child()
        await self._ended.wait()

    def hurry(self) -> None:
        """Tell it a second time to stop, so that it waits for nothing."""
        self.send(signal.SIGTERM)

    def send(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self._child is not None and self._child.running:
            self._child.send(number)

    async def _run_once(self) -> int:
        async with asyncio.TaskGroup() as tasks:
            async with self._turn:
                if self.stopping:
                    return 0
                self._enter(Phase.STARTING)
                try:
                    child, relay = await self._start(tasks)
                except (OSError, MeshError) as error:
                    self._log.last_line = f"it cannot be started: {error}"
                    return _CANNOT_START
                readiness = tasks.create_task(self._await_readiness(), name=f"start of {self.spec.name}")
                ended = tasks.create_task(child.wait(), name=f"end of {self.spec.name}")
                if self.stopping:
                    await self._stop_child()
                await asyncio.wait({readiness, ended}, timeout=_STEADY, return_when=asyncio.FIRST_COMPLETED)
            code = await ended
            readiness.cancel()
            # Whoever fled the process's group may hold its output open for ever.
            await asyncio.wait({relay}, timeout=_LAST_WORDS)
            relay.cancel()
        return code

    async def _start(self, tasks: asyncio.TaskGroup) -> tuple[Child, asyncio.Task[None]]:
        admission = await self.spec.admission() if self.spec.admission is not None else {}
        reading, writing = os.pipe()
        relay = tasks.create_task(self._log.relay(reading), name=f"log of {self.spec.name}")
        try:
            self._child = await spawn(
                self.spec.command,
                guard=self._guard,
                environ={**self.spec.environ, **admission},
                directory=self.spec.directory,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
            )
        finally:
            os.close(writing)
        return self._child, relay

    async def _await_readiness(self) -> None:
        started_at = time.time()
        await until(lambda: self.spec.ready(started_at))
        self._ready.set()
        self._failing.clear()
        if not self.stopping:
            self._enter(Phase.READY)

    async def _pause_after(self, code: int, lived: float) -> None:
        self._ends += 1
        was_ready = self._ready.is_set()
        self._ready.clear()
        self._failures = 1 if was_ready and lived > _STEADY else self._failures + 1
        pause = min(_FIRST_PAUSE * 2 ** (self._failures - 1), _LONGEST_PAUSE)
        last_words = f": {self._log.last_line}" if self._log.last_line else ""
        self._last_end = f"it ended with exit code {code}{last_words}"
        if not was_ready and self._failures >= _FAILURES_AT_START:
            self._failing.set()
        self._enter(Phase.RESTARTING, self._last_end)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._stop_asked.wait()

    async def _stop_child(self) -> None:
        if self._child is not None and self._child.running:
            self._enter(Phase.STOPPING)
            await self._child.stop(self.spec.stop_grace)

    def _enter(self, phase: Phase, detail: str = "") -> None:
        self._phase, self._detail = phase, detail
        self._changed(self.state)
