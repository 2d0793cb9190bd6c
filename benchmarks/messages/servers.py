"""The servers that messages go through: NATS and Redis, bare, on loopback, both with their data on disk.

Neither confirms a write only when the disk has it: NATS synchronises every two minutes, Redis every second.
What they confirmed survives their own death, and that of the machine only in part.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.processes import running

from weft.aio.children import Child
from weft.aio.guard import Guard
from weft.aio.poll import until
from weft.aio.ports import reserve_port
from weft.local.nats_settings import MAX_PAYLOAD_BYTES, nats_program

HOST = "127.0.0.1"

_START_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a benchmark of messages starts its processes."""

    guard: Guard
    directory: Path
    """For temporary files; on disk, and empty at first."""
    stack: AsyncExitStack
    """Left with the benchmark; ends what was started."""
    pids: dict[str, int] = field(default_factory=dict)
    """Process ids of the servers, `nats` and `redis`; of each the one that was started last."""

    async def nats(self) -> str:
        """Start a nats-server; return its URL. Raises RuntimeError if it does not take clients in time."""
        port = _free_port()
        data = self._directory(f"nats-{port}")
        config = data / "nats.conf"
        settings = {
            "host": HOST,
            "port": port,
            "max_payload": MAX_PAYLOAD_BYTES,
            "jetstream": {"store_dir": str(data)},
        }
        config.write_text(json.dumps(settings))
        child = await self.start(nats_program(), "--config", str(config))
        await _takes_clients("nats-server", port)
        self.pids["nats"] = child.pid
        return f"nats://{HOST}:{port}"

    async def redis(self) -> str:
        """Start a redis-server; return its URL. Raises RuntimeError if it does not take clients in time."""
        program = shutil.which("redis-server")
        if program is None:
            raise RuntimeError("redis-server is not installed: Debian's package is redis-server")
        port = _free_port()
        child = await self.start(
            program,
            *("--bind", HOST, "--port", str(port), "--dir", str(self._directory(f"redis-{port}"))),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
            *("--auto-aof-rewrite-percentage", "0", "--maxmemory-policy", "noeviction"),
        )
        await _takes_clients("redis-server", port)
        self.pids["redis"] = child.pid
        return f"redis://{HOST}:{port}/0"

    async def start(self, *command: str, environ: dict[str, str] | None = None) -> Child:
        """Start a process that lives as long as the benchmark, unless it is stopped before."""
        return await self.stack.enter_async_context(self.running(*command, environ=environ))

    @asynccontextmanager
    async def running(self, *command: str, environ: dict[str, str] | None = None) -> AsyncIterator[Child]:
        """Run a process for the block; what it says goes to a log."""
        # Where that is set Python compiles every module at every start.
        more = {"PYTHONDONTWRITEBYTECODE": "", **(environ or {})}
        with self._log.open("ab") as log:
            async with running(self.guard, command, stderr=log.fileno(), environ=more) as child:
                yield child

    @property
    def log(self) -> str:
        """What the processes have written to their standard errors."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    @property
    def _log(self) -> Path:
        return self.directory / "log"

    def _directory(self, name: str) -> Path:
        path = self.directory / name
        path.mkdir()
        return path


_TOLD_OF_LOG = 3000


@asynccontextmanager
async def place() -> AsyncIterator[Place]:
    """A place for a benchmark; everything that was started in it ends with the block."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="wm-")))
        guard = await stack.enter_async_context(Guard())
        guard.add_directory(directory)
        made = Place(guard, directory, stack)
        try:
            yield made
        except RuntimeError as error:
            error.add_note(made.log[-_TOLD_OF_LOG:])
            raise


def _free_port() -> int:
    with reserve_port(HOST) as reserved:
        return reserved.port


async def _takes_clients(name: str, port: int) -> None:
    async def connects() -> bool:
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            return False
        writer.close()
        return True

    try:
        async with asyncio.timeout(_START_TIMEOUT):
            await until(connects)
    except TimeoutError:
        raise RuntimeError(f"{name} does not take clients after {_START_TIMEOUT:g} s") from None
