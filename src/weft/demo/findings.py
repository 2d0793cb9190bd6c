"""What an agent of the crew answers: findings in one file, in the same words whichever tool found them."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

MAX_FINDINGS = 500
"""Findings one agent reports of one file; how many more there are is told."""

MAX_TEXT = 500
"""Characters of a message; longer ones are cut."""

MAX_FILE_NAME = 4096


class Severity(StrEnum):
    """How much a finding matters, on one scale for all tools."""

    LOW = "low"
    """Worth knowing: style, moderate complexity, code that seems unused."""
    MEDIUM = "medium"
    """Worth fixing: a likely bug, a weakness under some conditions, certainly dead code."""
    HIGH = "high"
    """To be fixed first: it fails when it runs, is open to attack, or cannot be tested."""

    @property
    def rank(self) -> int:
        """Its place on the scale; the higher the worse."""
        return _RANKS[self]


_RANKS = {severity: rank for rank, severity in enumerate(Severity)}


def printable(text: str) -> str:
    """`text` on one line of at most MAX_TEXT characters, harmless to a terminal.

    Tools quote the source they read, which may hold anything.
    """
    shown = "".join(each if each.isprintable() else " " for each in text[: 2 * MAX_TEXT])
    shown = " ".join(shown.split())
    return shown if len(shown) <= MAX_TEXT else shown[: MAX_TEXT - 1] + "…"


Text = Annotated[str, AfterValidator(printable)]

FileName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_FILE_NAME)]
"""Path of a file below the root of the tree, with `/` on every system."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(_Record):
    """One thing a tool found."""

    line: Annotated[int, Field(ge=0)] = 0
    """Counted from 1; 0 where it concerns the whole file."""
    severity: Severity
    rule: Text
    """The tool's own name for it: `B602`, `F401`, `unused-function`."""
    message: Text


class Review(_Record):
    """What one agent says of one file."""

    findings: Annotated[tuple[Finding, ...], Field(max_length=MAX_FINDINGS)] = ()
    omitted: Annotated[int, Field(ge=0)] = 0
    """How many more findings there were."""
    not_checked: Text = ""
    """Why the tool could not check the file; empty if it could."""
    instance: Text = ""
    """Which instance answered."""
    attempt: int | None = None
    """The how manieth time the mesh sent this call, counted from 1; None where it does not say."""


class About(_Record):
    """What an agent says of itself."""

    instance: Text
    pid: Annotated[int, Field(gt=1)]
    """Process id of the agent's program."""


def bounded(findings: Iterable[Finding]) -> Review:
    """A review with `findings`, the worst first and at most MAX_FINDINGS of them."""
    ordered = sorted(findings, key=lambda each: (-each.severity.rank, each.line, each.rule, each.message))
    return Review(findings=tuple(ordered[:MAX_FINDINGS]), omitted=max(0, len(ordered) - MAX_FINDINGS))
