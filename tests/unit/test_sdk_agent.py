"""An agent's HTTP contract, spoken to as any HTTP client would."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import pytest
from pydantic import Field
from pydantic_core import from_json, to_json
from starlette.types import Message

from weft import Agent, Context, InvalidRequest, Mesh, TimedOut, current
from weft.aio.poll import until
from weft.sdk.event_stream import EventStream
from weft.sdk.sse import EventDecoder
from weft.sdk.transport import Call
from weft.testing import InMemoryMesh
from weft.testing.asgi import AsgiTransport

TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return from_json(self.body)


@dataclass
class Point:
    x: int
    y: int = 0


async def send(agent: Agent, call: Call) -> Reply:
    async with AsgiTransport(agent.asgi).exchange(call) as answer:
        body = b"".join([chunk async for chunk in answer.chunks()])
        return Reply(answer.status, dict(answer.headers), body)


async def rpc(agent: Agent, kind: str, headers: dict[str, str] | None = None, **payload: Any) -> Reply:
    body = to_json({"kind": kind, "payload": payload})
    return await send(
        agent, Call("POST", "agent", "/rpc", {"content-type": "application/json", **(headers or {})}, body)
    )


async def raw(agent: Agent, body: bytes, content_type: str = "application/json") -> Reply:
    return await send(agent, Call("POST", "agent", "/rpc", {"content-type": content_type}, body))


async def health(agent: Agent) -> Reply:
    return await send(agent, Call("GET", "agent", "/health"))


async def in_flight(agent: Agent, number: int) -> bool:
    count: int = (await health(agent)).json["in_flight"]
    return count == number


@pytest.fixture
async def agent() -> AsyncIterator[Agent]:
    agent = Agent("worker", capabilities=["work"], version="3", concurrency=2, max_body_bytes=1000)

    @agent.handles("shift")
    async def shift(point: Point, by: Annotated[int, Field(gt=0)] = 1) -> Point:
        return Point(point.x + by, point.y)

    @agent.handles("context")
    async def context() -> dict[str, Any]:
        here = current()
        return {
            "kind": here.kind,
            "key": here.idempotency_key,
            "trace": here.traceparent,
            "until": here.deadline,
        }

    yield agent
    await agent.asgi.aclose()


async def test_a_payload_is_converted_by_the_handlers_annotations(agent: Agent) -> None:
    reply = await rpc(agent, "shift", point={"x": 1}, by=2)
    assert (reply.status, reply.json) == (200, {"result": {"x": 3, "y": 0}})
    assert reply.headers["content-type"] == "application/json"


async def test_wrong_arguments_are_422_with_every_field(agent: Agent) -> None:
    reply = await rpc(agent, "shift", point={"x": "one"}, by=0, q=1)
    assert reply.status == 422
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.headers["x-weft-error"] == "invalid-request"
    assert [each["field"] for each in reply.json["errors"]] == ["payload.point.x", "payload.by", "payload.q"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b"null", b"[]", b'"kind"', b'{"payload": {}}', b'{"kind": 7}', b"[" * 900],
)
async def test_a_body_that_is_no_request_is_400(agent: Agent, body: bytes) -> None:
    reply = await raw(agent, body)
    assert (reply.status, reply.headers["x-weft-error"]) == (400, "invalid-request")


@pytest.mark.parametrize("payload", [b"[]", b"7", b"null", b'"text"'])
async def test_a_payload_that_is_no_object_is_422(agent: Agent, payload: bytes) -> None:
    assert (await raw(agent, b'{"kind": "shift", "payload": %b}' % payload)).status == 422


async def test_a_body_over_the_limit_is_413(agent: Agent) -> None:
    reply = await raw(agent, b"x" * 1001)
    assert reply.status == 413
    assert "1000 bytes" in reply.json["detail"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_body_that_a_web_page_could_send_unasked_is_415(agent: Agent, content_type: str) -> None:
    assert (await raw(agent, b'{"kind": "context"}', content_type)).status == 415


async def test_an_unknown_kind_is_404_and_names_the_known_ones(agent: Agent) -> None:
    reply = await rpc(agent, "sing")
    assert (reply.status, reply.headers["x-weft-error"]) == (404, "not-found")
    assert reply.json["kinds"] == ["context", "shift"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/rpc", 405), ("GET", "/", 404)])
async def test_another_path_or_method_is_a_problem_that_names_the_right_ones(
    agent: Agent, method: str, path: str, status: int
) -> None:
    reply = await send(agent, Call(method, "agent", path))
    assert reply.status == status
    assert "POST /rpc" in reply.json["detail"]


async def test_a_handler_can_read_the_context_of_its_request(agent: Agent) -> None:
    headers = {"idempotency-key": "k", "traceparent": TRACE, "x-weft-deadline": "1500"}
    reply = await rpc(agent, "context", headers)
    assert reply.json["result"] == {"kind": "context", "key": "k", "trace": TRACE, "until": 1.5}


@pytest.mark.parametrize("deadline", ["soon", "-1", "1.5", "9" * 16, "²"])
async def test_a_garbled_deadline_is_400(agent: Agent, deadline: str) -> None:
    assert (await rpc(agent, "context", {"x-weft-deadline": deadline})).status == 400


async def test_an_endless_idempotency_key_is_400(agent: Agent) -> None:
    assert (await rpc(agent, "context", {"idempotency-key": "k" * 256})).status == 400


async def test_the_same_key_with_another_body_is_422(agent: Agent) -> None:
    key = {"idempotency-key": "k"}
    assert (await rpc(agent, "shift", key, point={"x": 1})).status == 200
    assert (await rpc(agent, "shift", key, point={"x": 2})).status == 422


def test_there_is_no_context_outside_a_handler() -> None:
    with pytest.raises(LookupError, match="inside a handler"):
        current()


def test_a_context_knows_how_much_time_is_left() -> None:
    assert Context("k", {}).remaining() is None
    left = Context("k", {}, deadline=time.time() + 10).remaining()
    assert left is not None
    assert 9 < left <= 10


async def test_a_busy_agent_refuses_before_it_reads_the_body(agent: Agent) -> None:
    entered, release = asyncio.Semaphore(0), asyncio.Event()

    @agent.handles("hold")
    async def hold() -> None:
        entered.release()
        await release.wait()

    async with asyncio.timeout(30):
        held = [asyncio.create_task(rpc(agent, "hold")) for _ in range(2)]
        for _ in held:
            await entered.acquire()
        assert (await health(agent)).json["in_flight"] == 2

        answered: list[Message] = []

        async def unread() -> Message:
            raise AssertionError("the body of a refused request was read")

        async def answer(message: Message) -> None:
            answered.append(message)

        scope = {"type": "http", "method": "POST", "path": "/rpc", "headers": []}
        await agent.asgi(scope, unread, answer)
        headers = dict(answered[0]["headers"])
        assert answered[0]["status"] == 429
        assert (headers[b"x-weft-refused"], headers[b"x-weft-error"]) == (b"busy", b"refused")
        assert headers[b"retry-after"] == b"1"
        release.set()
        assert [(await each).status for each in held] == [200, 200]
    assert (await health(agent)).json["in_flight"] == 0


async def test_a_draining_agent_refuses_and_is_not_healthy(agent: Agent) -> None:
    agent.drain()
    reply = await rpc(agent, "context")
    assert (reply.status, reply.headers["x-weft-refused"]) == (503, "draining")
    reply = await health(agent)
    assert (reply.status, reply.json["status"]) == (503, "draining")


async def test_a_blocking_handler_runs_in_a_thread_with_its_context(agent: Agent) -> None:
    @agent.handles("where")
    def where() -> list[str]:
        return [threading.current_thread().name, current().kind]

    name, kind = (await rpc(agent, "where")).json["result"]
    assert name != threading.main_thread().name
    assert kind == "where"


async def test_as_many_blocking_handlers_run_at_once_as_the_agent_takes_requests(agent: Agent) -> None:
    both = threading.Barrier(2, timeout=5)

    @agent.handles("meet")
    def meet() -> int:
        return both.wait()

    replies = await asyncio.gather(rpc(agent, "meet"), rpc(agent, "meet"))
    assert sorted(reply.json["result"] for reply in replies) == [0, 1]


async def test_a_result_that_is_no_json_is_a_failure_that_is_logged(
    agent: Agent, caplog: pytest.LogCaptureFixture
) -> None:
    @agent.handles("odd")
    async def odd() -> object:
        return object()

    reply = await rpc(agent, "odd")
    assert (reply.status, reply.headers["x-weft-error"]) == (500, "agent-failed")
    assert "Unable to serialize" in caplog.text


async def test_a_healthy_agent_says_what_it_is(agent: Agent) -> None:
    reply = await health(agent)
    assert reply.status == 200
    assert reply.json == {
        "status": "healthy",
        "reason": "",
        "type": "worker",
        "version": "3",
        "capabilities": ["work"],
        "in_flight": 0,
    }


async def test_a_health_check_says_no_by_raising_or_by_false(agent: Agent) -> None:
    answers: list[object] = [True]

    @agent.health
    async def database() -> None:
        if answers[0] is not True:
            raise ConnectionError("no route to the database")

    @agent.health
    def disk() -> object:
        return answers[0]

    assert (await health(agent)).status == 200
    answers[0] = False
    reply = await health(agent)
    assert (reply.status, reply.json["status"]) == (503, "unhealthy")
    assert reply.json["reason"] == "database: no route to the database; disk: it says no"


async def test_a_health_check_that_hangs_is_a_no(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weft.sdk.health.CHECK_TIMEOUT", 0.05)

    @agent.health
    async def stuck() -> None:
        await asyncio.Event().wait()

    assert "stuck: no answer" in (await health(agent)).json["reason"]


async def test_a_silent_stream_beats_until_its_next_item() -> None:
    sent: list[bytes] = []
    beaten = asyncio.Event()

    async def record(message: Message) -> None:
        sent.append(message.get("body", b""))
        if sent[-1] == b":\n\n":
            beaten.set()

    async def items() -> AsyncGenerator[int, None]:
        yield 1
        await beaten.wait()
        yield 2

    async with asyncio.timeout(30):
        await EventStream(record, heartbeat_interval=0.01).serve("numbers", items())
    events = EventDecoder().feed(b"".join(sent))
    assert [(event.name, event.data) for event in events] == [
        ("message", "1"),
        ("message", "2"),
        ("end", "{}"),
    ]


@pytest.mark.parametrize("name", ["Big", "", "under_score", "cap", "control"])
def test_an_agent_whose_type_cannot_be_a_host_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        Agent(name)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="concurrency"):
        Agent("worker", concurrency=0)
    with pytest.raises(InvalidRequest, match="capability"):
        Agent("worker", capabilities=["No Label"])


def test_a_handler_that_requests_cannot_be_checked_against_is_refused(agent: Agent) -> None:
    async def anything(*args: int) -> None: ...
    async def whatever(**named: int) -> None: ...
    async def positional(x: int, /) -> None: ...
    async def plain() -> None: ...
    async def stream() -> AsyncIterator[int]:
        yield 1

    for function in (anything, whatever, positional):
        with pytest.raises(TypeError, match="named parameters"):
            agent.handles("new")(function)
    with pytest.raises(TypeError, match="async generator"):
        agent.streams("new")(plain)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="not a generator"):
        agent.handles("new")(stream)
    with pytest.raises(ValueError, match="already"):
        agent.handles("shift")(plain)


async def test_parameters_may_have_any_name(agent: Agent) -> None:
    @agent.handles("names")
    async def names(model_config: int, json: int, _hidden: int, self: int = 4) -> list[int]:
        return [model_config, json, _hidden, self]

    reply = await rpc(agent, "names", model_config=1, json=2, _hidden=3)
    assert reply.json == {"result": [1, 2, 3, 4]}


async def test_a_handler_that_asks_for_the_mesh_gets_it_and_callers_cannot_pass_one(agent: Agent) -> None:
    @agent.handles("meshed")
    async def meshed(mesh: Mesh) -> bool:
        return isinstance(mesh, Mesh)

    assert (await rpc(agent, "meshed")).json == {"result": True}
    assert (await rpc(agent, "meshed", mesh=7)).status == 422


def test_an_annotation_that_cannot_be_resolved_is_refused_with_the_way_out(agent: Agent) -> None:
    class Local:
        pass

    async def local(thing: Local) -> None: ...

    with pytest.raises(TypeError, match="at the top of the module"):
        agent.handles("local")(local)


async def test_a_deadline_shortens_the_calls_made_to_meet_it(agent: Agent) -> None:
    @agent.handles("hang")
    async def hang() -> None:
        await asyncio.Event().wait()

    @agent.handles("delegate")
    async def delegate(mesh: Mesh) -> None:
        await mesh.request("worker", "hang")

    async with InMemoryMesh() as mesh, asyncio.timeout(30):
        mesh.add(agent)
        for milliseconds in (200, -200):
            deadline = {"x-weft-deadline": str(int(time.time() * 1000) + milliseconds)}
            with pytest.raises(TimedOut, match=r"^worker\.mesh did not answer"):
                await mesh.client.request("worker", "delegate", headers=deadline)


async def test_a_handler_goes_on_for_a_copy_when_its_first_caller_leaves(agent: Agent) -> None:
    entered, release = asyncio.Event(), asyncio.Event()
    runs = 0

    @agent.handles("once")
    async def once() -> str:
        nonlocal runs
        runs += 1
        entered.set()
        await release.wait()
        return "done"

    async with asyncio.timeout(30):
        first = asyncio.create_task(rpc(agent, "once", {"idempotency-key": "k"}))
        await entered.wait()
        second = asyncio.create_task(rpc(agent, "once", {"idempotency-key": "k"}))
        await until(partial(in_flight, agent, 2))
        first.cancel()
        await until(partial(in_flight, agent, 1))
        release.set()
        assert (await second).json == {"result": "done"}
    assert runs == 1
