"""What Envoy writes to its standard error, as records of our own log: never more than so much."""

from __future__ import annotations

import asyncio
import logging
import math
import re

logger = logging.getLogger(__name__)

FORMAT = "%l %n: %v"
"""What Envoy is told to write (`--log-format`): level, component, message."""

_MAX_LINE = 1000
_WINDOW_SECONDS = 10.0
_LINES_PER_WINDOW = 50
_REPEAT_SECONDS = 60.0
_DIGITS = re.compile(r"\d+")
_WORK_IN_PROGRESS = "marked as work-in-progress"
"""In what Envoy says of each use of an API that may yet change: we pin Envoy's version, and know."""
_LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.ERROR,
}


class EnvoyLog:
    """Passes Envoy's lines on, 50 in 10 seconds at most, and remembers the last one.

    A line that only repeats the one before it, numbers aside, is passed on once a minute.
    """

    def __init__(self) -> None:
        self.last_line = ""
        """The last message at level warning or above."""
        self.muted = False
        """Whether nothing is passed on any more: a stopping Envoy warns of its own end."""
        self._level = logging.INFO
        self._window_ends = 0.0
        self._lines = 0
        self._gist = ""
        self._gist_passed_on = -math.inf

    async def relay(self, stream: asyncio.StreamReader) -> None:
        """Pass on what `stream` yields until it ends."""
        while True:
            try:
                line = await stream.readline()
            except ValueError:
                continue  # longer than the stream's buffer: dropped by the reader itself
            if not line:
                return
            self._pass_on(line.decode(errors="replace").rstrip())

    def _pass_on(self, line: str) -> None:
        level, _, message = line.partition(" ")
        # A line without a level goes on with the message before it.
        text = (message if level in _LEVELS else line)[:_MAX_LINE]
        self._level = logging.DEBUG if _WORK_IN_PROGRESS in text else _LEVELS.get(level, self._level)
        if self._level >= logging.WARNING:
            self.last_line = text
        now = asyncio.get_running_loop().time()
        if not self.muted and not self._repeats(text, now) and self._within_limit(now):
            logger.log(self._level, "envoy: %s", text)

    def _repeats(self, text: str, now: float) -> bool:
        gist = _DIGITS.sub("", text)
        if gist == self._gist and now < self._gist_passed_on + _REPEAT_SECONDS:
            return True
        self._gist, self._gist_passed_on = gist, now
        return False

    def _within_limit(self, now: float) -> bool:
        if now >= self._window_ends:
            if self._lines > _LINES_PER_WINDOW:
                logger.warning("envoy: %d lines left out", self._lines - _LINES_PER_WINDOW)
            self._window_ends = now + _WINDOW_SECONDS
            self._lines = 0
        self._lines += 1
        return self._lines <= _LINES_PER_WINDOW
