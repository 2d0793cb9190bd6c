"""When a reminder is due, by a clock that the test moves."""

from __future__ import annotations

from weft.aio.reminder import Reminder


def due(reminder: Reminder, until: int) -> list[int]:
    return [second for second in range(until) if reminder.due(float(second))]


def test_it_is_due_ever_more_rarely() -> None:
    assert due(Reminder(0.0, first=3.0, longest=20.0), 80) == [3, 9, 21, 41, 61]


def test_one_that_is_due_at_once_grows_rare_too() -> None:
    assert due(Reminder(0.0, first=0.0), 40) == [0, 1, 3, 7, 15, 31]
