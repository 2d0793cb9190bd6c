"""The command `weft`, run as a user would, in a home of its own; and what it leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from tests.binaries import WEFT

EXAMPLES = Path(__file__).parents[2] / "examples"
TIMEOUT = 150.0
"""Seconds that any one command may take."""

START_TIMEOUT = 120
"""Seconds within which a mesh has started and is healthy: it may be a large one, on a busy machine."""

PAUSE = 0.5
"""Seconds between two commands that ask whether something has come true: each costs as much computing."""

LEFTOVER_TIMEOUT = 60.0
"""Seconds within which everything must be gone after the mesh was killed."""


class Weft:
    """One user's `weft`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.temporary = directory / "tmp"
        self.temporary.mkdir()
        self._home = directory / "home"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("WEFT_")}
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
            kept.pop(name, None)
        for name in ("HOLYSHEEP_API_KEY", "OPENAI_API_KEY"):  # no test is to ask real models, for money
            kept.pop(name, None)
        self.environ = {
            **kept,
            "HOME": str(directory),
            "WEFT_HOME": str(self._home),
            "TMPDIR": str(self.temporary),
            "COLUMNS": "200",
        }

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [WEFT, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
            env=self.environ,
            cwd=self.directory,
        )

    def ok(self, *arguments: str, stdin: str = "") -> str:
        """Run a command that must succeed; its output."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, (
            f"weft {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """Run a command that must succeed; its output as JSON."""
        return json.loads(self.ok(*arguments, "--output", "json"))

    def up(self, *arguments: str) -> str:
        """Start a mesh in the background, at free ports; what is said of it."""
        return self.ok("up", "-d", "--port-base", "0", "--timeout", str(START_TIMEOUT), *arguments)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command; its output is one pipe."""
        return subprocess.Popen(
            [WEFT, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environ,
            cwd=self.directory,
            # A Ctrl-C at the terminal reaches the whole foreground group: so will ours.
            process_group=0,
        )

    def write(self, name: str, text: str) -> Path:
        """Write a file beside which commands run."""
        path = self.directory / name
        path.write_text(text)
        return path

    def processes(self) -> list[psutil.Process]:
        """All processes that belong to this user: they have the home in their environment or command line."""
        return [each for each in psutil.process_iter() if each.pid != os.getpid() and self._is_ours(each)]

    def assert_nothing_left(self) -> None:
        """Wait until no process, port or temporary file is left, and fail if that does not happen."""
        deadline = time.monotonic() + LEFTOVER_TIMEOUT
        while (left := self._leftovers()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not left, f"left over: {left}"

    def end(self) -> None:
        """Stop what still runs."""
        if self.processes():
            self.run("down", "--timeout", "5")
        for each in self.processes():
            each.kill()

    def _leftovers(self) -> list[str]:
        processes = [f"{each.pid} {' '.join(_command_line(each))}" for each in self.processes()]
        return processes + [str(path) for path in self.temporary.iterdir()]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return process.environ().get("WEFT_HOME") == str(self._home) or any(
                str(self.directory) in word for word in process.cmdline()
            )
        except psutil.Error:
            return False


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@contextmanager
def weft_user() -> Iterator[Weft]:
    """A user with an empty home, of whom nothing is left in the end, whatever the test did."""
    # Not pytest's: Envoy's socket needs a short path.
    directory = Path(tempfile.mkdtemp(prefix="wt-", dir="/tmp"))
    weft = Weft(directory)
    try:
        yield weft
    finally:
        weft.end()
        weft.assert_nothing_left()
        shutil.rmtree(directory)


def wait_for_line(process: subprocess.Popen[str], text: str) -> list[str]:
    """Read the output of `process` until a line holds `text`; the lines so far."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"{text!r} was never said:\n{''.join(lines)}")


def interrupt(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Press Ctrl-C and wait for the end: the exit code, and what was still said."""
    os.killpg(process.pid, signal.SIGINT)
    rest, _ = process.communicate(timeout=TIMEOUT)
    return process.returncode, rest


def agent_manifest(
    name: str, script: Path, *, replicas: int = 1, capability: str = "", **environment: str
) -> str:
    """An Agent that runs a script of the examples, checked often so that tests are quick."""
    resource = {
        "apiVersion": "weft.dev/v1alpha1",
        "kind": "Agent",
        "metadata": {"name": name},
        "spec": {
            "capabilities": [capability] if capability else [],
            "version": "1",
            "health": {"interval": "1s"},
            "drainTimeout": "5s",
            "run": {
                "command": [sys.executable, str(script)],
                "replicas": replicas,
                "environment": environment,
            },
        },
    }
    return json.dumps(resource) + "\n"
