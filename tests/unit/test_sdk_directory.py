"""What a client makes of the control plane's word on who is in the mesh."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlencode

import pytest
from starlette.datastructures import QueryParams

from weft.errors import Unavailable
from weft.model.agent import Instance, Locality, Query, Status
from weft.sdk.directory import Change, ChangeKind, InstanceRecord, Roster, parameters_of, read_page
from weft.testing.control import read_query

ONE = Instance(
    id="a-1",
    type="a",
    endpoint="127.0.0.1:4000",
    status=Status.HEALTHY,
    capabilities=frozenset({"x", "y"}),
    version="2",
    labels={"team": "blue"},
    locality=Locality("eu", "eu-1"),
    weight=3,
    in_flight=7,
    started_at=1.5,
    reason="fine",
)
TWO = replace(ONE, id="a-2")


def test_an_instance_survives_the_wire() -> None:
    assert (
        InstanceRecord.model_validate_json(InstanceRecord.of(ONE).model_dump_json(by_alias=True)).instance()
        == ONE
    )


def test_the_wire_names_are_camel_case() -> None:
    assert {"inFlight", "startedAt"} <= InstanceRecord.of(ONE).model_dump(by_alias=True).keys()


@pytest.mark.parametrize(
    "query",
    [
        Query(),
        Query(
            type="a", capabilities=frozenset({"x", "y"}), version="2", labels={"team": "blue=green", "b": ""}
        ),
        Query(statuses=frozenset()),
        Query(statuses=frozenset({Status.STARTING, Status.DRAINING})),
    ],
)
def test_a_query_survives_the_url(query: Query) -> None:
    assert read_query(QueryParams(urlencode(parameters_of(query)))) == query


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"items": [{"id": 7}]}', b'{"items": [{"id": "a", "type": "a"}]}']
)
def test_a_list_that_makes_no_sense_is_an_error_of_the_control_plane(body: bytes) -> None:
    with pytest.raises(Unavailable, match="makes no sense"):
        read_page(body)


def test_a_roster_passes_on_only_what_differs_after_a_reconnection() -> None:
    roster = Roster()
    assert roster.put(ONE) == [Change(ChangeKind.ADDED, ONE)]
    assert roster.put(TWO) == [Change(ChangeKind.ADDED, TWO)]
    assert roster.synced() == []

    roster.reconnecting()
    busier = replace(ONE, in_flight=9)
    assert roster.put(busier) == [Change(ChangeKind.CHANGED, busier)]
    assert roster.synced() == [Change(ChangeKind.REMOVED, TWO)]

    roster.reconnecting()
    assert roster.put(busier) == []
    assert roster.synced() == []
    assert roster.remove(TWO.key) == []
    assert roster.remove(ONE.key) == [Change(ChangeKind.REMOVED, busier)]


def test_a_listing_that_breaks_off_removes_nobody() -> None:
    roster = Roster()
    roster.put(ONE)
    roster.put(TWO)
    roster.synced()
    roster.reconnecting()
    roster.put(ONE)
    roster.reconnecting()
    assert [roster.put(ONE), roster.put(TWO), roster.synced()] == [[], [], []]
