"""Security, by bandit: shells, secrets, unsafe deserialisation, weak cryptography."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ValidationError

from weft.demo.findings import Finding, Severity
from weft.demo.tool import run_tool
from weft.demo.tree import Unreadable

TOOL = "bandit"

_SEVERITIES = {"LOW": Severity.LOW, "MEDIUM": Severity.MEDIUM, "HIGH": Severity.HIGH}
_LOWERED = {Severity.HIGH: Severity.MEDIUM}


class _Issue(BaseModel):
    test_id: str
    issue_text: str
    issue_severity: str
    issue_confidence: str
    line_number: int


class _Error(BaseModel):
    reason: str


class _Output(BaseModel):
    results: list[_Issue]
    errors: list[_Error]


class Security:
    """Runs bandit on one file at a time."""

    async def findings(self, path: Path) -> list[Finding]:
        """What bandit finds in the file at `path`. Raises Unreadable if it cannot check it."""
        printed = await run_tool(TOOL, "--quiet", "--format", "json", "--exit-zero", str(path))
        try:
            output = _Output.model_validate_json(printed)
        except ValidationError as error:
            raise Unreadable(f"{TOOL} printed something unexpected: {error}") from error
        if output.errors:
            raise Unreadable(output.errors[0].reason)
        return [_finding(each) for each in output.results]


def _finding(issue: _Issue) -> Finding:
    return Finding(
        line=issue.line_number,
        severity=severity(issue.issue_severity, issue.issue_confidence),
        rule=issue.test_id,
        message=issue.issue_text,
    )


def severity(stated: str, confidence: str) -> Severity:
    """How severe an issue is: as bandit says, but not high where bandit itself is not sure."""
    level = _SEVERITIES.get(stated, Severity.LOW)
    return _LOWERED.get(level, level) if confidence == "LOW" else level
