"""Complexity, by radon: functions with so many paths that nobody tests all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from weft.demo.findings import Finding, Severity
from weft.demo.tool import run_tool
from weft.demo.tree import Unreadable

TOOL = "radon"

_SEVERITIES = {"C": Severity.LOW, "D": Severity.MEDIUM, "E": Severity.HIGH, "F": Severity.HIGH}
"""By radon's rank: C is more than 10 paths, D more than 20, E more than 30."""


class _Block(BaseModel):
    type: Literal["function", "method", "class"]
    name: str
    classname: str = ""
    lineno: Annotated[int, Field(ge=0)]
    rank: str
    complexity: int


class _Failure(BaseModel):
    error: str


_output = TypeAdapter(dict[str, list[_Block] | _Failure])


class Complexity:
    """Runs radon on one file at a time."""

    async def findings(self, path: Path) -> list[Finding]:
        """The functions and methods of the file at `path` that are too complex.

        Raises Unreadable if radon cannot check it.
        """
        printed = await run_tool(TOOL, "cc", "--json", str(path))
        try:
            results = _output.validate_json(printed).values()
        except ValidationError as error:
            raise Unreadable(f"{TOOL} printed something unexpected: {error}") from error
        found = []
        for result in results:
            if isinstance(result, _Failure):
                raise Unreadable(result.error or "it is nested too deeply")
            found += [_finding(each) for each in result if _is_too_complex(each)]
        return found


def _is_too_complex(block: _Block) -> bool:
    # A class's figure is the mean of its methods, which are all listed as well.
    return block.type != "class" and block.rank in _SEVERITIES


def _finding(block: _Block) -> Finding:
    name = f"{block.classname}.{block.name}" if block.classname else block.name
    return Finding(
        line=block.lineno,
        severity=_SEVERITIES[block.rank],
        rule=f"complexity-{block.rank}",
        message=f"{block.type} {name} has a cyclomatic complexity of {block.complexity}",
    )
