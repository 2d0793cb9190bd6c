"""How an instance is written down."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from weft.errors import InvalidRequest
from weft.model.agent import Instance, Locality, Status
from weft.registry.record import MAX_REASON_LENGTH, MAX_RECORD_BYTES, InstanceCodec

CODEC = InstanceCodec()
FULL = Instance(
    id="one",
    type="summarizer",
    endpoint="127.0.0.1:8001",
    status=Status.DRAINING,
    capabilities=frozenset({"summarize", "translate"}),
    version="1.2",
    labels={"team": "red"},
    locality=Locality("eu", "eu-1"),
    weight=7,
    in_flight=3,
    started_at=12.5,
    reason="health check failed",
    incarnation="abc",
)


def _record(**changes: object) -> bytes:
    return json.dumps({"id": "one", "type": "summarizer", "endpoint": "127.0.0.1:1", **changes}).encode()


def test_an_instance_comes_back_as_it_was() -> None:
    assert CODEC.decode(CODEC.encode(FULL)) == FULL


def test_endpoints_may_be_ipv6_addresses() -> None:
    instance = replace(FULL, endpoint="[::1]:8001")
    assert CODEC.decode(CODEC.encode(instance)) == instance


def test_fields_of_a_newer_version_are_ignored_and_missing_ones_have_their_defaults() -> None:
    assert CODEC.decode(_record(from_the_future={"a": 1})) == Instance("one", "summarizer", "127.0.0.1:1")


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b"[" * 10_000,
        _record(id="Not A Label"),
        _record(id="a.b"),
        _record(type="x" * 64),
        _record(endpoint="nowhere"),
        _record(endpoint="a b:80"),
        _record(endpoint="host.example:80"),
        _record(endpoint="127.0.0.1:0"),
        _record(endpoint="127.0.0.1:65536"),
        _record(endpoint="127.0.0.256:80"),
        _record(endpoint="127.0.0.1\n:80"),
        _record(endpoint="[127.0.0.1:80]:80"),
        _record(endpoint="user@host:80"),
        _record(status="confused"),
        _record(capabilities="summarize"),
        _record(capabilities=["a"] * 10 + [1]),
        _record(capabilities=[f"c{n}" for n in range(257)]),
        _record(labels={"a": 1}),
        _record(labels={f"l{n}": "" for n in range(65)}),
        _record(weight=0),
        _record(weight=1001),
        _record(in_flight=-1),
        _record(started_at=float("nan")),
        _record(locality={"region": 5}),
        _record(padding="x" * MAX_RECORD_BYTES),
    ],
)
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(ValueError, match="instance"):
        CODEC.decode(garbage)


def test_an_instance_out_of_its_limits_is_not_written_and_the_error_names_the_field() -> None:
    with pytest.raises(InvalidRequest, match=r"summarizer\.one.*weight"):
        CODEC.encode(replace(FULL, weight=0))


def test_an_overlong_reason_is_cut_rather_than_refused() -> None:
    assert CODEC.decode(CODEC.encode(replace(FULL, reason="x" * 10_000))).reason == "x" * MAX_REASON_LENGTH
