"""`python -m weft.demo.checks.survey`: vulture's view of all files named on standard input, as JSON.

A program of its own, so that what vulture takes in memory and time, or a crash of it, is not the agent's.
Vulture's own command ends at the first file nested too deeply for Python's parser, and prints no JSON.
"""

from __future__ import annotations

import sys
import warnings
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from vulture.core import Vulture  # type: ignore[import-untyped]
from vulture.utils import ExitCode  # type: ignore[import-untyped]

from weft.demo.checks.dead_code import DeadItem, Survey

_MIN_CONFIDENCE = 60
_NAMES_READ_BY_LIBRARIES = ("model_config", "__*__")
_REGISTERING_DECORATORS = ("@*.*",)
"""`@app.get`, `@agent.handles`: what they decorate is called by whom it was registered with."""


class _Surveyor(Vulture):  # type: ignore[misc]
    """Vulture, which says what it could read."""

    def __init__(self) -> None:
        super().__init__(ignore_names=_NAMES_READ_BY_LIBRARIES, ignore_decorators=_REGISTERING_DECORATORS)
        self.checked: list[str] = []

    def scan(self, code: str, filename: str | Path = "") -> None:
        """Take in one file; called by vulture's `scavenge`."""
        self.exit_code = ExitCode.NoDeadCode
        with suppress(RecursionError, MemoryError):
            super().scan(code, filename)
            if self.exit_code is ExitCode.NoDeadCode:
                self.checked.append(str(filename))


def survey(paths: Sequence[str]) -> Survey:
    """What seems to be used nowhere in the files at `paths`."""
    surveyor = _Surveyor()
    surveyor.scavenge(paths)
    unused: dict[str, list[DeadItem]] = defaultdict(list)
    for item in surveyor.get_unused_code(_MIN_CONFIDENCE):
        unused[str(item.filename)].append(
            DeadItem(kind=item.typ, message=item.message, line=item.first_lineno, confidence=item.confidence)
        )
    return Survey(checked=frozenset(surveyor.checked), unused=unused)


def main() -> None:
    """Read paths, separated by null bytes, and print the survey."""
    warnings.simplefilter("ignore")  # those of the code it reads
    paths = sys.stdin.buffer.read().decode().split("\0")
    print(survey([path for path in paths if path]).model_dump_json())


if __name__ == "__main__":
    main()
