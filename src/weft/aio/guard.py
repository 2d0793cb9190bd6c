"""Nothing survives its supervisor: a guard process cleans up when the supervisor is gone, however it went.

No handler runs upon SIGKILL, so the work is left to a tiny shell process in a session of its own. It reads
from a pipe which process groups and directories are its supervisor's; the pipe ends when the supervisor does.
Then it sends the groups SIGTERM, after a short grace SIGKILL, removes the directories, and ends.
"""

from __future__ import annotations

import asyncio
import subprocess
from contextlib import suppress
from pathlib import Path
from secrets import token_urlsafe
from typing import IO, Self

from weft.aio.temporary import temporary_parent

_SHELL = "/bin/sh"

_SCRIPT = Path(__file__).with_name("guard.sh")


class Guard:
    """What a supervising process leaves behind to clean up after it. Use as an async context manager.

    Leaving the context ends what is still registered in the same way as the supervisor's death does.
    """

    def __init__(self, *, grace: float = 2.0) -> None:
        """`grace`: seconds between SIGTERM and SIGKILL, to a tenth."""
        self._grace = grace
        self._process: subprocess.Popen[bytes] | None = None

    def add_group(self, group: int) -> None:
        """Have the process group `group` ended if this process ends first."""
        self._tell(f"+g {group}")

    def fileno(self) -> int:
        """The pipe to the guard, for a child that tells of its group itself."""
        return self._pipe.fileno()

    def forget_group(self, group: int) -> None:
        """Leave the process group `group` alone from now on: it has ended."""
        self._tell(f"-g {group}")

    def add_directory(self, directory: Path) -> None:
        """Have `directory` (absolute, no newline in it) removed with all that is in it."""
        if not directory.is_absolute() or "\n" in str(directory):
            raise ValueError(f"{directory} cannot be guarded: not an absolute path on one line")
        self._tell(f"+d {directory}")

    def temporary_directory(self, prefix: str, parent: Path | None = None) -> Path:
        """Make a directory that no other user can enter, removed in the end with all that is in it.

        `parent` is where; by default `temporary_parent`. Raises OSError.
        """
        directory = (parent or temporary_parent()).absolute() / f"{prefix}{token_urlsafe(6)}"
        # Told first: whatever is made is removed, however soon this process dies.
        self.add_directory(directory)
        directory.mkdir(mode=0o700)
        return directory

    def _tell(self, line: str) -> None:
        # A guard that somebody killed protects no longer, but harms nothing either.
        with suppress(BrokenPipeError):
            self._pipe.write(f"{line}\n".encode())

    @property
    def _pipe(self) -> IO[bytes]:
        if self._process is None or self._process.stdin is None:
            raise RuntimeError("the guard has not been started")
        return self._process.stdin

    async def __aenter__(self) -> Self:
        self._process = await asyncio.to_thread(_start, self._grace)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is None or self._process.stdin is None:
            return
        self._process.stdin.close()
        await asyncio.shield(asyncio.to_thread(self._process.wait))


def _start(grace: float) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [_SHELL, str(_SCRIPT), str(round(grace * 10))],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdout is not None  # noqa: S101  # it is a pipe
    with process.stdout as greeting:
        if not greeting.read(1):
            process.communicate()
            raise RuntimeError(f"the guard {_SCRIPT} does not start")
    return process
