"""Dead code, by vulture: names that are defined, and used nowhere in the whole tree."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from weft.demo.findings import Finding, Severity
from weft.demo.tool import run_tool
from weft.demo.tree import SourceTree, Unreadable

TOOL = "vulture"

SURVEY_TIMEOUT = 90.0
"""Seconds the whole tree may take."""

_SURE = 90
"""Confidence, in percent, from which vulture's finding is more than a suspicion."""


class DeadItem(BaseModel):
    """Something that seems to be used nowhere."""

    kind: str
    message: str
    line: Annotated[int, Field(ge=0)]
    confidence: int


class Survey(BaseModel):
    """What vulture says of a whole tree."""

    checked: frozenset[str]
    """The files it could read."""
    unused: dict[str, list[DeadItem]]
    """By file."""


class DeadCode:
    """Runs vulture once, on the whole tree, and answers from what it said.

    Whether a name is used can be told only with all files in view; a file on its own would seem all dead.
    """

    def __init__(self, tree: SourceTree) -> None:
        """`tree` is where uses are looked for."""
        self._tree = tree
        self._survey: Survey | None = None
        self._failure = ""
        self._surveying = asyncio.Lock()

    async def findings(self, path: Path) -> list[Finding]:
        """What the file at `path` defines and nothing in the tree uses.

        Raises Unreadable if vulture cannot check it, or the tree.
        """
        survey = await self._surveyed()
        if str(path) not in survey.checked:
            raise Unreadable(f"{TOOL} cannot read it: it is not valid Python, or nested too deeply")
        return [_finding(each) for each in survey.unused.get(str(path), [])]

    async def _surveyed(self) -> Survey:
        """The survey; whoever asks first has it taken, whoever asks meanwhile waits for it."""
        async with self._surveying:
            if self._failure:  # it would only fail again, after as long a time
                raise Unreadable(self._failure)
            if self._survey is None:
                try:
                    self._survey = await self._take_survey()
                except Unreadable as error:
                    self._failure = str(error)
                    raise
            return self._survey

    async def _take_survey(self) -> Survey:
        paths = await asyncio.to_thread(lambda: [str(path) for path in self._tree.readable()])
        printed = await run_tool(
            "weft.demo.checks.survey", stdin="\0".join(paths).encode(), accepted=[0], timeout=SURVEY_TIMEOUT
        )
        try:
            return Survey.model_validate_json(printed)
        except ValidationError as error:
            raise Unreadable(f"{TOOL} printed something unexpected: {error}") from error


def _finding(item: DeadItem) -> Finding:
    sure = item.confidence >= _SURE
    where = "" if sure else " in the tree under review"
    return Finding(
        line=item.line,
        severity=Severity.MEDIUM if sure else Severity.LOW,
        rule=f"unused-{item.kind}" if item.kind != "unreachable_code" else "unreachable-code",
        message=f"{item.message}{where} ({item.confidence}% confidence)",
    )
