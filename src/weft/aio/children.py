"""Child processes, each leading a process group of its own, under the care of a guard."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from weft.aio.guard import Guard
from weft.aio.poll import until

_ORPHANS_GRACE = 1.0

# What a child does before it becomes the command: it tells the guard of its group, so that it has been told
# of it whenever the supervisor dies. Python ignores SIGPIPE and SIGXFSZ, which a command would inherit.
_ENLIST = """
import os, signal, sys
guard, program, *command = sys.argv[1:]
os.write(int(guard), b"+g %d\\n" % os.getpid())
os.close(int(guard))
for number in (signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(number, signal.SIG_DFL)
os.execv(program, command)
"""


class Child:
    """A running child process and the group it leads."""

    def __init__(self, process: Process, guard: Guard) -> None:
        self._process = process
        self._guard = guard
        self._swept = asyncio.Lock()
        self._group_gone = False

    @property
    def pid(self) -> int:
        """Its process id, which is also its group's."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet, as far as is known."""
        return self._process.returncode is None

    @property
    def stdin(self) -> asyncio.StreamWriter | None:
        """Its standard input, where that is a pipe."""
        return self._process.stdin

    @property
    def stdout(self) -> asyncio.StreamReader | None:
        """What it writes to its standard output, where that is a pipe."""
        return self._process.stdout

    @property
    def stderr(self) -> asyncio.StreamReader | None:
        """What it writes to its standard error, where that is a pipe."""
        return self._process.stderr

    async def wait(self) -> int:
        """Wait for its end, and end what it left behind in its group.

        Returns its exit code as a shell tells it: 128+n if signal n ended it.
        """
        code = await self.exited()
        async with self._swept:
            await self._end_orphans()
        return code

    async def exited(self) -> int:
        """Wait for its own end only; the exit code as in `wait`."""
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

    def send(self, number: int) -> None:
        """Send a signal to its group. Does nothing once the group has ended."""
        if not self._group_gone:
            # macOS answers EPERM where only zombies are left in the group.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    async def stop(self, grace: float, number: int = signal.SIGTERM) -> int:
        """End its group: signal `number`, and SIGKILL after `grace` seconds.

        Returns the exit code as `wait` does.
        """
        self.send(number)
        # A stopped process gets its signal only when it goes on.
        self.send(signal.SIGCONT)
        try:
            async with asyncio.timeout(grace):
                await self.exited()
        except TimeoutError:
            self.send(signal.SIGKILL)
        return await self.wait()

    async def _end_orphans(self) -> None:
        self.send(signal.SIGTERM)
        # Orphans are not our children: no system call waits for them.
        with suppress(TimeoutError):
            async with asyncio.timeout(_ORPHANS_GRACE):
                await until(self._group_has_ended)
        self.send(signal.SIGKILL)
        if not self._group_gone:
            self._group_gone = True
            self._guard.forget_group(self.pid)

    async def _group_has_ended(self) -> bool:
        try:
            os.killpg(self.pid, 0)
        except (ProcessLookupError, PermissionError):
            return True
        return False


async def spawn(
    command: Sequence[str],
    *,
    guard: Guard,
    environ: Mapping[str, str],
    stderr: int | None = None,
    stdin: int | None = None,
    stdout: int | None = None,
    directory: Path | None = None,
) -> Child:
    """Start `command` as the leader of a new process group that `guard` ends if this process dies.

    Standard streams are inherited unless given as for `subprocess.Popen`; `directory` is where it starts.
    Raises OSError (FileNotFoundError, PermissionError) if it cannot be started.
    """
    program = _program(command[0], environ, directory or Path())
    pipe = guard.fileno()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "-c", _ENLIST, str(pipe), program, *command),
        env=environ,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=directory,
        pass_fds=(pipe,),
        process_group=0,
    )
    return Child(process, guard)


def _program(name: str, environ: Mapping[str, str], directory: Path) -> str:
    """The program that a shell in `directory` would start for `name`."""
    place = str(directory / name) if os.sep in name else name
    path = environ.get("PATH", os.defpath)
    found = shutil.which(place, path=path)
    if found is None:
        code = errno.EACCES if shutil.which(place, os.F_OK, path) else errno.ENOENT
        raise OSError(code, os.strerror(code), name)
    return str(Path(found).absolute())
