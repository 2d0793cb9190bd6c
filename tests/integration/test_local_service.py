"""Processes under the supervision of `weft up`: real ones, small ones."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from weft.aio.guard import Guard
from weft.aio.poll import until
from weft.errors import Unavailable
from weft.local.logs import ProcessLog
from weft.local.service import Service, ServiceSpec
from weft.model.local_state import ChildState

LIMIT = 60.0


class World:
    """Services in a directory, and what was heard of them."""

    def __init__(self, directory: Path, guard: Guard, tasks: asyncio.TaskGroup) -> None:
        self.directory = directory
        self.states: list[ChildState] = []
        self.lines: list[str] = []
        self._guard = guard
        self._tasks = tasks

    def start(self, script: str, *, ready: Callable[[], bool] = lambda: True, grace: float = 5.0) -> Service:
        return self.start_command([sys.executable, "-c", script], ready=ready, grace=grace)

    def start_command(
        self, command: list[str], *, ready: Callable[[], bool] = lambda: True, grace: float = 5.0
    ) -> Service:
        async def is_ready(_since: float) -> bool:
            return ready()

        spec = ServiceSpec("one", command, dict(os.environ), self.directory, is_ready, grace)
        service = Service(
            spec,
            guard=self._guard,
            log=ProcessLog("one", self.directory, lambda _name, line: self.lines.append(line)),
            turn=asyncio.Semaphore(1),
            changed=self.states.append,
        )
        self._tasks.create_task(service.run())
        return service

    @property
    def phases(self) -> list[str]:
        return [each.phase for each in self.states]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with _world(tmp_path) as it:
        yield it


@asynccontextmanager
async def _world(directory: Path) -> AsyncIterator[World]:
    async with asyncio.timeout(LIMIT), Guard() as guard, asyncio.TaskGroup() as tasks:
        yield World(directory, guard, tasks)


SLEEP = "import time; print('hello', flush=True); time.sleep(600)"


async def test_a_service_is_ready_when_its_probe_says_so_and_stops_when_told(world: World) -> None:
    service = world.start(SLEEP, ready=lambda: "hello" in world.lines)
    await service.wait_ready()
    pid = service.state.pid
    assert pid is not None
    await service.stop()
    assert world.phases == ["starting", "ready", "stopping", "stopped"]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_service_that_was_killed_is_started_again(world: World) -> None:
    service = world.start(SLEEP)
    await service.wait_ready()
    first = service.state.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)

    async def is_back() -> bool:
        return service.ready and service.state.pid not in {None, first}

    await until(is_back)
    assert service.state.restarts == 1
    assert "exit code 137" in next(each.detail for each in world.states if each.phase == "restarting")
    await service.stop()


async def test_a_service_that_never_starts_says_why(world: World) -> None:
    service = world.start("import sys; print('no such file: ~/model.bin'); sys.exit(3)", ready=lambda: False)
    with pytest.raises(Unavailable, match=r"exit code 3: no such file: ~/model.bin.*one\.log"):
        await service.wait_ready()
    await service.stop()


async def test_a_program_that_does_not_exist_is_named(world: World) -> None:
    service = world.start_command(["/does/not/exist"])
    with pytest.raises(Unavailable, match="/does/not/exist"):
        await service.wait_ready()
    await service.stop()


async def test_a_service_that_ignores_sigterm_is_killed_after_its_grace(world: World) -> None:
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP
    service = world.start(script, ready=lambda: "hello" in world.lines, grace=0.2)
    await service.wait_ready()
    await service.stop()
    assert world.phases[-1] == "stopped"


async def test_what_a_service_writes_is_logged_line_by_line_and_endless_lines_are_cut(world: World) -> None:
    script = "print('x' * 200_000); print('\\xff\\n\\nend', flush=True); import time; time.sleep(600)"
    service = world.start(script, ready=lambda: "end" in world.lines)
    await service.wait_ready()
    await service.stop()
    assert sum(line.count("x") for line in world.lines) == 200_000
    assert max(map(len, world.lines)) < 200_000
    assert "end" in (world.directory / "one.log").read_text()


async def test_a_grandchild_that_holds_the_output_does_not_hold_up_the_restart(world: World) -> None:
    pid_file = world.directory / "pid"
    script = (
        "import subprocess, sys; "
        "child = subprocess.Popen(['sleep', '600'], start_new_session=True); "
        f"open({str(pid_file)!r}, 'w').write(str(child.pid)); sys.exit(1)"
    )
    service = world.start(script, ready=lambda: False)

    async def restarted() -> bool:
        return "restarting" in world.phases

    await until(restarted)
    await service.stop()
    with suppress(ProcessLookupError):
        os.kill(int(pid_file.read_text()), signal.SIGKILL)


async def test_a_service_stopped_while_it_pauses_between_restarts_does_not_come_back(world: World) -> None:
    service = world.start("raise SystemExit(1)", ready=lambda: False)

    async def restarting() -> bool:
        return world.phases[-1:] == ["restarting"]

    await until(restarting)
    await service.stop()
    assert world.phases == ["starting", "restarting", "stopped"]
