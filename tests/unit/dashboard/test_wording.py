from __future__ import annotations

import pytest

from weft.dashboard.wording import ago, milliseconds, moment, rate, share, span


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (0.254, "0.25"), (12.34, "12.3"), (1234.4, "1,234"), (None, "–")],  # noqa: RUF001
)
def test_rates_have_the_digits_that_tell_something(number: float | None, text: str) -> None:
    assert rate(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0008, "0.8 ms"), (0.12, "120 ms"), (2.44, "2.4 s"), (120.0, "120 s")]
)
def test_durations_of_calls_are_in_milliseconds_until_they_are_seconds(seconds: float, text: str) -> None:
    assert milliseconds(seconds) == text


def test_less_than_all_never_reads_as_all() -> None:
    assert share(99_999, 100_000) == "99.9 %"
    assert share(5, 5) == "100 %"
    assert share(1, 3) == "33.3 %"
    assert share(0, 0) == "–"  # noqa: RUF001


@pytest.mark.parametrize(
    ("at", "text"), [(1000.0, "just now"), (988.0, "12 s ago"), (1300.0, "in 5 min"), (-9000.0, "3 h ago")]
)
def test_moments_are_told_from_now(at: float, text: str) -> None:
    assert ago(at, 1000.0) == text


def test_a_span_is_in_its_largest_unit() -> None:
    assert [span(each) for each in (0, 119, 120, 7200, 200_000)] == ["0 s", "119 s", "2 min", "2 h", "2 d"]


def test_moments_beyond_all_calendars_are_unknown() -> None:
    assert moment(0) == "1970-01-01 00:00:00 UTC"
    assert moment(1e300) == "unknown"
