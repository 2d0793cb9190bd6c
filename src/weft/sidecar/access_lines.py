"""Lines of the agent's calls, where a Telemetry wants some: passed on from Envoy's standard output to ours.

What they say is told by `weft.controlplane.translate.access_log`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import TextIO

from weft.model.telemetry_wire import ACCESS_LINE

LINES_PER_WINDOW = 5000
"""Lines that are passed on in WINDOW_SECONDS, at most: who reads them has to keep up."""

WINDOW_SECONDS = 10.0

_MARK = f'"log":"{ACCESS_LINE}"'
"""Envoy escapes what callers say: no value can have this in it."""


def is_access_line(line: str) -> bool:
    """Whether a line of Envoy's standard output tells of a call."""
    return line.startswith("{") and _MARK in line


class AccessLines:
    """Writes them to standard error, as the logs: standard output is the program's. So many at a time."""

    def __init__(self, output: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._output = output or sys.stderr
        self._clock = clock
        self._window_ends = 0.0
        self._written = self._left_out = 0

    def write(self, line: str) -> None:
        """Pass a line on, unless there were too many; how many were left out is told before the next."""
        now = self._clock()
        if now >= self._window_ends:
            if self._left_out:
                self._put(json.dumps({"log": ACCESS_LINE, "leftOut": self._left_out}, separators=(",", ":")))
            self._window_ends, self._written, self._left_out = now + WINDOW_SECONDS, 0, 0
        if self._written < LINES_PER_WINDOW:
            self._written += 1
            self._put(line)
        else:
            self._left_out += 1

    def _put(self, line: str) -> None:
        self._output.write(f"{line}\n")
        self._output.flush()
