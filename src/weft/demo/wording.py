"""Sentences that the terminal and the Markdown report share."""

from __future__ import annotations

from weft.demo.report import AnswerRecord, Counts, KillRecord, Location, Report, Share


def place(finding: Location) -> str:
    """Where it is, as editors understand it: `src/app.py:12`."""
    return f"{finding.file}:{finding.line}" if finding.line else finding.file


def counts(found: Counts) -> str:
    """How many findings there are."""
    if not found.total:
        return "no findings"
    parts = [
        f"{number} {name}"
        for number, name in ((found.high, "high"), (found.medium, "medium"), (found.low, "low"))
        if number
    ]
    return f"{_number(found.total, 'finding')}: {', '.join(parts)}"


def headline(report: Report) -> str:
    """What was reviewed, and whether all of it was."""
    answers = f"{len(report.answers)} of {report.expected_answers} answers"
    verdict = "complete" if report.complete else "INCOMPLETE"
    return (
        f"{_number(report.files, 'file')} by {_number(len(report.tools), 'check')}: {answers}, "
        f"{verdict}, in {report.seconds:.1f} s"
    )


def crew(report: Report) -> str:
    """Who checked what with what."""
    return ", ".join(f"{kind} ({tool})" for kind, tool in report.tools.items())


def killed(kill: KillRecord) -> str:
    """What was done to the crew, and how soon the mesh noticed."""
    noticed = (
        "the mesh had not noticed when the review gave up waiting"
        if kill.noticed_after_seconds is None
        else f"the mesh noticed after {kill.noticed_after_seconds:.2f} s"
    )
    return f"{kill.instance} (pid {kill.pid}) was killed on purpose with SIGKILL half-way; {noticed}"


def repeated(report: Report) -> str:
    """How many calls it took."""
    calls = _number(len(report.answers) + len(report.failures), "call")
    by_mesh = (
        ""
        if report.repeated_by_mesh is None
        else f"{report.repeated_by_mesh} repeated by the mesh elsewhere, "
    )
    by_coordinator = f"{report.repeated_by_coordinator} repeated by the coordinator"
    return f"{calls}: {by_mesh}{by_coordinator}, {len(report.failures)} failed"


def slow(answer: AnswerRecord) -> str:
    """One of the slowest answers."""
    return f"{answer.seconds:.2f} s {answer.kind} of {answer.file} by {answer.instance}"


def mean_time(share: Share) -> str:
    """How long an instance took."""
    return "" if share.mean_seconds is None else f"{share.mean_seconds:.2f} s"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
