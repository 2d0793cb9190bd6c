"""Durations: read, bounded, and written as they were."""

from __future__ import annotations

import pytest

from weft.model.duration import format_duration, parse_duration
from weft.model.traffic import TrafficPolicySpec


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30.0),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("1.5s", 1.5),
        ("0.25m", 15.0),
        ("0s", 0.0),
    ],
)
def test_a_duration_is_read_as_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "30", "-1s", "+1s", "1 s", "1d", "1h30m", "1.s", ".5s", "1e3s", "1.2345s", "٣s", "1s\n"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_nothing_finer_than_a_millisecond_is_taken() -> None:
    with pytest.raises(ValueError, match="finer than a millisecond"):
        parse_duration("1.5ms")


@pytest.mark.parametrize("text", ["1ms", "999ms", "1500ms", "1s", "90s", "2m", "90m", "24h", "0s"])
def test_a_duration_is_written_in_its_largest_whole_unit(text: str) -> None:
    assert format_duration(parse_duration(text)) == text


def test_python_gives_seconds_and_json_gets_a_unit() -> None:
    policy = TrafficPolicySpec(timeout=2.5)
    assert policy.timeout == 2.5
    assert policy.model_dump(mode="json", by_alias=True, exclude_unset=True) == {"timeout": "2500ms"}
