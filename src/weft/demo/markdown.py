"""The report as Markdown, to be pasted into a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from weft.demo import wording
from weft.demo.report import Location, Report

MAX_HOT_SPOTS = 10
MAX_FINDINGS = 50
MAX_LISTED = 20
"""How much is listed: a pull request's text may have 65,536 characters. The JSON report has everything."""

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~!$])")
_PLAIN = re.compile(r"[\w./:+ -]*")
_AT_SIGN = "&#64;"


def render_markdown(report: Report) -> str:
    """The report as GitHub-flavoured Markdown."""
    parts = [
        f"## Code review: {wording.counts(report.counts)}",
        f"{escape(wording.headline(report))}. Checks: {escape(wording.crew(report))}.",
        *_summary(report),
        *_failures(report),
        *_hot_spots(report),
        *_findings(report),
        *_passed_over(report),
        *_run(report),
    ]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """`text` so that Markdown shows it as it is, and nobody of that name is notified."""
    return _SPECIAL.sub(r"\\\1", text).replace("@", _AT_SIGN)


def code(text: str) -> str:
    """`text` as code, if it has nothing in it that would end the code or the table."""
    return f"`{text}`" if text.strip() and _PLAIN.fullmatch(text) else escape(text)


def _summary(report: Report) -> Iterator[str]:
    if report.summary is not None:
        yield "### Summary"
        # A line that begins like a list or a heading is text, too.
        yield "\n".join(f"> {escape(line)}" for line in report.summary.text.splitlines())
        yield f"Written by the model {code(report.summary.model)}: check it against the findings."


def _failures(report: Report) -> Iterator[str]:
    if report.failures:
        yield "### Not answered"
        lines = [
            f"- {code(each.file)}, {each.kind}: {escape(each.reason)}"
            for each in report.failures[:MAX_LISTED]
        ]
        yield "\n".join([*lines, *_rest(len(report.failures) - MAX_LISTED, "calls")])


def _hot_spots(report: Report) -> Iterator[str]:
    if report.hot_spots:
        yield "### Hot spots"
        yield _table(
            ("File", "High", "Medium", "Low"),
            (
                (code(each.file), str(each.counts.high), str(each.counts.medium), str(each.counts.low))
                for each in report.hot_spots[:MAX_HOT_SPOTS]
            ),
        )


def _findings(report: Report) -> Iterator[str]:
    if report.findings:
        yield "### Findings"
        yield _table(
            ("Severity", "Where", "Rule", "What"), (_row(each) for each in report.findings[:MAX_FINDINGS])
        )
        yield from _rest(len(report.findings) - MAX_FINDINGS, "findings")


def _row(finding: Location) -> Sequence[str]:
    severity = f"**{finding.severity}**" if finding.severity.rank else str(finding.severity)
    return (
        severity,
        code(wording.place(finding)),
        f"{finding.kind} {code(finding.rule)}",
        escape(finding.message),
    )


def _passed_over(report: Report) -> Iterator[str]:
    if report.passed_over:
        yield "### Not reviewed"
        lines = [f"- {code(each.file)}: {escape(each.reason)}" for each in report.passed_over[:MAX_LISTED]]
        yield "\n".join([*lines, *_rest(len(report.passed_over) - MAX_LISTED, "files")])


def _run(report: Report) -> Iterator[str]:
    yield "<details><summary>How the mesh did it</summary>"
    yield f"{escape(wording.repeated(report))}."
    if report.killed:
        yield f"{escape(wording.killed(report.killed))}."
    yield _table(
        ("Instance", "Answers", "Share of its kind", "Mean time"),
        (
            (code(each.instance), str(each.answers), f"{each.share:.0%}", wording.mean_time(each))
            for each in report.instances
        ),
    )
    yield "Slowest answers:"
    yield "\n".join(f"- {escape(wording.slow(each))}" for each in report.slowest)
    yield "</details>"


def _rest(count: int, what: str) -> Iterator[str]:
    if count > 0:
        yield f"… and {count} more {what}: the JSON report has all of them."


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
