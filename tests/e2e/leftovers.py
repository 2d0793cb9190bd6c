"""Whatever a test started and did not end: processes, ports, temporary files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from tests.integration.sidecar_process import alive, eventually

from weft.aio.ports import PortUnavailable, reserve_port

MARK = "WEFT_TEST_SCOPE"
"""Environment variable that says to which scope a process belongs; inherited by all it starts."""


class Scope:
    """Knows its processes by their environment, or by their command line (Envoy is given no environment)."""

    def __init__(self, directory: Path) -> None:
        """`directory` is for temporary files; its path is short, since Unix sockets are made in it."""
        self.directory = directory
        self._ports: set[int] = set()

    @property
    def environ(self) -> dict[str, str]:
        """The environment for processes started within the scope."""
        return {**os.environ, MARK: str(self.directory), "TMPDIR": str(self.directory)}

    def processes(self) -> list[psutil.Process]:
        """All of its processes that run now."""
        return [each for each in psutil.process_iter() if alive(each) and self._owns(each)]

    def note_ports(self) -> None:
        """Remember the ports at which its processes listen now: they must be free at the end."""
        self._ports |= {port for each in self.processes() for port in _listening(each)}

    async def check_empty(self) -> None:
        """Fail unless everything has gone, or goes in a moment."""
        await eventually(lambda: not self.processes(), lambda: f"still running: {self.processes()}")
        await eventually(lambda: not self._files(), lambda: f"left behind: {self._files()}")
        taken = [port for port in sorted(self._ports) if not _free(port)]
        assert not taken, f"still in use: {taken}"

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


def _free(port: int) -> bool:
    try:
        reserve_port("127.0.0.1", port).release()
    except PortUnavailable:
        return False
    return True
