"""Merging answers into one report, and showing it."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from weft.demo.display import display_on
from weft.demo.fan_out import Answer, Failure
from weft.demo.fault import Kill
from weft.demo.findings import Finding, Review, Severity
from weft.demo.markdown import MAX_FINDINGS, render_markdown
from weft.demo.output import prepare_output, write_reports
from weft.demo.report import Outcome, Report, merge
from weft.demo.terminal import print_report
from weft.demo.tree import PassedOver
from weft.errors import InvalidRequest
from weft.model.agent import Instance
from weft.model.local_state import ChildState

HIGH = Finding(line=3, severity=Severity.HIGH, rule="B602", message="a shell")
MEDIUM = Finding(line=2, severity=Severity.MEDIUM, rule="B006", message="a shared default")
LOW = Finding(line=1, severity=Severity.LOW, rule="F401", message="`os` imported but unused")


def answer(file: str, kind: str, *findings: Finding, **details: object) -> Answer:
    seconds = float(str(details.pop("seconds", 0.5)))
    review = Review(findings=findings, instance=f"{kind}-1").model_copy(update=details)
    return Answer(file, kind, review, seconds, repeats=0)


def outcome() -> Outcome:
    return Outcome(
        weft_version="1.0",
        root="/project/src",
        prefix="src",
        started_at=datetime(2026, 1, 2, tzinfo=UTC),
        seconds=4.2,
        tools={"lint": "ruff 1", "security": "bandit 2"},
        files=("a.py", "b.py"),
        passed_over=(PassedOver("link.py", "a symbolic link"),),
        answers=(
            answer("a.py", "lint", LOW, MEDIUM),
            answer("a.py", "security", seconds=2.0),
            answer("b.py", "lint", LOW, instance="lint-2"),
            answer("b.py", "security", HIGH),
        ),
        failures=(),
        kill=Kill(Instance("lint-1", "lint", ""), 4711, 0.25),
    )


def terminal_text(report: Report) -> str:
    console = Console(file=io.StringIO(), width=150)
    print_report(report, console)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_findings_and_files_come_the_worst_first_with_paths_from_the_working_directory() -> None:
    report = merge(outcome())

    assert [(each.file, each.line, each.severity) for each in report.findings] == [
        ("src/b.py", 3, "high"),
        ("src/a.py", 2, "medium"),
        ("src/a.py", 1, "low"),
        ("src/b.py", 1, "low"),
    ]
    assert [each.file for each in report.hot_spots] == ["src/b.py", "src/a.py"]
    assert (report.counts.high, report.counts.medium, report.counts.low) == (1, 1, 2)


def test_every_answer_is_told_with_its_instance_and_its_time() -> None:
    report = merge(outcome())

    told = {(each.file, each.kind, each.instance, each.seconds, each.findings) for each in report.answers}
    assert told == {
        ("src/a.py", "lint", "lint-1", 0.5, 2),
        ("src/a.py", "security", "security-1", 2.0, 0),
        ("src/b.py", "lint", "lint-2", 0.5, 1),
        ("src/b.py", "security", "security-1", 0.5, 1),
    }
    assert [(each.instance, each.answers, each.share) for each in report.instances] == [
        ("lint-1", 1, 0.5),
        ("lint-2", 1, 0.5),
        ("security-1", 2, 1.0),
    ]
    assert report.slowest[0].seconds == 2.0
    assert report.complete


def test_an_instance_that_was_killed_before_its_first_answer_is_told_too() -> None:
    whole = outcome()

    report = merge(replace(whole, kill=Kill(Instance("lint-3", "lint", ""), 4711, None)))

    share = next(each for each in report.instances if each.instance == "lint-3")
    assert (share.answers, share.share, share.mean_seconds) == (0, 0.0, None)
    assert "lint-3 (killed)" in terminal_text(report)
    assert "the mesh had not noticed" in render_markdown(report)


def test_a_report_without_every_answer_is_incomplete_and_says_what_is_missing() -> None:
    whole = outcome()
    failure = Failure("b.py", "security", "no healthy agent", repeats=4)

    report = merge(replace(whole, answers=whole.answers[:3], failures=[failure]))

    assert not report.complete
    assert report.expected_answers == 4
    assert report.repeated_by_coordinator == 4
    assert "3 of 4 answers, INCOMPLETE" in render_markdown(report)
    assert "src/b.py, security: no healthy agent" in terminal_text(report)


def test_the_same_answer_twice_does_not_stand_in_for_a_missing_one() -> None:
    whole = outcome()

    report = merge(replace(whole, answers=(*whole.answers[:3], whole.answers[0])))

    assert not report.complete


def test_a_file_that_tools_cannot_read_is_one_severe_finding() -> None:
    whole = outcome()
    refusals = (
        answer("a.py", "lint", not_checked="not UTF-8"),
        answer("a.py", "security", not_checked="syntax error"),
    )

    report = merge(replace(whole, answers=(*refusals, *whole.answers[2:])))

    [finding] = [each for each in report.findings if each.file == "src/a.py"]
    assert (finding.severity, finding.rule, finding.line) == ("high", "not-checked", 0)
    assert "lint: not UTF-8; security: syntax error" in finding.message
    assert report.complete


def test_findings_that_an_answer_omits_are_counted() -> None:
    whole = outcome()

    report = merge(replace(whole, answers=(answer("a.py", "lint", LOW, omitted=7), *whole.answers[1:])))

    assert "and 7 more findings" in {each.message for each in report.findings}
    assert next(each.findings for each in report.answers if each.kind == "lint") == 8


@pytest.mark.parametrize(("least", "count"), [(Severity.LOW, 4), (Severity.MEDIUM, 2), (Severity.HIGH, 1)])
def test_findings_that_matter_less_than_asked_for_are_left_out(least: Severity, count: int) -> None:
    report = merge(outcome(), least)

    assert len(report.findings) == report.counts.total == count


def test_calls_that_the_mesh_repeated_are_counted_where_it_tells() -> None:
    whole = outcome()
    told = [
        replace(each, review=each.review.model_copy(update={"attempt": 1 + (each.file == "a.py")}))
        for each in whole.answers
    ]

    assert merge(replace(whole, answers=told)).repeated_by_mesh == 2
    assert merge(whole).repeated_by_mesh is None


def test_the_markdown_names_places_and_the_killed_instance() -> None:
    text = render_markdown(merge(outcome()))

    assert "## Code review: 4 findings: 1 high, 1 medium, 2 low" in text
    assert "| **high** | `src/b.py:3` | security `B602` | a shell |" in text
    assert (
        "lint-1 (pid 4711) was killed on purpose with SIGKILL half-way; the mesh noticed after 0.25 s" in text
    )
    assert "- `src/link.py`: a symbolic link" in text


def test_the_markdown_shows_source_text_as_it_is_and_notifies_nobody() -> None:
    whole = outcome()
    nasty = Finding(
        line=1, severity=Severity.LOW, rule="X`1", message="@octocat | <img src=x> [a](b) `code` *bold*"
    )

    text = render_markdown(merge(replace(whole, answers=(answer("a|`b.py", "lint", nasty),))))

    [row] = [line for line in text.splitlines() if "octocat" in line]
    assert "@octocat" not in row
    assert r"\<img src=x\> \[a\](b) \`code\` \*bold\*" in row
    assert r"src/a\|\`b.py:1" in row


def test_the_markdown_fits_into_a_pull_request_however_much_was_found() -> None:
    whole = outcome()
    long = Finding(line=1, severity=Severity.LOW, rule="X1", message="m" * 500)
    answers = [answer(f"{number:03}.py", "lint", *[long] * 20) for number in range(200)]

    text = render_markdown(merge(replace(whole, answers=answers)))

    assert len(text) < 65_536
    assert f"and {4000 - MAX_FINDINGS} more findings" in text


def test_the_terminal_shows_findings_who_answered_and_the_kill() -> None:
    text = terminal_text(merge(outcome()))

    for expected in ("src/b.py:3", "a shell", "lint-1 (killed)", "4 of 4 answers, complete", "pid 4711"):
        assert expected in text


def test_source_text_is_not_taken_for_terminal_markup() -> None:
    whole = outcome()
    finding = Finding(line=1, severity=Severity.LOW, rule="X1", message="[bold red]not markup[/]")

    text = terminal_text(merge(replace(whole, answers=(answer("a.py", "lint", finding),))))

    assert "[bold red]not markup[/]" in text


def test_both_reports_are_written_and_the_json_one_can_be_read_back(tmp_path: Path) -> None:
    report = merge(outcome())
    directory = tmp_path / "new" / "directory"

    prepare_output(directory)
    written = write_reports(report, directory)

    assert sorted(path.name for path in directory.iterdir()) == ["review.json", "review.md"]
    markdown, as_json = written
    assert markdown.read_text().startswith("## Code review")
    assert json.loads(as_json.read_text())["startedAt"] == "2026-01-02T00:00:00Z"
    assert Report.model_validate_json(as_json.read_text()) == report


def test_a_place_where_no_report_can_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(InvalidRequest, match="no report can be written to"):
        prepare_output(tmp_path / "file")


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_on_a_terminal_and_told_in_lines_elsewhere(terminal: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100)

    with display_on(console) as display:
        display.starting(2)
        display.child(ChildState(name="control", pid=2, phase="starting"))
        display.child(ChildState(name="nats", pid=1, phase="ready"))
        display.child(ChildState(name="lint-1", pid=None, phase="restarting", detail="exit code 137"))
        display.reviewing({"lint": 2, "security": 2})
        for each in outcome().answers[:3]:
            display.answered(each)
        display.answered(Failure("b.py", "security", "no healthy agent", 4))
        display.say("half-way: [brackets] stay")
        display.stopping("interrupted")
        display.stopping("stopping once more")

    text = out.getvalue()
    assert "lint-1 ended and is started anew" in text
    assert "half-way: [brackets] stay" in text
    assert "no answer from security about b.py: no healthy agent" in text
    assert ("4 of 4 answers" in text) is not terminal
    assert "interrupted" in text
    assert "stopping once more" not in text
    assert ("2/2" in text) is terminal
    assert ("waiting for control" in text) is terminal
