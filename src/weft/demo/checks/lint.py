"""Lint, by ruff: likely bugs, leftovers, and code that newer Python says better."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from weft.demo.findings import Finding, Severity
from weft.demo.tool import run_tool
from weft.demo.tree import Unreadable

TOOL = "ruff"

RULES = (
    "ASYNC",
    "B",
    "C4",
    "E4",
    "E7",
    "E9",
    "F",
    "FURB",
    "PERF",
    "PIE",
    "PLE",
    "PLW",
    "RET",
    "RUF",
    "SIM",
    "UP",
)
"""What is looked for in every tree alike: bugs and simplifications; nothing that is a matter of layout."""

_IGNORED = (
    "ASYNC109",  # a timeout parameter is a matter of taste
    "PLW2901",  # so is an overwritten loop variable
    "RUF001",  # text in other scripts than Latin is no mistake
    "RUF002",
    "RUF003",
    "RUF100",  # a noqa may be meant for a rule of the tree's own settings
)

_UNREADABLE_RULE = "E902"
_SYNTAX_RULE = "invalid-syntax"

_SEVERITIES = {
    _SYNTAX_RULE: Severity.HIGH,
    "E9": Severity.HIGH,
    "F5": Severity.MEDIUM,
    "F63": Severity.HIGH,
    "F7": Severity.HIGH,
    "F82": Severity.HIGH,
    "PLE": Severity.HIGH,
    "F": Severity.MEDIUM,
    "F401": Severity.LOW,
    "F541": Severity.LOW,
    "ASYNC": Severity.MEDIUM,
    "B": Severity.MEDIUM,
    "PLW": Severity.MEDIUM,
    "RUF006": Severity.MEDIUM,
}
"""By the beginning of a rule's code; the longest that fits counts, and what has none is low."""


class _Location(BaseModel):
    row: int


class _Violation(BaseModel):
    code: str | None
    message: str
    location: _Location | None = None


_violations = TypeAdapter(list[_Violation])


class Lint:
    """Runs ruff on one file at a time, with the same rules everywhere: a tree's own settings are not read."""

    async def findings(self, path: Path) -> list[Finding]:
        """What ruff finds in the file at `path`. Raises Unreadable if it cannot check it."""
        output = await run_tool(
            TOOL,
            *("check", "--isolated", "--no-cache", "--quiet", "--output-format", "json"),
            *("--target-version", f"py{sys.version_info.major}{sys.version_info.minor}"),
            *("--select", ",".join(RULES), "--ignore", ",".join(_IGNORED)),
            *("--", str(path)),
        )
        try:
            violations = _violations.validate_json(output)
        except ValidationError as error:
            raise Unreadable(f"{TOOL} printed something unexpected: {error}") from error
        unreadable = next((each.message for each in violations if each.code == _UNREADABLE_RULE), "")
        if unreadable:
            raise Unreadable(unreadable)
        return [_finding(each) for each in violations]


def _finding(violation: _Violation) -> Finding:
    rule = violation.code or _SYNTAX_RULE
    line = violation.location.row if violation.location else 0
    return Finding(line=line, severity=severity(rule), rule=rule, message=violation.message)


def severity(rule: str) -> Severity:
    """How severe a violation of `rule` is."""
    fitting = [prefix for prefix in _SEVERITIES if rule.startswith(prefix)]
    return _SEVERITIES[max(fitting, key=len)] if fitting else Severity.LOW
