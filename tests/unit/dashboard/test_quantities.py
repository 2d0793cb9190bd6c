"""How quantities are written that `wording` does not know."""

from __future__ import annotations

import pytest

from weft.dashboard import quantities
from weft.dashboard.quantities import UNKNOWN


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, UNKNOWN),
        (0, "0"),
        (1250, "1,250"),
        (9_999, "9,999"),
        (48_210, "48.2k"),
        (999_999, "1.0M"),
        (3.1e9, "3.1G"),
    ],
)
def test_a_large_number_is_short(value: float | None, text: str) -> None:
    assert quantities.compact(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, UNKNOWN), (0.0004, "0.4 ms"), (0.12, "120 ms"), (59.0, "59.0 s"), (3600, "60 min")],
)
def test_a_time_is_told_in_a_unit_that_fits_it(value: float | None, text: str) -> None:
    assert quantities.lasting(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, UNKNOWN),
        (0, "$0.00"),
        (0.0042, "$0.0042"),
        (0.00001, "<$0.0001"),
        (0.99999, "$1.00"),
        (1250, "$1,250.00"),
    ],
)
def test_small_amounts_of_money_do_not_read_as_nothing(value: float | None, text: str) -> None:
    assert quantities.usd(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, UNKNOWN), (512, "512 B"), (65_536, "64 KiB"), (1.5 * 2**20, "1.5 MiB"), (2**40, "1024 GiB")],
)
def test_bytes_are_told_in_a_unit_that_fits_them(value: float | None, text: str) -> None:
    assert quantities.size(value) == text


def test_a_share_may_be_more_than_the_whole() -> None:
    assert (quantities.percent(1.25), quantities.percent(None)) == ("125.0 %", UNKNOWN)


def test_times_are_told_in_utc_and_read_back() -> None:
    assert quantities.clock(1_790_000_000.5) == "14:13:20"
    assert quantities.date_and_clock(1_790_000_000.5) == "2026-09-21 14:13:20"
    assert quantities.parsed("2026-09-21T14:13:20.500Z") == 1_790_000_000.5


def test_what_is_no_time_is_unknown() -> None:
    assert quantities.clock(1e300) == quantities.date_and_clock(None) == UNKNOWN
    assert quantities.parsed("yesterday") is quantities.parsed(None) is None
