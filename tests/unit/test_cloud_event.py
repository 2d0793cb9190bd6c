"""CloudEvents: what is one, and how it is written and read, beside the official SDK."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cloudevents.core.bindings import http as sdk
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent as SdkEvent

from weft.errors import InvalidRequest
from weft.events.binding import decode, to_binary, to_structured
from weft.events.json_format import from_json, to_json
from weft.model.cloud_event import CloudEvent, canonical, parse_time, time_text

FULL = CloudEvent(
    id="A-1 é",
    source="https://shop.example/orders?x=1#é",
    type="com.example.order.created",
    subject='Euro € 😀 100% "quoted"',
    time=datetime(2026, 11, 5, 17, 31, 0, 250000, tzinfo=UTC),
    datacontenttype="application/json; charset=utf-8",
    dataschema="https://shop.example/schemas/order.json",
    extensions={"partitionkey": "customer 7", "comexampleflag": "true", "n": "5"},
    data='{"total":12.5,"items":[1,null,"é"]}'.encode(),
)
BARE = CloudEvent(id="1", source="/s", type="t")
BINARY = CloudEvent(id="1", source="urn:x:y", type="t", datacontenttype="image/png", data=b"\x89PNG\x00\xff")
TEXT = CloudEvent(id="1", source="/s", type="t", datacontenttype="text/plain", data="grüß\n\x01".encode())
NOT_UTF_8 = CloudEvent(id="1", source="/s", type="t", datacontenttype="text/plain", data=b"\xfc")
UNTYPED = CloudEvent(id="1", source="/s", type="t", data=b"not json")
SAMPLES = [FULL, BARE, BINARY, TEXT, NOT_UTF_8, UNTYPED]


@pytest.mark.parametrize("event", SAMPLES)
def test_an_event_comes_back_from_either_mode_as_it_was(event: CloudEvent) -> None:
    for encoded in (to_binary(event), to_structured(event)):
        assert decode(encoded.headers, encoded.body) == event
        assert all(value.isascii() and value.isprintable() for value in encoded.headers.values())


@pytest.mark.parametrize("event", SAMPLES)
def test_the_official_sdk_reads_what_is_written(event: CloudEvent) -> None:
    for encoded in (to_binary(event), to_structured(event)):
        read = sdk.from_http_event(sdk.HTTPMessage(encoded.headers, encoded.body))
        assert read.get_id() == event.id
        assert read.get_source() == event.source
        assert read.get_subject() == event.subject
        assert read.get_extension("partitionkey") == event.extensions.get("partitionkey")
        assert read.get_attributes().get("time", event.time) == event.time or event.time is None
        data = read.get_data()
        if isinstance(data, dict):
            assert data == json.loads(event.data or b"")
        elif data is not None:
            assert event.data == (data if isinstance(data, bytes) else data.encode())


def test_what_the_official_sdk_writes_is_read() -> None:
    written = SdkEvent(
        {
            "id": "7 é",
            "source": "https://shop.example/x",
            "type": "t",
            "subject": '50 % "off" €',
            "time": datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=timezone(timedelta(hours=2))),
            "datacontenttype": "application/json",
            "flag": True,
            "count": -5,
        },
        {"a": [1, "é"]},
    )
    form = JSONFormat()
    structured = sdk.to_structured(written, form)
    event = decode(structured.headers, structured.body)
    assert event.attributes() == {
        "specversion": "1.0",
        "id": "7 é",
        "source": "https://shop.example/x",
        "type": "t",
        "subject": '50 % "off" €',
        "time": "2026-01-02T03:04:05.000678+02:00",
        "datacontenttype": "application/json",
        "flag": "true",
        "count": "-5",
    }
    binary = sdk.to_binary(written, form)
    event = decode(binary.headers, binary.body)
    assert event.subject == '50 % "off" €'
    assert event.time == written.get_time()
    assert json.loads(event.data or b"") == {"a": [1, "é"]}


def test_percent_encoding_is_the_bindings_own() -> None:
    headers = to_binary(CloudEvent(id="1", source="/s", type="t", subject="Euro € 😀")).headers
    assert headers["ce-subject"] == "Euro%20%E2%82%AC%20%F0%9F%98%80"
    older = {"ce-specversion": "1.0", "ce-id": '"a \\"b\\" c"', "ce-source": "/s", "ce-type": "%74%c3%a9"}
    assert decode(older, b"").id == 'a "b" c'
    assert decode(older, b"").type == "té"


def test_data_that_is_json_stands_in_the_document_byte_by_byte() -> None:
    event = CloudEvent(id="1", source="/s", type="t", data=b'{"big": 12345678901234567890.10}')
    assert b'"data":{"big": 12345678901234567890.10}' in to_json(event)


def test_data_without_a_type_is_json_in_json() -> None:
    members = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
    event = from_json(json.dumps({**members, "data": "I'm just a string", "subject": None}).encode())
    assert (event.data, event.datacontenttype, event.subject) == (
        b'"I\'m just a string"',
        "application/json",
        None,
    )
    assert from_json(json.dumps({**members, "data": None}).encode()).data == b"null"
    xml = {**members, "datacontenttype": "text/xml", "data": "<a/>"}
    assert from_json(json.dumps(xml).encode()).data == b"<a/>"


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        (b"[]", "no JSON object"),
        (b"\xff", "no JSON"),
        (b"[" * 100_000, "too deep"),
        (b'{"specversion":"1.0","id":"1","id":"2","source":"/s","type":"t"}', "twice"),
        (b'{"specversion":"1.0","id":"1","source":"/s","type":"t","data":NaN}', "NaN"),
        (b'{"specversion":"1.0","id":"1","source":"/s","type":"t","data":1,"data_base64":""}', "both"),
        (b'{"specversion":"1.0","id":"1","source":"/s","type":"t","data_base64":"*"}', "base64"),
        (b'{"specversion":"1.0","id":"1","source":"/s","type":"t","n":1.5}', "integer"),
        (b'{"specversion":"1.0","id":"1","source":"/s","type":"t","n":4294967296}', "32 bits"),
        (b'{"specversion":"1.0","id":"1","source":"/s","type":"t","n":{}}', "'n'"),
        (b'{"specversion":"1.0","id":"1","source":"/s","type":"t","data":"\\ud800"}', "surrogate"),
        (b'{"specversion":"0.3","id":"1","source":"/s","type":"t"}', "0.3"),
        (b'{"specversion":"1.0","source":"/s"}', "no id and no type"),
        (b'{"id":"1","source":"/s","type":"t"}', "specversion"),
        (
            b'{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"a/b","data":{}}',
            "a/b",
        ),
    ],
)
def test_a_document_that_is_no_event_is_refused(document: bytes, complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        from_json(document)


@pytest.mark.parametrize(
    "headers",
    [
        {"ce-id": "%FF"},
        {"ce-id": "%C0%A0"},
        {"ce-id": "a%0Ab"},
        {"ce-id": "\udcff"},
        {"ce-datacontenttype": "text/plain"},
        {"ce-data": "x"},
        {"ce-under_score": "x"},
        {"content-type": "application/cloudevents+avro"},
        {"content-type": "application/cloudevents-batch+json"},
        {"content-type": "nonsense"},
        {"ce-time": "2026-13-01T00:00:00Z"},
        {"ce-time": "2026-11-01"},
        {"ce-time": "2026-11-01T00:00:00"},
        {"ce-time": "2026-11-01T00:00:00+01:99"},
        {"ce-time": "٢026-11-01T00:00:00Z"},
        {"ce-source": "a b"},
        {"ce-dataschema": "/relative"},
        {"ce-subject": ""},
        {"ce-id": "x" * 3000},
        {f"ce-x{number}": "" for number in range(65)},
    ],
)
def test_headers_that_make_no_event_are_refused(headers: dict[str, str]) -> None:
    valid = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}
    assert decode(valid, b"").id == "1"
    with pytest.raises(InvalidRequest):
        decode({**valid, **headers}, b"{}")


def test_times_keep_their_offset() -> None:
    assert parse_time("2026-11-05t17:31:00.1234567z") == datetime(2026, 11, 5, 17, 31, 0, 123456, tzinfo=UTC)
    assert time_text(parse_time("2026-11-05T17:31:00-02:30")) == "2026-11-05T17:31:00-02:30"
    with pytest.raises(InvalidRequest, match="offset"):
        CloudEvent(id="1", source="/s", type="t", time=datetime(2026, 1, 1))


def test_values_become_canonical_text() -> None:
    assert [canonical(each) for each in (True, -3, b"\x00", "a")] == ["true", "-3", "AA==", "a"]
    with pytest.raises(InvalidRequest, match="float"):
        canonical(1.5)  # type: ignore[arg-type]
