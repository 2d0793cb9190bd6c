"""Whatever a test started and did not end: processes, ports, temporary files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from tests.integration.sidecar_process import alive, eventually

MARK = "WEFT_TEST_SCOPE"
"""Environment variable that says to which scope a process belongs; inherited by all it starts."""


class Scope:
    """Knows its processes by their environment, or by their command line (Envoy is given no environment)."""

    def __init__(self, directory: Path) -> None:
        """`directory` is for temporary files; its path is short, since Unix sockets are made in it."""
        self.directory = directory
        self._listeners: set[tuple[int, int]] = set()

    @property
    def environ(self) -> dict[str, str]:
        """The environment for processes started within the scope."""
        return {**os.environ, MARK: str(self.directory), "TMPDIR": str(self.directory)}

    def processes(self) -> list[psutil.Process]:
        """All of its processes that run now."""
        return [each for each in psutil.process_iter() if alive(each) and self._owns(each)]

    def note_ports(self) -> None:
        """Remember the ports at which its processes listen now, and whoever else does: none may at the end.

        A port that was given back is soon another mesh's, so it is not enough that somebody has it.
        """
        ports = {port for each in self.processes() for port in _listening(each)}
        listeners = {(port, each.pid) for each in psutil.process_iter() for port in _listening(each)}
        self._listeners |= {(port, pid) for port, pid in listeners if port in ports}

    async def check_empty(self) -> None:
        """Fail unless everything has gone, or goes in a moment."""
        await eventually(lambda: not self.processes(), lambda: f"still running: {self.processes()}")
        await eventually(lambda: not self._files(), lambda: f"left behind: {self._files()}")
        known = {pid for _, pid in self._listeners}
        now = {
            (port, each.pid)
            for each in psutil.process_iter()
            if each.pid in known
            for port in _listening(each)
        }
        taken = sorted(self._listeners & now)
        assert not taken, f"still in use (port, process): {taken}"

    def _owns(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error):
            named = any(str(self.directory) in each for each in process.cmdline())
            return named or process.environ().get(MARK) == str(self.directory)
        return False

    def _files(self) -> list[Path]:
        return sorted(self.directory.iterdir())


@contextmanager
def scope() -> Iterator[Scope]:
    """A scope with a directory of its own. Whoever uses it checks at the end that it is empty."""
    with TemporaryDirectory(prefix="we-", dir="/tmp") as name:
        yield Scope(Path(name))


def _listening(process: psutil.Process) -> set[int]:
    with suppress(psutil.Error):
        connections = process.net_connections("inet")
        return {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}
    return set()
