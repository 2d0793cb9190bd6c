"""A mesh in a process of its own, which goes on when the terminal is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from weft.cli.exit_codes import ExitCode
from weft.cli.progress import StartProgress, print_summary
from weft.cli.show import console
from weft.errors import MeshError, Unavailable
from weft.model.local_state import ChildState, MeshState
from weft.sdk.problem import read_event_error

LOG_FILE = "up.log"
_STOP_TIMEOUT = 60.0


class PipeReporter:
    """Tells, as a line of JSON for every step, the process at the other end of a pipe."""

    insists = True

    def __init__(self, descriptor: int) -> None:
        """The pipe is closed once the mesh is up, or has failed."""
        self._pipe = os.fdopen(descriptor, "w", encoding="utf-8")

    def child(self, state: ChildState) -> None:
        """A process took a step."""
        self._tell({"child": state.model_dump()})

    def line(self, name: str, line: str) -> None:
        """A process wrote a line: it is in its log."""

    def ready(self, state: MeshState, _problem: str, /) -> None:
        """The mesh is up."""
        self._tell({"ready": state.model_dump()})
        self._pipe.close()

    def failed(self, error: MeshError, /) -> None:
        """The mesh did not start."""
        self._tell({"failed": error.problem()})
        self._pipe.close()

    def stopping(self) -> None:
        """A signal asked to stop."""

    def _tell(self, message: dict[str, Any]) -> None:
        if self._pipe.closed:
            return
        # Whoever started the mesh may be gone; the mesh does not need them.
        with suppress(BrokenPipeError):
            print(json.dumps(message), file=self._pipe, flush=True)


def start_detached(arguments: Sequence[str], directory: Path, *, as_json: bool) -> ExitCode:
    """Run `weft up` with `arguments` in the background; return once all of it is healthy.

    Raises the MeshError for which it did not start; nothing is left of it then.
    """
    with _background(arguments, directory) as (process, messages):
        state = _follow(messages, process, directory)
    print_summary(state, as_json=as_json)
    console(stderr=True).print("It runs in the background: `weft down` stops it.")
    return ExitCode.OK


@contextmanager
def _background(
    arguments: Sequence[str], directory: Path
) -> Iterator[tuple[subprocess.Popen[bytes], Iterator[str]]]:
    """The process, and what it tells; it is ended if the block fails."""
    reading, writing = os.pipe()
    with os.fdopen(reading, encoding="utf-8") as messages:
        process = _start([*arguments, f"--report-to={writing}"], directory, writing)
        try:
            yield process, messages
        except BaseException:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_TIMEOUT)
            process.kill()
            process.wait()
            raise


def _start(arguments: Sequence[str], directory: Path, pipe: int) -> subprocess.Popen[bytes]:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (directory / LOG_FILE).open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "weft.cli.main", "up", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(pipe,),
                start_new_session=True,
            )
    except OSError as error:
        raise Unavailable(f"the mesh's directory {directory} cannot be used: {error}") from error
    finally:
        os.close(pipe)


def _follow(messages: Iterator[str], process: subprocess.Popen[bytes], directory: Path) -> MeshState:
    progress = StartProgress(console(stderr=True))
    try:
        for line in messages:
            message = json.loads(line)
            if "child" in message:
                progress.update(ChildState.model_validate(message["child"]))
            elif "ready" in message:
                return MeshState.model_validate(message["ready"])
            elif "failed" in message:
                raise read_event_error("the mesh", json.dumps(message["failed"]))
    finally:
        progress.close()
    raise MeshError(
        f"`weft up` ended with exit code {process.wait()} before the mesh was up; see {directory / LOG_FILE}"
    )
