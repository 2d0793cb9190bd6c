"""What is made of the tasks of a queue that changed last, where a broker does not count."""

from __future__ import annotations

from weft.controlplane.queue_figures import WINDOW, sampled_rate

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
