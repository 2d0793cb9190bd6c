"""Filters of events."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from weft.errors import InvalidRequest
from weft.events.filters import parse_filter, parse_filters
from weft.model.cloud_event import CloudEvent

EVENT = CloudEvent(
    id="1",
    source="/shop",
    type="order.created",
    time=datetime(2026, 11, 5, tzinfo=UTC),
    extensions={"region": "eu-west"},
)


@pytest.mark.parametrize(
    ("document", "matches"),
    [
        ({"exact": {"type": "order.created"}}, True),
        ({"exact": {"type": "Order.created"}}, False),
        ({"exact": {"type": "order.created", "source": "/other"}}, False),
        ({"exact": {"subject": "x"}}, False),
        ({"exact": {"specversion": "1.0", "time": "2026-11-05T00:00:00Z"}}, True),
        ({"prefix": {"type": "order.", "region": "eu"}}, True),
        ({"suffix": {"type": ".created"}}, True),
        ({"suffix": {"region": "-east"}}, False),
        ({"not": {"exact": {"subject": "x"}}}, True),
        ({"all": [{"prefix": {"type": "order"}}, {"not": {"exact": {"region": "us"}}}]}, True),
        ({"all": [{"prefix": {"type": "order"}}, {"exact": {"region": "us"}}]}, False),
        ({"any": [{"exact": {"region": "us"}}, {"suffix": {"region": "west"}}]}, True),
        ({"any": [{"exact": {"region": "us"}}]}, False),
    ],
)
def test_filters_match_as_their_dialect_says(document: Any, matches: bool) -> None:
    assert parse_filter(document).matches(EVENT) is matches


def test_all_filters_of_a_list_must_match_and_none_lets_everything_through() -> None:
    assert parse_filters([]).matches(EVENT)
    assert not parse_filters([{"exact": {"id": "1"}}, {"exact": {"id": "2"}}]).matches(EVENT)


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"sql": "type = 'x'"}, "filter.sql: dialects"),
        ({}, "filter: must be an object"),
        ({"exact": {"id": "1"}, "prefix": {"id": "1"}}, "filter: must be an object"),
        ([], "filter: must be an object"),
        ({"exact": {}}, "filter.exact"),
        ({"exact": {"id": ""}}, "filter.exact.id"),
        ({"exact": {"id": 1}}, "filter.exact.id"),
        ({"exact": {"Id": "1"}}, "'Id'"),
        ({"exact": {"data": "1"}}, "'data'"),
        ({"all": []}, "filter.all"),
        ({"all": [{"any": [{"exact": {"id": 1}}]}]}, r"filter.all\[0\].any\[0\].exact.id"),
        ({"not": []}, "filter.not"),
        ({"any": [{"exact": {"id": "1"}}] * 200}, "128 expressions"),
        ({"exact": {f"a{number}": "1" for number in range(200)}}, "128 expressions"),
    ],
)
def test_a_wrong_filter_is_refused_with_the_place(document: Any, place: str) -> None:
    with pytest.raises(InvalidRequest, match=place):
        parse_filter(document)


def test_filters_nest_only_so_deep() -> None:
    document: Any = {"exact": {"id": "1"}}
    for _ in range(2000):
        document = {"not": document}
    with pytest.raises(InvalidRequest, match="8 deep"):
        parse_filter(document)
