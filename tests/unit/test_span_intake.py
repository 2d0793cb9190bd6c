"""What becomes of spans when they are taken in: names, whose they are, what is taken out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from envoy.data.accesslog.v3.accesslog_pb2 import HTTPAccessLogEntry
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span, Status
from prometheus_client import CollectorRegistry
from tests.spans import ENVOYS_OUTBOUND, attributes, group, span

from weft.controlplane.telemetry.access_log_spans import failed_attempt, failed_call
from weft.controlplane.telemetry.intake import Intake, Piece, pieces_of
from weft.controlplane.telemetry.limits import MAX_UNDER_WAY_BYTES
from weft.controlplane.telemetry.metrics import SpanMetrics
from weft.controlplane.telemetry.redaction import Redaction
from weft.controlplane.telemetry.reporter import Reporter
from weft.controlplane.telemetry.waterfall import shown_attributes
from weft.errors import TooMany
from weft.model.spiffe import agent_id, control_id, operator_id

ENVOY = Reporter("spiffe://weft.local/agent/planner/p-1", "planner", "p-1", is_envoy=True)
AGENT = Reporter("spiffe://weft.local/agent/planner/p-1", "planner", "p-1")
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Scene:
    """An intake, and what it hands on."""

    def __init__(self, redaction: Redaction | None = None) -> None:
        self.pieces: list[Piece] = []
        metrics = SpanMetrics(CollectorRegistry())
        self.intake = Intake(lambda: redaction or Redaction(), self.pieces.append, metrics)

    async def take(self, *groups: ResourceSpans, reporter: Reporter = AGENT, size: int = 1) -> list[Span]:
        self.pieces.clear()
        await self.intake.take(groups, size, reporter)
        return [each for piece in self.pieces for scope in piece.spans.scope_spans for each in scope.spans]


async def told(tags: Mapping[str, str], redaction: Redaction | None = None) -> Span:
    """What becomes of a span with such tags that Envoy sends."""
    (found,) = await Scene(redaction).take(group(span("x", given=tags)), reporter=ENVOY)
    return found


def attributes_of(given: Span) -> dict[str, Any]:
    return shown_attributes(given.attributes)


async def test_a_call_of_an_agent_is_told_by_the_names_of_the_conventions() -> None:
    found = await told(ENVOYS_OUTBOUND)
    assert (found.name, found.kind) == ("invoke_agent summarizer", Span.SPAN_KIND_CLIENT)
    assert attributes_of(found) == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "url.path": "/rpc",
        "http.request.body.size": 120,
        "http.response.body.size": 220,
        "weft.listener": "outbound",
        "server.address": "summarizer.mesh",
        "weft.destination": "summarizer",
        "weft.destination.kind": "agent",
        "weft.route": "default",
        "weft.version": "1",
        "weft.instance": "summarizer-1",
        "weft.attempts": 1,
        "weft.context": "c-1",
        "gen_ai.conversation.id": "c-1",
        "gen_ai.operation.name": "invoke_agent",
    }
    assert found.status.code == Status.STATUS_CODE_UNSET


@pytest.mark.parametrize(
    ("tags", "name", "kind"),
    [
        ({"weft.cluster": "type/summarizer/2"}, "invoke_agent summarizer", "agent"),
        ({"weft.cluster": "context/type/summarizer"}, "invoke_agent summarizer", "agent"),
        (
            {"weft.cluster": "context/capability/sum", "weft.destination": "sum"},
            "invoke_agent sum",
            "capability",
        ),
        ({"weft.cluster": "type/files", "weft.tool": "read_file"}, "execute_tool read_file", "tool"),
        ({"weft.cluster": "control", "weft.destination": "tools"}, "POST tools", "tool"),
        (
            {"weft.cluster": "llm/gpt", "weft.llm.endpoint": "chat", "weft.llm.model": "large"},
            "chat large",
            "model",
        ),
        (
            {"weft.cluster": "provider/gpt/a", "weft.llm.endpoint": "embeddings", "weft.llm.model": "e"},
            "embeddings e",
            "model",
        ),
        (
            {"weft.cluster": "forward", "weft.destination": "outside", "weft.authority": "x.example:443"},
            "POST x.example:443",
            "outside",
        ),
        ({"weft.cluster": "-", "weft.destination": "unknown"}, "POST unknown", "agent"),
    ],
)
async def test_a_call_is_called_by_what_it_is_for(tags: dict[str, str], name: str, kind: str) -> None:
    found = await told({**ENVOYS_OUTBOUND, **tags})
    assert (found.name, attributes_of(found)["weft.destination.kind"]) == (name, kind)


async def test_a_call_of_a_model_says_what_it_used() -> None:
    tags = {
        "weft.cluster": "llm/gpt",
        "weft.destination": "gpt",
        "weft.llm.pool": "gpt",
        "weft.llm.model": "large",
        "weft.llm.provider": "north",
        "weft.llm.input_tokens": "12.0",
        "weft.llm.output_tokens": "7",
        "weft.llm.cached_tokens": "lots",
    }
    found = attributes_of(await told({**ENVOYS_OUTBOUND, **tags}))
    assert found["gen_ai.operation.name"] == "chat"
    assert found["gen_ai.provider.name"] == "north"
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (12, 7)
    assert "gen_ai.usage.cache_read.input_tokens" not in found


async def test_a_call_that_came_in_says_who_called_and_one_from_outside_which_gateway() -> None:
    caller = "spiffe://weft.local/agent/boss/b-1"
    inbound = {
        "component": "proxy",
        "weft.listener": "inbound",
        "weft.caller": caller,
        "http.url": "/rpc?k=1",
    }
    found = await told(inbound)
    assert (found.name, found.kind) == ("serve planner", Span.SPAN_KIND_SERVER)
    assert attributes_of(found)["weft.caller"] == caller
    assert attributes_of(found)["url.path"] == "/rpc"
    outside = await told({"component": "proxy", "weft.listener": "outside", "weft.gateway": "public"})
    assert (outside.name, outside.kind) == ("gateway public", Span.SPAN_KIND_SERVER)


async def test_a_failed_call_says_why() -> None:
    tags = {
        "http.status_code": "503",
        "weft.error": "no-healthy-agent",
        "weft.details": "no_healthy_upstream",
    }
    found = await told({**ENVOYS_OUTBOUND, **tags, "response_flags": "UH"})
    assert (found.status.code, found.status.message) == (Status.STATUS_CODE_ERROR, "no-healthy-agent")
    assert attributes_of(found)["weft.flags"] == "UH"
    assert attributes_of(found)["weft.details"] == "no_healthy_upstream"


async def test_whose_spans_are_is_what_was_proved() -> None:
    scene = Scene()
    claimed = group(span(), service="boss", service_instance_id="b-1", weft_reporter="boss", os_type="linux")
    for reporter, service, instance in (
        (AGENT, "planner", "p-1"),
        (ENVOY, "planner", "p-1"),
        (Reporter.of_process(agent_id("weft.local", "writer", "w-1")), "writer", "w-1"),
        (Reporter.of_process(operator_id("weft.local", "alice", "d-1")), "caller", "d-1"),
        (Reporter.of_process(control_id("weft.local", "c-1")), "control", "c-1"),
        (Reporter("operator/alice"), "boss", "b-1"),
    ):
        await scene.take(claimed, reporter=reporter)
        resource = shown_attributes(scene.pieces[0].spans.resource.attributes)
        assert resource == {
            "service.name": service,
            "service.instance.id": instance,
            "weft.reporter": reporter.who,
            "os.type": "linux",
        }


async def test_what_looks_like_envoys_is_taken_as_it_is_from_a_program() -> None:
    (found,) = await Scene().take(group(span("x", given=ENVOYS_OUTBOUND)))
    assert found.name == "x"


@pytest.mark.parametrize(
    "secret",
    [
        "Bearer abcdefghijklmnop",
        "weft_0123456789abcdef",
        "sk-0123456789abcdef",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "postgres://user:hunter22@db/x",
        "postgres://user:p@ss@hunter22@db/x",
        "password=hunter22",
        "Authorization: Token hunter22",
        "Cookie: theme=dark; session=hunter22",
        "AWS_SECRET_ACCESS_KEY=hunter22",
        "Server=db;Uid=app;Pwd=hunter22",
        '{"api_key": "hunter22"}',
        json.dumps([{"content": json.dumps({"password": "hunter22"})}]),
        '{"content": "\\"password\\": \\"hunter22\\", an',
    ],
)
@pytest.mark.parametrize("where", ["attribute", "nested", "event", "name", "status", "bytes"])
async def test_what_looks_like_a_secret_is_kept_nowhere(secret: str, where: str) -> None:
    given = span("call")
    match where:
        case "attribute":
            given.attributes.extend(attributes({"text": f"so {secret}" if secret[0] != "{" else secret}))
        case "nested":
            given.attributes.extend(attributes({"deep": {"list": [{"x": secret}]}}))
        case "event":
            given.events.add(name="e").attributes.extend(attributes({"m": secret}))
        case "name":
            given.name = secret
        case "bytes":
            given.attributes.extend(attributes({"raw": secret.encode()}))
        case _:
            given.status.message = secret
    scene = Scene()
    (found,) = await scene.take(group(given))
    kept = str(found) + str(scene.pieces[0].data)
    assert "redacted" in kept
    for part in ("abcdefghijklmnop", "0123456789abcdef", "AKIAIOSFODNN7", "c2lnbmF0dXJl", "hunter22"):
        assert part not in kept


async def test_no_secret_is_kept_in_names_of_attributes_states_of_traces_and_scopes_either() -> None:
    secret = "sk-0123456789abcdef"
    given = span(given={f"of {secret}": 1}, trace_state=f"v={secret}")
    given.links.add(trace_state=f"v={secret}").attributes.extend(attributes({"a": secret}))
    sent = group(given)
    sent.scope_spans[0].scope.name = sent.scope_spans[0].scope.version = secret
    scene = Scene()
    (found,) = await scene.take(sent)
    assert attributes_of(found) == {"of [redacted]": 1}
    assert found.trace_state == found.links[0].trace_state == "v=[redacted]"
    assert b"0123456789" not in scene.pieces[0].data


async def test_attributes_named_like_a_secret_and_queries_are_not_kept() -> None:
    given = {
        "http.request.header.authorization": "x",
        "db_password": "y",
        "url.full": "https://u/p?token=zzz#frag",
        "http.target": "?zzz",
        "url.query": "zzz",
        "gen_ai.usage.input_tokens": 3,
    }
    (found,) = await Scene().take(group(span(given=given)))
    assert attributes_of(found) == {
        "http.request.header.authorization": "[redacted]",
        "db_password": "[redacted]",
        "url.full": "https://u/p",
        "http.target": "",
        "url.query": "[redacted]",
        "gen_ai.usage.input_tokens": 3,
    }


async def test_declared_rules_and_fields_hold_in_texts_json_and_what_was_cut() -> None:
    redaction = Redaction([r"\bDE[0-9]{4,}\b", "^private"], ["SSN", "pin.code"])
    given = {
        "a": "account DE12345 of",
        "b": "private matters",
        "ssn": "1",
        "user.ssn": 5,
        "c": '{"ssn": 123, "Pin.Code": ["x"], "n": 1}',
        "d": '[{"who": "x", "ssn": "12 3", "rest": "cut he',
        "iban": 7,
    }
    (found,) = await Scene(redaction).take(group(span(given=given)))
    assert attributes_of(found) == {
        "a": "account [redacted] of",
        "b": "[redacted] matters",
        "ssn": "[redacted]",
        "user.ssn": "[redacted]",
        "c": '{"ssn":"[redacted]","Pin.Code":"[redacted]","n":1}',
        "d": '[{"who": "x", "ssn": [redacted], "rest": "cut he',
        "iban": 7,
    }


async def test_what_cannot_be_a_span_is_left_out_and_the_rest_is_taken() -> None:
    bad = [span("a"), span("b"), span("c"), span("d"), span("e")]
    bad[0].trace_id, bad[1].span_id, bad[2].parent_span_id = bytes(16), b"1", b"123"
    bad[3].start_time_unix_nano = 0
    bad[4].end_time_unix_nano = 1
    scene = Scene()
    taken = await scene.intake.take([group(*bad, span("good"))], 1, AGENT)
    assert (taken.spans, taken.rejected) == (2, 4)
    assert "16 bytes" in taken.reason
    (_, kept) = [each for piece in scene.pieces for each in piece.spans.scope_spans[0].spans]
    assert kept.name == "good"


async def test_pieces_are_small_enough_to_be_passed_on_and_are_what_was_taken() -> None:
    scene = Scene()
    spans = [span(f"{number}", given={"text": "x" * 10_000}) for number in range(200)]
    found = await scene.take(group(*spans), reporter=AGENT)
    assert len(found) == 200
    assert len(scene.pieces) > 4
    assert all(len(each.data) <= 410 * 1024 for each in scene.pieces)
    again = [
        each.name
        for group_ in pieces_of(b"".join(piece.data for piece in scene.pieces))
        for each in group_.scope_spans[0].spans
    ]
    assert again == [f"{number}" for number in range(200)]


async def test_more_than_can_be_worked_on_is_put_off() -> None:
    scene = Scene()
    with pytest.raises(TooMany):
        await scene.take(group(span()), size=1 << 30)
    assert await scene.take(group(span()))


async def test_one_sender_leaves_room_for_others_in_what_is_worked_on() -> None:
    half = MAX_UNDER_WAY_BYTES // 2
    one, two, three = (replace(AGENT, who=f"spiffe://weft.local/agent/x/{each}") for each in "123")
    intake = Scene().intake
    with intake.admitted(half, one):
        with pytest.raises(TooMany), intake.admitted(1, one):
            pass
        with intake.admitted(half, two), pytest.raises(TooMany), intake.admitted(1, three):
            pass
        with intake.admitted(half, three):
            pass
    with intake.admitted(half, one):
        pass


async def test_figures_of_envoys_that_are_none_are_left_out_and_the_call_is_told() -> None:
    given = {**ENVOYS_OUTBOUND, "request_size": "1e300", "response_size": "nan", "weft.attempts": "-1e30"}
    found = attributes_of(await told(given))
    assert found["weft.destination"] == "summarizer"
    assert not {"http.request.body.size", "http.response.body.size", "weft.attempts"} & found.keys()


def entry(tags: Mapping[str, str]) -> HTTPAccessLogEntry:
    made = HTTPAccessLogEntry()
    made.common_properties.start_time.FromSeconds(1_790_000_000)
    made.common_properties.duration.FromMilliseconds(250)
    made.common_properties.custom_tags.update(tags)
    return made


def test_a_failed_call_that_nobody_traced_becomes_a_span() -> None:
    tags = {
        **ENVOYS_OUTBOUND,
        "trace_id": TRACE,
        "span_id": SPAN,
        "parent": f"00-{TRACE}-00f067aa0ba902b7-00",
        "http.status_code": "503",
        "weft.error": "no-healthy-agent",
    }
    found = failed_call(entry(tags), ENVOY)
    assert found is not None
    assert (found.trace_id.hex(), found.span_id.hex()) == (TRACE, SPAN)
    assert found.parent_span_id.hex() == "00f067aa0ba902b7"
    assert (found.name, found.status.message) == ("invoke_agent summarizer", "no-healthy-agent")
    assert found.end_time_unix_nano - found.start_time_unix_nano == 250_000_000
    assert attributes_of(found)["weft.source"] == "access-log"


@pytest.mark.parametrize("parent", ["always", "", f"00-{TRACE[::-1]}-00f067aa0ba902b7-00", "00-x-y-z"])
def test_a_failed_call_without_a_parent_of_its_trace_is_a_root(parent: str) -> None:
    found = failed_call(entry({"trace_id": TRACE, "span_id": SPAN, "parent": parent}), ENVOY)
    assert found is not None
    assert found.parent_span_id == b""
    assert found.status.code == Status.STATUS_CODE_ERROR


@pytest.mark.parametrize("tags", [{}, {"trace_id": TRACE}, {"trace_id": "x" * 32, "span_id": SPAN}])
def test_an_entry_that_names_no_span_becomes_none(tags: dict[str, str]) -> None:
    assert failed_call(entry(tags), ENVOY) is None
    assert failed_attempt(entry(tags), ENVOY) is None


def test_a_failed_attempt_is_part_of_its_call_and_has_the_same_id_whenever_it_is_told() -> None:
    tags = {
        "traceparent": f"00-{TRACE}-{SPAN}-01",
        "weft.cluster": "type/summarizer/2",
        "weft.instance": "s-1",
        "weft.attempt": "2",
        "http.status_code": "0",
        "weft.failure": "delayed_connect_error:_Connection_refused",
    }
    found, again = failed_attempt(entry(tags), ENVOY), failed_attempt(entry(tags), ENVOY)
    other = failed_attempt(entry({**tags, "weft.attempt": "3"}), ENVOY)
    assert found is not None
    assert other is not None
    assert found == again
    assert found.span_id != other.span_id
    assert (found.trace_id.hex(), found.parent_span_id.hex()) == (TRACE, SPAN)
    assert found.name == "attempt 2 summarizer"
    assert found.status.message == tags["weft.failure"]
    assert attributes_of(found)["weft.destination"] == "summarizer"
    assert attributes_of(found)["weft.attempt"] == 2
