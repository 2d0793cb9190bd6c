"""Processes that stand still."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path


def freeze(pid: int) -> None:
    """SIGSTOP a process, and wait until none of its threads runs.

    The signal is only on its way when `kill` returns: on a busy machine threads go on for tens of
    milliseconds, and a server still answers what is sent to it.
    """
    os.kill(pid, signal.SIGSTOP)
    while not all(state in "TtZX" for state in _states(pid)):
        time.sleep(0.001)


def _states(pid: int) -> list[str]:
    """Of its threads (proc_pid_stat(5)): the letter that follows the name, which may hold anything."""
    states = []
    with suppress(FileNotFoundError):  # it has ended
        for each in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # that thread has
                states.append((each / "stat").read_text().rpartition(")")[2].split()[0])
    return states
