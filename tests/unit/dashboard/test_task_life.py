"""A task's life, as far as it is known."""

from __future__ import annotations

from typing import Any

import pytest

from weft.dashboard.pages.task_life import MAX_SHOWN, Phase, life_of, shown_json, task_row
from weft.model.task import Progress, Task, TaskError, TaskEvent, TaskEventKind, TaskState
from weft.tasks.documents import task_document, task_event_document

START = 1_790_000_000.0


def task(state: TaskState, **more: Any) -> dict[str, Any]:
    """A task as the API tells it."""
    return task_document(Task("research.A", state, START, "operator/ann", **more))


def event(attempt: int, at: float, data: Any, kind: TaskEventKind = TaskEventKind.PROGRESS) -> dict[str, Any]:
    """What a worker told, `at` seconds after the submission."""
    return task_event_document(TaskEvent(attempt, 1, kind, START + at, data))


def test_a_task_that_succeeded_waited_and_ran() -> None:
    document = task(
        TaskState.SUCCEEDED,
        attempts=1,
        started_at=START + 2,
        finished_at=START + 8,
        worker="researcher.r-1",
        result={"report": "looms"},
    )
    life = life_of(document, [event(1, 4, {"fraction": 0.5, "message": "reading"})], START + 100)
    assert [(each.phase, each.left, each.width) for each in life.spans] == [
        (Phase.WAITING, 0.0, 0.25),
        (Phase.RUNNING, 0.25, 0.75),
    ]
    assert [each.title for each in life.steps] == ["Submitted", "Attempt 1", "Progress 50.0 %", "Succeeded"]
    assert [each.at for each in life.steps] == [START, START + 2, START + 4, START + 8]
    assert "looms" in life.steps[-1].detail
    assert (life.ended, life.end) == (True, START + 8)


def test_a_task_that_runs_goes_on_until_now() -> None:
    document = task(TaskState.RUNNING, attempts=1, started_at=START + 5, worker="r.1")
    life = life_of(document, [], START + 10)
    assert [(each.phase, each.left + each.width) for each in life.spans] == [
        (Phase.WAITING, 0.5),
        (Phase.RUNNING, 1.0),
    ]
    assert not life.ended


def test_a_task_nobody_has_begun_waits() -> None:
    document = task(TaskState.QUEUED, not_before=START + 60, deadline=START + 90)
    life = life_of(document, [], START + 10)
    assert [(each.phase, each.width) for each in life.spans] == [(Phase.WAITING, 1.0)]
    assert [each.title for each in life.steps] == ["Submitted", "May start", "Deadline"]


def test_of_attempts_before_the_latest_is_shown_what_they_told() -> None:
    document = task(
        TaskState.FAILED,
        attempts=3,
        started_at=START + 20,
        finished_at=START + 30,
        error=TaskError("agent-failed", "no paper"),
    )
    told = [event(2, 10, {"fraction": None, "message": "again"}), event(2, 12, [1, 2], TaskEventKind.PARTIAL)]
    life = life_of(document, told, START + 100)
    assert [each.label for each in life.spans] == ["waiting", "attempt 2", "waiting", "attempt 3"]
    first = next(each for each in life.steps if each.title == "Attempt 1")
    assert (first.at, "not kept" in first.detail) == (None, True)
    assert (life.steps[-1].title, life.steps[-1].detail) == ("Failed", "agent-failed: no paper")
    titles = [each.title for each in life.steps]
    assert titles == [
        "Submitted",
        "Attempt 1",
        "Attempt 2",
        "Progress",
        "Partial result",
        "Attempt 3",
        "Failed",
    ]


def test_between_two_attempts_it_says_why_it_waits() -> None:
    document = task(
        TaskState.QUEUED,
        attempts=1,
        started_at=START + 1,
        not_before=START + 9,
        error=TaskError("agent-failed", "busy"),
    )
    life = life_of(document, [event(1, 3, {})], START + 5)
    assert [each.label for each in life.spans] == ["waiting", "attempt 1", "waiting"]
    assert life.steps[-1].title == "Waits for its next attempt"
    assert "busy" in life.steps[-1].detail


@pytest.mark.parametrize("now", [START - 5, START, START + 0.001])
def test_clocks_that_differ_break_nothing(now: float) -> None:
    document = task(TaskState.RUNNING, attempts=1, started_at=START + 3)
    life = life_of(document, [], now)
    assert all(0 <= each.left <= 1 and 0 <= each.width <= 1 for each in life.spans)


def test_a_row_tells_how_far_it_is_and_what_went_wrong() -> None:
    running = task_row(
        task(TaskState.RUNNING, attempts=2, progress=Progress(0.25, "x"), error=TaskError("a", "b")),
        START + 9,
    )
    assert (running["progress"], running["age"], running["error"]) == (0.25, 9.0, "a: b")
    queued = task_row(task(TaskState.QUEUED), START)
    assert (queued["progress"], queued["worker"], queued["error"]) == (None, "", "")


def test_a_long_result_is_cut() -> None:
    text = shown_json("x" * 3 * MAX_SHOWN)
    assert len(text) < MAX_SHOWN + 50
    assert "6,002 characters" in text
