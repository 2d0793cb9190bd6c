"""The logs of a mesh on this machine, read again: what processes wrote, in the order of time."""

from __future__ import annotations

import asyncio
import os
import re
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Self

from weft.errors import NotFound, Unavailable
from weft.local.commands import DOOR
from weft.local.default_models import SIMULATOR

CORE = ("control", "nats", DOOR, SIMULATOR)
"""What runs beside the agents."""

POLL = 0.2
"""Seconds between two looks at what was written."""

MAX_BATCH_BYTES = 1024 * 1024
"""Of one log, at one look: what is more comes with the next."""

_SUFFIX = ".log"
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) ")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line."""

    process: str
    at: float
    """When it was read, in seconds since 1970; that of the line before it where it does not say."""
    text: str


Keep = Callable[[LogLine], bool]
"""Whether a line is of interest."""


def processes(directory: Path) -> list[str]:
    """The processes that have logs in `directory`, by name. Raises Unavailable if it cannot be read."""
    try:
        return sorted(
            each.name.removesuffix(_SUFFIX) for each in directory.iterdir() if each.suffix == _SUFFIX
        )
    except OSError as error:
        raise Unavailable(
            f"there are no logs at {directory} ({error.strerror}): they are those of `weft up`, on the "
            "machine where it runs or ran"
        ) from error


def meant(wanted: str | None, names: Iterable[str]) -> list[str]:
    """Which of the processes `names` somebody means: all, a part such as `nats`, TYPE or TYPE/INSTANCE.

    Raises NotFound if none of them.
    """
    names = list(names)
    found = [each for each in names if wanted is None or _is_meant(wanted, each)]
    if not found:
        there = ", ".join(sorted({_type_of(each) for each in names})) or "none"
        raise NotFound(f"there is no log of {wanted!r}; there are logs of {there}")
    return found


def _is_meant(wanted: str, name: str) -> bool:
    agent_type, slash, instance = wanted.partition("/")
    if slash:
        return name == instance and _type_of(name) == agent_type
    return wanted in {name, _type_of(name)}


def _type_of(name: str) -> str:
    agent_type, dash, number = name.rpartition("-")
    return agent_type if dash and number.isdecimal() and name not in CORE else name


def recent(directory: Path, wanted: str | None, *, tail: int, keep: Keep) -> list[LogLine]:
    """The last lines of those who are `meant`, at most `tail` of all together, as far as `keep` holds.

    Raises NotFound and Unavailable, as `meant` and `processes` do.
    """
    with ExitStack() as stack:
        names = meant(wanted, processes(directory))
        return _merged((stack.enter_context(LogReader(directory, each)) for each in names), tail, keep)


async def follow(
    directory: Path, wanted: str | None, *, tail: int, keep: Keep
) -> AsyncGenerator[LogLine, None]:
    """What `recent` gives, then every further line as it is written, for ever; processes may come and go.

    Raises what `recent` does.
    """
    with ExitStack() as stack:
        names = meant(wanted, processes(directory))
        logs = {each: stack.enter_context(LogReader(directory, each)) for each in names}
        for line in _merged(logs.values(), tail, keep):
            yield line
        while True:
            for each in processes(directory):
                if each not in logs and (wanted is None or _is_meant(wanted, each)):
                    logs[each] = stack.enter_context(LogReader(directory, each))
            lines = [line for log in logs.values() for line in log.more()]
            for line in sorted(lines, key=lambda each: each.at):
                if keep(line):
                    yield line
            if not lines:
                await asyncio.sleep(POLL)


def _merged(logs: Iterable[LogReader], tail: int, keep: Keep) -> list[LogLine]:
    lines: list[LogLine] = []
    for each in logs:
        lines += deque(filter(keep, each.all()), tail)
    lines.sort(key=lambda each: each.at)
    return lines[max(0, len(lines) - tail) :]


class LogReader:
    """Reads the log of one process from where it read last, over its rotation. Use as a context manager."""

    def __init__(self, directory: Path, process: str) -> None:
        self._path = directory / f"{process}{_SUFFIX}"
        self._older = directory / f"{process}{_SUFFIX}.1"
        self._process = process
        self._file: BinaryIO | None = None
        self._rest = b""
        self._at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def all(self) -> Iterator[LogLine]:
        """Every line that there is."""
        while lines := list(self.more()):
            yield from lines

    def more(self) -> Iterator[LogLine]:
        """The lines that were written since, at most MAX_BATCH_BYTES of them."""
        if self._file is None:
            self._file = self._next()
        if self._file is None:
            return
        data = self._file.read(MAX_BATCH_BYTES)
        if not data and self._is_over(self._file):
            data = self._file.read(MAX_BATCH_BYTES)  # written before it was put away, after the last look
            if not data:
                self._file = self._after(self._file)
                data = self._file.read(MAX_BATCH_BYTES) if self._file is not None else b""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for each in lines:
            yield self._line(each)

    def _line(self, data: bytes) -> LogLine:
        found = _STAMP.match(data)
        if found is not None:
            self._at = datetime.fromisoformat(found[1].decode()).timestamp()
            data = data[found.end() :]
        return LogLine(self._process, self._at, data.decode(errors="replace"))

    def _is_over(self, file: BinaryIO) -> bool:
        """Whether nothing more will be written to `file`, since another one has its name."""
        return _identity(self._path) not in {None, _identity(file)}

    def _after(self, former: BinaryIO) -> BinaryIO | None:
        """What comes after `former`, which is put away: the log that is its successor."""
        with former:
            if _identity(self._older) in {None, _identity(former)}:
                return _opened(self._path)
            return self._next()  # it was put away twice

    def _next(self) -> BinaryIO | None:
        """The oldest that there is."""
        current, older = _opened(self._path), _opened(self._older)
        # Between the two, the one may have become the other.
        if older is None or (current is not None and _identity(older) == _identity(current)):
            if older is not None:
                older.close()
            return current
        if current is not None:
            current.close()
        return older


def _opened(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _identity(of: Path | BinaryIO) -> tuple[int, int] | None:
    try:
        found = of.stat() if isinstance(of, Path) else os.fstat(of.fileno())
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
