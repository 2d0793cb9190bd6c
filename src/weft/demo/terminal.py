"""The report on a terminal."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from weft.demo import wording
from weft.demo.findings import Severity
from weft.demo.report import Report

MAX_HOT_SPOTS = 10
MAX_FINDINGS = 20
MAX_LISTED = 10
"""How much is shown; the written reports have more."""

STYLES = {Severity.HIGH: "bold red", Severity.MEDIUM: "yellow", Severity.LOW: "dim"}


def print_report(report: Report, console: Console) -> None:
    """Show the report: hot spots and findings first, then how the mesh did it."""
    sections = [
        _hot_spots(report),
        _findings(report),
        _failures(report),
        _passed_over(report),
        _instances(report),
        _written(report),
        _summary(report),
    ]
    for section in sections:
        if section is not None:
            console.print(Padding(section, (1, 0, 0, 0)))


def _hot_spots(report: Report) -> RenderableType | None:
    if not report.hot_spots:
        return None
    table = Table("File", title="Hot spots", title_justify="left")
    for severity in reversed(Severity):
        table.add_column(severity.value.capitalize(), justify="right", style=STYLES[severity])
    for each in report.hot_spots[:MAX_HOT_SPOTS]:
        found = each.counts
        table.add_row(Text(each.file), str(found.high), str(found.medium), str(found.low))
    return _with_rest(table, len(report.hot_spots) - MAX_HOT_SPOTS, "files")


def _findings(report: Report) -> RenderableType | None:
    if not report.findings:
        return None
    table = Table(title="Findings", title_justify="left")
    table.add_column("Severity", no_wrap=True)
    table.add_column("Where", overflow="fold")
    table.add_column("Rule", overflow="fold")
    table.add_column("What", overflow="fold", ratio=1)
    for each in report.findings[:MAX_FINDINGS]:
        severity = Text(each.severity.value, style=STYLES[each.severity])
        rule = Text(f"{each.kind} ", style="dim").append(each.rule)
        table.add_row(severity, Text(wording.place(each)), rule, Text(each.message))
    return _with_rest(table, len(report.findings) - MAX_FINDINGS, "findings")


def _failures(report: Report) -> RenderableType | None:
    if not report.failures:
        return None
    lines = [Text("Not answered", style="bold red")]
    lines += [Text(f"  {each.file}, {each.kind}: {each.reason}") for each in report.failures[:MAX_LISTED]]
    return _with_rest(Group(*lines), len(report.failures) - MAX_LISTED, "calls")


def _passed_over(report: Report) -> RenderableType | None:
    if not report.passed_over:
        return None
    lines = [Text("Not reviewed", style="bold")]
    lines += [Text(f"  {each.file}: {each.reason}") for each in report.passed_over[:MAX_LISTED]]
    return _with_rest(Group(*lines), len(report.passed_over) - MAX_LISTED, "files")


def _instances(report: Report) -> RenderableType:
    table = Table("Instance", title="Who answered", title_justify="left")
    for heading in ("Answers", "Share of its kind", "Mean time"):
        table.add_column(heading, justify="right")
    for each in report.instances:
        name = Text(each.instance)
        if report.killed and each.instance == report.killed.instance:
            name.append(" (killed)", style="red")
        table.add_row(name, str(each.answers), f"{each.share:.0%}", wording.mean_time(each))
    return table


def _written(report: Report) -> RenderableType | None:
    if report.summary is None:
        return None
    heading = Text(f"Summary, written by {report.summary.model}", style="bold")
    return Group(heading, Text(report.summary.text))


def _summary(report: Report) -> RenderableType:
    lines = [
        Text(wording.headline(report), style="bold green" if report.complete else "bold red"),
        Text(wording.counts(report.counts)),
        Text(wording.repeated(report)),
    ]
    if report.killed:
        lines.append(Text(wording.killed(report.killed)))
    lines += [Text(f"slowest: {wording.slow(each)}", style="dim") for each in report.slowest]
    return Group(*lines)


def _with_rest(shown: RenderableType, rest: int, what: str) -> RenderableType:
    if rest <= 0:
        return shown
    return Group(shown, Text(f"… and {rest} more {what}, in the written reports", style="dim"))
