"""What the mesh's processes write: into a file each, of bounded size, and to whoever listens."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import BinaryIO

MAX_LOG_BYTES = 5 * 1024 * 1024
"""Size of a log file; the one before it is kept as well."""

MAX_LINE_BYTES = 64 * 1024
"""Longer lines are cut into several."""

_ROUTINE = re.compile(r"weft \S+: INFO ")
"""A sidecar's own routine: it says less of why a replica ended than the last line of the agent."""

LineListener = Callable[[str, str], None]
"""Hears the name of a process and a line it wrote."""


class ProcessLog:
    """The log of one process, over all its restarts."""

    def __init__(self, name: str, directory: Path, listener: LineListener) -> None:
        """It goes to `<name>.log` in `directory`, and line by line to `listener`."""
        self.path = directory / f"{name}.log"
        self.last_line = ""
        self._name = name
        self._listener = listener

    async def relay(self, descriptor: int) -> None:
        """Log what comes out of the pipe `descriptor` until its end, and close it."""
        with closing(self._open()) as file, closing(os.fdopen(descriptor, "rb")) as pipe:
            async for line in _lines(pipe):
                if not _ROUTINE.match(line):
                    self.last_line = line
                file.handle(logging.makeLogRecord({"msg": line}))
                self._listener(self._name, line)

    def _open(self) -> RotatingFileHandler:
        handler = RotatingFileHandler(
            self.path, maxBytes=MAX_LOG_BYTES, backupCount=1, encoding="utf-8", errors="replace", delay=True
        )
        handler.setFormatter(_Stamped())
        return handler


class _Stamped(logging.Formatter):
    """A line, after the time at which it was read."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{stamp(record.created)} {record.msg}"


def stamp(at: float) -> str:
    """A time (seconds since 1970) as it stands before each line in a log: RFC 3339, in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def _lines(pipe: BinaryIO) -> AsyncIterator[str]:
    stream = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), pipe)
    with closing(transport):
        while line := await _line(stream):
            if text := line.decode(errors="replace").rstrip():
                yield text


async def _line(stream: asyncio.StreamReader) -> bytes:
    """The next line, or a piece of one that is too long; nothing at the end."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.LimitOverrunError as error:
        return await stream.readexactly(max(1, error.consumed))
    except asyncio.IncompleteReadError as error:
        return error.partial
