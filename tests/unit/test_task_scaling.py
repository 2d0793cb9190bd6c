"""How many workers a queue needs."""

from __future__ import annotations

import math

import pytest

from weft.tasks.scaling import desired_workers


def test_nothing_to_do_needs_nobody() -> None:
    assert desired_workers(0, 1.0, 4, None, 0) == 0


def test_a_steady_stream_needs_what_littles_law_says() -> None:
    assert desired_workers(10, 2.0, 4, 0.0, 0) == 5
    assert desired_workers(10, 2.1, 4, 0.0, 0) == 6
    assert desired_workers(0.1, 0.001, 100, None, 0) == 1


def test_the_seeds_load_needs_more_than_three_agents() -> None:
    # 28.7 s a call, 5 at once, two a second arriving: 57.4 under way.
    assert desired_workers(2, 28.7, 5, 0.0, 0) == 12


def test_an_old_backlog_is_to_be_gone_one_target_age_from_now() -> None:
    assert desired_workers(10, 2.0, 4, 30.0, 600, target_age=30) == 15
    assert desired_workers(10, 2.0, 4, 3000.0, 600, target_age=30) == 15


def test_a_young_backlog_counts_in_proportion_to_its_age() -> None:
    needed = [desired_workers(10, 2.0, 4, age, 600, target_age=30) for age in (0, 3, 15, 30)]
    assert needed == [5, 6, 10, 15]


def test_what_waits_is_never_left_to_nobody() -> None:
    assert desired_workers(0, 0.0, 8, 0.0, 1) == 1


@pytest.mark.parametrize(
    "figures",
    [
        (-1, 1, 1, None, 0),
        (1, math.nan, 1, None, 0),
        (1, 1, 0, None, 0),
        (1, 1, 1, math.inf, 0),
        (1, 1, 1, None, -1),
    ],
)
def test_figures_that_make_no_sense_are_refused(figures: tuple[float, float, int, float | None, int]) -> None:
    with pytest.raises(ValueError, match="not negative"):
        desired_workers(*figures)
    with pytest.raises(ValueError, match="positive"):
        desired_workers(1, 1, 1, None, 0, target_age=0)
