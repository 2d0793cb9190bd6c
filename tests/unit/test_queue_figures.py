"""What is made of the tasks of a queue that changed last, where a broker does not count."""

from __future__ import annotations

from weft.controlplane.queue_figures import WINDOW, sampled_rate, sampled_service_time
from weft.model.task import Task, TaskState

NOW = 1_000_000.0


def test_of_no_task_there_is_no_rate() -> None:
    assert sampled_rate((), NOW) is None


def test_what_came_within_the_window_counts_for_all_of_it() -> None:
    older = (NOW - 10 * WINDOW,)
    recent = tuple(NOW - WINDOW + 1 + each for each in range(15))
    assert sampled_rate((*older, *recent), NOW) == 15 / WINDOW


def test_a_sample_that_goes_back_less_far_than_the_window_counts_for_as_long_as_it_does() -> None:
    submitted = tuple(NOW - 5 + each / 20 for each in range(100))
    assert sampled_rate(submitted, NOW) == 100 / 5


def test_what_was_long_ago_is_no_rate_now() -> None:
    assert sampled_rate((NOW - 10 * WINDOW,), NOW) == 0.0


def _task(state: TaskState, started: float, finished: float | None = None) -> Task:
    return Task("q.x", state, NOW - 100, "", attempts=1, started_at=started, finished_at=finished)


def test_a_task_takes_what_those_finished_of_late_took() -> None:
    old = _task(TaskState.SUCCEEDED, NOW - WINDOW - 60, NOW - WINDOW - 1)
    latest = [_task(TaskState.SUCCEEDED, NOW - 5, NOW - 3), _task(TaskState.SUCCEEDED, NOW - 9, NOW - 5), old]
    assert sampled_service_time(latest, NOW) == 3.0


def test_work_that_becomes_slow_shows_before_it_is_done() -> None:
    quick = [_task(TaskState.SUCCEEDED, NOW - 20, NOW - 19)] * 2
    slow = [_task(TaskState.RUNNING, NOW - 10)] * 4
    assert sampled_service_time([*quick, *slow], NOW) == (2 * 1 + 4 * 10) / 2
    assert sampled_service_time(slow, NOW) == 10.0


def test_nothing_finished_and_nothing_under_way_tells_nothing() -> None:
    assert sampled_service_time([_task(TaskState.QUEUED, NOW - 5)], NOW) is None
