"""What a supervising process leaves behind when it is killed: nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from weft.aio.children import Child, spawn
from weft.aio.guard import Guard
from weft.aio.poll import until
from weft.aio.temporary import temporary_parent

SUPERVISOR = textwrap.dedent("""
    import asyncio, os, sys
    from pathlib import Path
    from weft.aio.children import spawn
    from weft.aio.guard import Guard

    async def supervise():
        async with Guard(grace=0.3) as guard:
            directory = guard.temporary_directory("made-", Path(sys.argv[1]))
            (directory / "file").touch()
            for command in sys.argv[2:]:
                await spawn(["sh", "-c", command], guard=guard, environ=os.environ)
            await asyncio.Event().wait()

    asyncio.run(supervise())
""")


@pytest.fixture
async def guard() -> AsyncIterator[Guard]:
    async with Guard(grace=0.3) as guard:
        yield guard


@pytest.fixture
def supervisors() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for each in started:
        each.kill()
        each.wait()


def supervise(directory: Path, *commands: str) -> subprocess.Popen[bytes]:
    """A process with those children, and with a directory that it makes in `directory`."""
    directory.mkdir()
    return subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(directory), *commands])


async def eventually(condition: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return condition()

    async with asyncio.timeout(60):
        await until(holds)


async def written(file: Path) -> int:
    """The process id that a child writes into `file`."""
    await eventually(lambda: bool(read(file)))
    return int(read(file))


def read(file: Path) -> str:
    text = file.read_text() if file.exists() else ""
    return text if text.endswith("\n") else ""


async def gone(*pids: int) -> None:
    await eventually(lambda: not any(running(pid) for pid in pids))


def running(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT])
async def test_children_grandchildren_and_directories_go_with_their_supervisor(
    tmp_path: Path, supervisors: list[subprocess.Popen[bytes]], death: signal.Signals
) -> None:
    directory = tmp_path / "with a space and * in it"
    child, grandchild, other = tmp_path / "child", tmp_path / "grandchild", tmp_path / "other"
    supervisor = supervise(
        directory,
        f"echo $$ > {child}; sh -c 'echo $$ > {grandchild}; sleep 300; true' & wait",
        f"echo $$ > {other}; sleep 300; true",
    )
    supervisors.append(supervisor)
    pids = [await written(file) for file in (child, grandchild, other)]
    supervisor.send_signal(death)
    await gone(*pids)
    await eventually(lambda: not list(directory.iterdir()))


KILLED_WHILE_IT_STARTS_A_CHILD = SUPERVISOR.replace(
    "async def supervise",
    "start = asyncio.create_subprocess_exec\n"
    "async def start_and_die(*args, **kwargs):\n"
    "    await start(*args, **kwargs)\n"
    "    os.kill(os.getpid(), 9)\n"
    "asyncio.create_subprocess_exec = start_and_die\n"
    "async def supervise",
)


async def test_a_child_goes_whose_supervisor_died_while_it_was_started(tmp_path: Path) -> None:
    child, directory = tmp_path / "child", tmp_path / "directory"
    directory.mkdir()
    script = f"echo $$ > {child}; sleep 300; true"
    command = [sys.executable, "-c", KILLED_WHILE_IT_STARTS_A_CHILD, str(directory), script]
    supervisor = await asyncio.create_subprocess_exec(*command)
    assert await asyncio.wait_for(supervisor.wait(), 30) == -signal.SIGKILL
    # The guard ends last of all: by then a child that was to be is no more.
    await eventually(lambda: not list(directory.iterdir()))
    if child.exists():
        await gone(await written(child))


KILLED_WHILE_IT_MAKES_A_DIRECTORY = SUPERVISOR.replace(
    "async def supervise",
    "make = Path.mkdir\n"
    "def make_and_die(*args, **kwargs):\n"
    "    make(*args, **kwargs)\n"
    "    os.kill(os.getpid(), 9)\n"
    "Path.mkdir = make_and_die\n"
    "async def supervise",
)


async def test_a_directory_goes_whose_supervisor_died_while_it_was_made(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED_WHILE_IT_MAKES_A_DIRECTORY, str(tmp_path)]
    supervisor = await asyncio.create_subprocess_exec(*command)
    assert await asyncio.wait_for(supervisor.wait(), 30) == -signal.SIGKILL
    await eventually(lambda: not list(tmp_path.iterdir()))


async def test_a_temporary_directory_is_its_makers_alone(guard: Guard, tmp_path: Path) -> None:
    directory = guard.temporary_directory("made-", tmp_path)
    assert (directory.parent, directory.stat().st_mode & 0o777) == (tmp_path, 0o700)
    with pytest.raises(FileNotFoundError):
        guard.temporary_directory("made-", tmp_path / "nowhere")


async def test_a_child_that_ignores_sigterm_or_is_stopped_goes_too(
    tmp_path: Path, supervisors: list[subprocess.Popen[bytes]]
) -> None:
    stubborn, stopped = tmp_path / "stubborn", tmp_path / "stopped"
    supervisor = supervise(
        tmp_path / "directory",
        f"trap '' TERM INT HUP; echo $$ > {stubborn}; while true; do sleep 1; done",
        f"echo $$ > {stopped}; sleep 300; true",
    )
    supervisors.append(supervisor)
    pids = [await written(file) for file in (stubborn, stopped)]
    os.kill(pids[1], signal.SIGSTOP)
    supervisor.kill()
    await gone(*pids)


async def test_the_guard_itself_goes_as_well(
    tmp_path: Path, supervisors: list[subprocess.Popen[bytes]]
) -> None:
    child = tmp_path / "child"
    supervisor = supervise(tmp_path / "directory", f"echo $$ > {child}; exec sleep 300")
    supervisors.append(supervisor)
    await written(child)
    family = {each.pid for each in psutil.Process(supervisor.pid).children(recursive=True)}
    assert len(family) == 2  # the guard and the child
    supervisor.kill()
    await gone(*family)


async def test_a_signal_to_the_terminal_does_not_reach_the_guard(tmp_path: Path) -> None:
    others = set(psutil.Process().children())
    async with Guard(grace=0.3) as guard:
        (guard_process,) = set(psutil.Process().children()) - others
        assert os.getsid(guard_process.pid) == guard_process.pid
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            guard_process.send_signal(number)
        directory = tmp_path / "directory"
        directory.mkdir()
        guard.add_directory(directory)
    assert not directory.exists()


async def test_a_group_that_the_guard_was_told_to_forget_stays() -> None:
    stranger = await asyncio.create_subprocess_exec("sleep", "300", process_group=0)
    try:
        async with Guard(grace=0.3) as guard:
            guard.add_group(stranger.pid)
            guard.forget_group(stranger.pid)
        assert stranger.returncode is None
    finally:
        stranger.kill()
        await stranger.wait()


async def test_a_directory_that_could_be_mistaken_is_refused(guard: Guard) -> None:
    for directory in (Path("relative"), Path("/two\nlines")):
        with pytest.raises(ValueError, match="cannot be guarded"):
            guard.add_directory(directory)


def test_temporary_files_go_where_the_environment_says_if_that_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for said, where in ((tmp_path, tmp_path), (tmp_path / "nowhere", Path("/tmp")), ("", Path("/tmp"))):
        monkeypatch.setenv("TMPDIR", str(said))
        assert temporary_parent() == where
        assert not list(tmp_path.iterdir())


async def sh(script: str, guard: Guard) -> Child:
    return await spawn(["sh", "-c", script], guard=guard, environ=os.environ)


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -s KILL $$", 137)])
async def test_exit_codes_are_told_as_a_shell_does(guard: Guard, script: str, code: int) -> None:
    child = await sh(script, guard)
    assert await asyncio.wait_for(child.wait(), 30) == code
    assert not child.running


async def test_what_a_child_leaves_in_its_group_ends_after_it(guard: Guard, tmp_path: Path) -> None:
    orphan = tmp_path / "orphan"
    child = await sh(f"sh -c 'echo $$ > {orphan}; sleep 300; true' & exit 3", guard)
    pid = await written(orphan)
    assert await asyncio.wait_for(child.wait(), 30) == 3
    await gone(pid)


async def test_stop_ends_a_child_that_ignores_sigterm(guard: Guard, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    child = await sh(f"trap '' TERM; echo $$ > {pid_file}; while true; do sleep 1; done", guard)
    await written(pid_file)
    assert await asyncio.wait_for(child.stop(grace=0.2), 30) == 128 + signal.SIGKILL


async def test_stop_lets_a_child_end_in_its_own_way(guard: Guard, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    child = await sh(f"trap 'exit 5' INT; echo $$ > {pid_file}; while true; do sleep 0.05; done", guard)
    await written(pid_file)
    assert await asyncio.wait_for(child.stop(10, signal.SIGINT), 30) == 5


async def test_signals_to_a_child_that_has_ended_do_nothing(guard: Guard) -> None:
    child = await sh("exit 0", guard)
    await child.wait()
    child.send(signal.SIGTERM)


async def test_a_program_that_does_not_exist_is_an_error_and_no_child(guard: Guard) -> None:
    with pytest.raises(FileNotFoundError):
        await spawn(["no-such-program-anywhere"], guard=guard, environ=os.environ)
