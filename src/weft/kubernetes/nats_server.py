"""A NATS server in a pod: configured, told whom to believe as the mesh's roots change, drained at the end.

The mesh's roots come into being after NATS, and rotate; NATS reads them from a file, and again upon SIGHUP.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp

from weft.aio.children import Child, spawn
from weft.aio.guard import Guard
from weft.aio.poll import until
from weft.aio.signals import stop_signals
from weft.aio.tasks import TaskOwner
from weft.errors import InvalidRequest, Unavailable
from weft.kubernetes.health import serving_health
from weft.kubernetes.nats_configuration import (
    LAME_DUCK_SECONDS,
    LEADERS_LEAVE_SECONDS,
    NatsPlace,
    check_store,
    nats_configuration,
    nats_keys,
)
from weft.kubernetes.roots_file import read_roots
from weft.local.nats_security import NatsSecurity
from weft.local.nats_settings import nats_program
from weft.model.local_state import LOOPBACK

logger = logging.getLogger(__name__)

HEALTH_PORT = 8223

ROOTS_INTERVAL = 1.0
"""Seconds between two looks at the mesh's roots."""

STOP_LIMIT = LAME_DUCK_SECONDS + LEADERS_LEAVE_SECONDS + 5.0
"""Seconds that a server has to hand over its leaders and clients and to end, before it is killed."""

_KILL_GRACE = 5.0
_MAX_HEALTH_BYTES = 64 * 1024
_HEALTH_LIMIT = aiohttp.ClientTimeout(total=3.0)
_ALIVE = "healthz?js-enabled-only=true"
_CAUGHT_UP = "healthz"


async def run_nats(
    place: NatsPlace, *, keys: Path, roots: Path | None = None, health_port: int = HEALTH_PORT
) -> None:
    """Run the server of `place` until SIGTERM or SIGINT, or until it ends by itself.

    `keys` is the directory with its keys, `roots` the file with the mesh's roots, which need not be there
    yet. Raises InvalidRequest where keys are missing, Conflict if what is kept is another kind of server's,
    Unavailable if there is no server, it cannot be started, or ended by itself.
    """
    check_store(place)
    program = nats_program()
    async with Guard() as guard:
        with TemporaryDirectory(prefix="weft-nats-") as directory:
            runtime = Path(directory)
            guard.add_directory(runtime)
            security = nats_keys(keys, runtime)
            trust = MeshTrust(security, roots)
            try:
                trust.refresh()
                configuration = runtime / "nats.conf"
                configuration.write_text(nats_configuration(place, security), encoding="utf-8")
                child = await spawn(
                    [program, "--config", str(configuration)], guard=guard, environ=os.environ
                )
            except OSError as error:
                raise Unavailable(
                    f"NATS cannot be started ({error}): mount an emptyDir in memory at /tmp"
                ) from error
            await _supervised(child, place, trust, health_port)


async def _supervised(child: Child, place: NatsPlace, trust: MeshTrust, health_port: int) -> None:
    """Have `child` run until it ends, or this process is asked to stop."""
    stop = asyncio.Event()
    try:
        async with aiohttp.ClientSession(timeout=_HEALTH_LIMIT) as session, TaskOwner("nats") as tasks:
            health = NatsHealth(session, place.monitor_port)
            checks = {"/livez": health.living, "/readyz": health.ready}
            with stop_signals(stop.set):
                async with serving_health(place.listen, health_port, checks):
                    tasks.start(_follow_trust(child, trust), name="trust", endless=True)
                    tasks.start(_tell_readiness(health, place.name), name="readiness")
                    asked = tasks.start(_wait(stop), name="stop")
                    ended = tasks.start(child.exited(), name="end of nats-server")
                    await asyncio.wait({asked, ended}, return_when=asyncio.FIRST_COMPLETED)
                    if not asked.done():
                        raise Unavailable(f"nats-server ended by itself with exit code {await ended}")
                    await _drained(child)
    finally:
        await child.stop(_KILL_GRACE)


async def _drained(child: Child) -> None:
    """Have the server hand over what it leads, and its clients, and end."""
    logger.info("nats-server hands over what it leads, and its clients")
    child.send(signal.SIGUSR2)
    with suppress(TimeoutError):
        async with asyncio.timeout(STOP_LIMIT):
            await child.exited()


async def _follow_trust(child: Child, trust: MeshTrust) -> None:
    while True:
        await asyncio.sleep(ROOTS_INTERVAL)
        try:
            changed = await asyncio.to_thread(trust.refresh)
        except OSError as error:
            logger.warning("NATS cannot be told of the mesh's new roots, trying on: %s", error)
            continue
        if changed:
            logger.info("the mesh's roots have changed: NATS reads them anew")
            child.send(signal.SIGHUP)


async def _tell_readiness(health: NatsHealth, name: str) -> None:
    """Log that the server is ready, once it is."""

    async def ready() -> bool:
        return not await health.ready()

    await until(ready)
    logger.info("NATS server %s is ready", name)


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


class MeshTrust:
    """Whom the server believes: its own authority, and the mesh's roots as long as they make sense."""

    def __init__(self, security: NatsSecurity, roots: Path | None) -> None:
        """`roots` is the file; None: the mesh has none."""
        self._security = security
        self._file = roots
        self._roots = b""
        self._refused = ""

    def refresh(self) -> bool:
        """Write down whom to believe; whether that is news for the server. Raises OSError.

        Roots that are gone or broken are as good as those before them: members of the mesh stay connected.
        """
        self._roots = self._read() or self._roots
        return self._security.trust(self._roots)

    def _read(self) -> bytes:
        if self._file is None:
            return b""
        try:
            roots, problem = read_roots(self._file), ""
        except InvalidRequest as error:
            roots, problem = b"", error.detail
        if problem and problem != self._refused:
            logger.warning("the mesh's roots cannot be used: %s", problem)
        self._refused = problem
        return roots


class NatsHealth:
    """How the server says that it is, by its monitoring port."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session = session
        self._url = f"http://{LOOPBACK}:{port}"

    async def living(self) -> str:
        """What is wrong with it that only a start cures; empty if nothing is."""
        return await self._problem(_ALIVE)

    async def ready(self) -> str:
        """Why it cannot stand in for another yet; empty if it has caught up, and can reach a quorum."""
        return await self._problem(_CAUGHT_UP)

    async def _problem(self, path: str) -> str:
        try:
            async with self._session.get(f"{self._url}/{path}") as response:
                said = await response.content.read(_MAX_HEALTH_BYTES)
                return "" if response.status == 200 else said.decode(errors="replace").strip()
        except (aiohttp.ClientError, TimeoutError) as error:
            return f"nats-server does not answer ({type(error).__name__})"
