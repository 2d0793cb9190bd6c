"""Agents made with the SDK as A2A agents: a2a-sdk's client, and what the standard says of each operation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx
import pytest
from a2a.client import Client
from a2a.types import a2a_pb2 as a2a
from google.protobuf.json_format import MessageToDict
from pydantic import BaseModel
from tests.a2a_clients import (
    JSONRPC,
    REST,
    ask,
    client,
    error,
    request,
    result,
    said,
    sent,
    state,
    subscriber,
    task,
)
from tests.a2a_stage import ANOTHER, CALLER, Stage, becomes, eventually, stage

from weft import Agent, AgentError, Conversation, InputRequired, current
from weft.sdk.a2a import book
from weft.sdk.a2a.callers import caller_of
from weft.sdk.a2a.values import MAX_VALUES
from weft.testing import InMemoryMesh

NOT_FOUND, NOT_CANCELABLE, UNSUPPORTED, CONTENT_TYPE = -32001, -32002, -32004, -32005
INVALID_PARAMS = -32602


class Novel(BaseModel):
    title: str
    pages: int = 1


class Scenes:
    """The agent of these tests, and what it waits for and tells."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.times = 0

    async def wait(self) -> None:
        self.times += 1
        self.begun.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    def agent(self, **settings: Any) -> Agent:  # noqa: C901 - one handler after another
        agent = Agent("novelist", capabilities=["write"], version="3", **settings)

        @agent.handles("echo", default=True)
        async def echo(text: str, times: int = 1) -> str:
            """Say it again."""
            return text * times

        @agent.handles("who")
        def who() -> dict[str, Any]:
            return {"caller": current().caller, "conversation": current().conversation}

        @agent.handles("plot")
        async def plot(novel: Novel) -> Novel:
            return Novel(title=novel.title.upper(), pages=novel.pages + 1)

        @agent.streams("chapters")
        async def chapters(count: int) -> AsyncGenerator[str, None]:
            for number in range(count):
                yield f"chapter {number}"

        @agent.streams("slowly")
        async def slowly() -> AsyncGenerator[str, None]:
            yield "one"
            await self.wait()
            yield "two"

        @agent.handles("hold")
        async def hold() -> str:
            await self.wait()
            return "held"

        @agent.handles("fail")
        async def fail(how: str) -> str:
            if how == "on purpose":
                raise AgentError("the ink is dry")
            raise ValueError("secret")

        @agent.handles("title")
        async def title(genre: str, name: str | None = None) -> str:
            if name is None:
                raise InputRequired("whose is it?")
            return f"{name}: a {genre}"

        @agent.handles("talk")
        async def talk(conversation: Conversation) -> str:
            if len(conversation.messages) < 3:
                raise InputRequired("go on")
            return " | ".join(f"{each.role}: {each.text}" for each in conversation.messages)

        return agent


@pytest.fixture
def scenes() -> Scenes:
    return Scenes()


@pytest.fixture
async def played(scenes: Scenes) -> AsyncIterator[Stage]:
    async with stage(scenes.agent(), 2) as running:
        yield running


async def speaker(played: Stage, binding: str, *, streaming: bool = True) -> Client:
    return await client(played.http, played.url, binding=binding, streaming=streaming)


@pytest.mark.parametrize("binding", [JSONRPC, REST])
async def test_a_message_is_answered_with_its_ended_task(played: Stage, binding: str) -> None:
    (answer,) = await sent(await speaker(played, binding, streaming=False), said("hi", {"times": 2}))
    found = answer["task"]
    assert state(found) == "completed"
    assert found["artifacts"] == [{"artifactId": "result-1", "parts": [{"text": "hihi"}]}]
    assert found["history"][0]["parts"][0] == {"text": "hi"}
    assert found["history"][0]["taskId"] == found["id"]


@pytest.mark.parametrize("binding", [JSONRPC, REST])
async def test_a_stream_is_one_artifact_told_in_pieces(played: Stage, binding: str) -> None:
    events = await sent(await speaker(played, binding), said({"count": 50}, skill="chapters"))
    assert state(events[0]["task"]) == "submitted"
    assert state(events[1]["statusUpdate"]) == "working"
    assert state(events[-1]["statusUpdate"]) == "completed"
    pieces = [each["artifactUpdate"] for each in events[2:-1]]
    texts = [part["text"] for each in pieces for part in each["artifact"]["parts"]]
    assert texts == [f"chapter {number}" for number in range(50)]
    assert [each.get("append", False) for each in pieces] == [False] + [True] * (len(pieces) - 1)
    kept = await result(played.http, played.actors[1].url, "GetTask", {"id": events[0]["task"]["id"]})
    assert [part["text"] for part in kept["artifacts"][0]["parts"]] == texts


async def test_data_goes_in_and_comes_out_as_the_handler_declares_it(played: Stage) -> None:
    found = await task(
        played.http, played.url, said({"skill": "plot", "arguments": {"novel": {"title": "a"}}})
    )
    assert found["artifacts"][0]["parts"] == [{"data": {"title": "A", "pages": 2}}]


async def test_a_handler_knows_who_calls_and_in_which_conversation(played: Stage) -> None:
    found = await task(played.http, played.url, said("x", skill="who", contextId="c-1"))
    assert found["contextId"] == "c-1"
    assert found["artifacts"][0]["parts"] == [
        {"data": {"caller": "spiffe://weft.local/agent/reader/reader-1", "conversation": "c-1"}}
    ]


async def test_what_somebody_at_a_gateway_calls_a_conversation_is_nobody_elses_in_the_mesh(
    played: Stage,
) -> None:
    inside = []
    for headers in ({}, {"x-weft-submitter": "door/key:a"}, {"x-weft-submitter": "door/key:b"}):
        params = {"message": said("x", skill="who", contextId="c-1")}
        for _ in range(2):
            found = (await result(played.http, played.url, "SendMessage", params, **headers))["task"]
            assert found["contextId"] == "c-1"
            inside.append(found["artifacts"][0]["parts"][0]["data"]["conversation"])
    assert inside[0] == "c-1"
    assert inside[::2] == inside[1::2]
    assert len(set(inside)) == 3


async def test_what_a_handler_fails_with_is_told_and_nothing_of_its_inside(played: Stage) -> None:
    meant = await task(played.http, played.url, said("on purpose", skill="fail"))
    assert state(meant) == "failed"
    assert meant["status"]["message"]["parts"] == [{"text": "the ink is dry"}]
    other = await task(played.http, played.url, said("by chance", skill="fail"))
    assert state(other) == "failed"
    assert "secret" not in str(other)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (said("x", skill="unknown"), INVALID_PARAMS),
        (said({"count": "many"}, skill="chapters"), INVALID_PARAMS),
        (said("x", skill="chapters"), CONTENT_TYPE),
        (said({"times": 1}), INVALID_PARAMS),
        (said(["no", "object"]), INVALID_PARAMS),
        ({**said("x"), "parts": [{"url": "http://127.0.0.1/x"}]}, CONTENT_TYPE),
        ({**said("x"), "parts": []}, INVALID_PARAMS),
        (said("x", contextId="c" * 300), INVALID_PARAMS),
        (said("x" * 900_000), INVALID_PARAMS),
        (said("x", taskId="unknown"), NOT_FOUND),
        (said("x", taskId=f"a2a-novelist.{'0' * 26}"), NOT_FOUND),
        (said("x", role="ROLE_AGENT"), INVALID_PARAMS),
    ],
)
async def test_a_message_that_cannot_be_handled_makes_no_task(
    played: Stage, message: dict[str, Any], code: int
) -> None:
    assert await error(played.http, played.url, "SendMessage", {"message": message}) == code
    assert (await result(played.http, played.url, "ListTasks", {}))["tasks"] == []


async def test_who_does_not_wait_gets_the_task_as_it_was_submitted(played: Stage, scenes: Scenes) -> None:
    found = await task(played.http, played.url, said("x", skill="hold"), returnImmediately=True)
    assert state(found) == "submitted"
    await becomes(scenes.begun)
    scenes.gate.set()

    async def ended() -> bool:
        now = await result(played.http, played.actors[1].url, "GetTask", {"id": found["id"]})
        return state(now) == "completed"

    await eventually(ended)


async def test_all_subscribers_hear_the_same_in_the_same_order(played: Stage, scenes: Scenes) -> None:
    found = await task(played.http, played.url, said("x", skill="slowly"), returnImmediately=True)
    await becomes(scenes.begun)
    clients = [await client(played.http, each.url) for each in played.actors]
    hearing = [await subscriber(each, found["id"]) for each in clients * 2]

    async def has_a_piece() -> bool:
        now = await result(played.http, played.url, "GetTask", {"id": found["id"]})
        return bool(now.get("artifacts"))

    await eventually(has_a_piece)
    late = clients[1].subscribe(a2a.SubscribeToTaskRequest(id=found["id"]))
    begun = [MessageToDict(await anext(late))]
    scenes.gate.set()
    streams = [*(await asyncio.gather(*hearing)), begun + [MessageToDict(each) async for each in late]]
    for each in streams:
        assert "task" in each[0]
        assert state(each[-1]["statusUpdate"]) == "completed"
    longest = max(streams, key=len)[1:]
    assert all(longest[len(longest) - len(each) + 1 :] == each[1:] for each in streams)


async def test_nobody_subscribes_to_a_task_that_has_ended_or_is_unknown(played: Stage) -> None:
    found = await task(played.http, played.url, said("x"))
    assert await error(played.http, played.url, "SubscribeToTask", {"id": found["id"]}) == UNSUPPORTED
    assert await error(played.http, played.url, "SubscribeToTask", {"id": "unknown"}) == NOT_FOUND


async def test_a_task_is_cancelled_from_another_instance(scenes: Scenes) -> None:
    async with stage(scenes.agent(), 2, working=1) as played:
        found = await task(played.http, played.url, said("x", skill="hold"), returnImmediately=True)
        await becomes(scenes.begun)
        ended = await result(played.http, played.actors[1].url, "CancelTask", {"id": found["id"]})
        assert state(ended) == "canceled"
        await becomes(scenes.cancelled)
        assert await error(played.http, played.url, "CancelTask", {"id": found["id"]}) == NOT_CANCELABLE


async def test_a_task_that_ended_or_is_unknown_cannot_be_cancelled(played: Stage) -> None:
    found = await task(played.http, played.url, said("x"))
    assert await error(played.http, played.url, "CancelTask", {"id": found["id"]}) == NOT_CANCELABLE
    assert await error(played.http, played.url, "CancelTask", {"id": "unknown"}) == NOT_FOUND


async def test_a_question_is_answered_at_another_instance(played: Stage) -> None:
    asked = await task(played.http, played.url, said("saga", skill="title"))
    assert state(asked) == "input-required"
    assert asked["status"]["message"]["parts"] == [{"text": "whose is it?"}]
    told = await task(played.http, played.actors[1].url, said("Njal", taskId=asked["id"]))
    assert (state(told), told["contextId"]) == ("completed", asked["contextId"])
    assert told["artifacts"][-1]["parts"] == [{"text": "Njal: a saga"}]
    assert [each["role"] for each in told["history"]] == ["ROLE_USER", "ROLE_AGENT", "ROLE_USER"]


async def test_a_conversation_is_all_that_was_said(played: Stage) -> None:
    asked = await task(played.http, played.url, said("hello", skill="talk"))
    told = await task(played.http, played.url, said("well", taskId=asked["id"]))
    assert told["artifacts"][-1]["parts"] == [{"text": "user: hello | agent: go on | user: well"}]


async def test_a_subscriber_hears_the_turns_that_follow(played: Stage) -> None:
    asked = await task(played.http, played.url, said("saga", skill="title"))
    subscriber = await client(played.http, played.actors[1].url)
    stream = subscriber.subscribe(a2a.SubscribeToTaskRequest(id=asked["id"]))
    assert state(MessageToDict(await anext(stream))["task"]) == "input-required"
    await task(played.http, played.url, said("Njal", taskId=asked["id"]))
    heard = [MessageToDict(each) async for each in stream]
    assert [state(each["statusUpdate"]) for each in heard if "statusUpdate" in each] == [
        "working",
        "completed",
    ]


async def test_of_two_answers_at_the_same_time_one_is_taken(played: Stage) -> None:
    asked = await task(played.http, played.url, said("saga", skill="title"))
    params = {"message": said("Njal", taskId=asked["id"])}
    answers = await asyncio.gather(
        *(ask(played.http, each.url, "SendMessage", params) for each in played.actors)
    )
    assert sorted("result" in each for each in answers) == [False, True]
    refused = next(each["error"] for each in answers if "error" in each)
    assert refused["code"] == UNSUPPORTED


async def test_a_task_that_runs_or_ended_takes_no_message(played: Stage, scenes: Scenes) -> None:
    found = await task(played.http, played.url, said("x", skill="hold"), returnImmediately=True)
    message = said("x", taskId=found["id"])
    assert await error(played.http, played.url, "SendMessage", {"message": message}) == UNSUPPORTED
    scenes.gate.set()
    done = await task(played.http, played.url, said("x"))
    message = said("x", taskId=done["id"])
    assert await error(played.http, played.url, "SendMessage", {"message": message}) == UNSUPPORTED


async def test_an_answer_stays_in_its_context_and_skill(played: Stage) -> None:
    asked = await task(played.http, played.url, said("saga", skill="title"))
    for wrong in (
        said("Njal", taskId=asked["id"], contextId="another"),
        said("Njal", skill="echo", taskId=asked["id"]),
    ):
        assert await error(played.http, played.url, "SendMessage", {"message": wrong}) == INVALID_PARAMS
    now = await result(played.http, played.url, "GetTask", {"id": asked["id"]})
    assert state(now) == "input-required"


async def test_a_task_that_waits_for_an_answer_can_be_cancelled(played: Stage) -> None:
    asked = await task(played.http, played.url, said("saga", skill="title"))
    subscriber = await client(played.http, played.actors[1].url)
    stream = subscriber.subscribe(a2a.SubscribeToTaskRequest(id=asked["id"]))
    assert state(MessageToDict(await anext(stream))["task"]) == "input-required"
    ended = await result(played.http, played.actors[1].url, "CancelTask", {"id": asked["id"]})
    assert state(ended) == "canceled"
    message = said("Njal", taskId=asked["id"])
    assert await error(played.http, played.url, "SendMessage", {"message": message}) == UNSUPPORTED
    assert [state(MessageToDict(each)["statusUpdate"]) async for each in stream] == ["canceled"]


async def test_tasks_are_found_and_listed_by_their_caller_only(played: Stage) -> None:
    mine = await task(played.http, played.url, said("x"))
    sibling = {"x-weft-caller": "spiffe://weft.local/agent/reader/reader-2"}
    listed = await result(played.http, played.url, "ListTasks", {}, **sibling)
    assert [each["id"] for each in listed["tasks"]] == [mine["id"]]
    thief = {"x-weft-caller": ANOTHER}
    assert (await result(played.http, played.url, "ListTasks", {}, **thief))["tasks"] == []
    for method in ("GetTask", "CancelTask", "SubscribeToTask"):
        assert await error(played.http, played.url, method, {"id": mine["id"]}, **thief) == NOT_FOUND
    message = {"message": said("x", taskId=mine["id"])}
    assert await error(played.http, played.url, "SendMessage", message, **thief) == NOT_FOUND
    at_gateway = {"x-weft-submitter": "door/key:b"}
    assert await error(played.http, played.url, "GetTask", {"id": mine["id"]}, **at_gateway) == NOT_FOUND
    tenant = {"id": mine["id"], "tenant": "t"}
    assert await error(played.http, played.url, "GetTask", tenant) == NOT_FOUND


async def test_the_list_is_paged_filtered_and_in_order(played: Stage) -> None:
    made = [await task(played.http, played.url, said("x", contextId=f"c-{n % 2}")) for n in range(5)]
    asked = await task(played.http, played.url, said("saga", skill="title", contextId="c-1"))
    first = await result(played.http, played.url, "ListTasks", {"pageSize": 4})
    rest = await result(
        played.http, played.actors[1].url, "ListTasks", {"pageSize": 4, "pageToken": first["nextPageToken"]}
    )
    ids = [each["id"] for each in (*first["tasks"], *rest["tasks"])]
    assert (set(ids), len(ids)) == ({each["id"] for each in (*made, asked)}, 6)
    assert (first["totalSize"], rest["nextPageToken"]) == (6, "")
    times = [each["status"]["timestamp"] for each in (*first["tasks"], *rest["tasks"])]
    assert times == sorted(times, reverse=True)
    assert "artifacts" not in first["tasks"][0]
    waiting = await result(played.http, played.url, "ListTasks", {"status": "TASK_STATE_INPUT_REQUIRED"})
    assert [each["id"] for each in waiting["tasks"]] == [asked["id"]]
    odd = await result(played.http, played.url, "ListTasks", {"contextId": "c-1", "includeArtifacts": True})
    assert {each["id"] for each in odd["tasks"]} == {made[1]["id"], made[3]["id"], asked["id"]}
    later = await result(
        played.http, played.url, "ListTasks", {"statusTimestampAfter": asked["status"]["timestamp"]}
    )
    assert [each["id"] for each in later["tasks"]] == [asked["id"]]
    for wrong in ({"pageSize": 0}, {"pageSize": 101}, {"pageToken": "junk"}, {"historyLength": -1}):
        assert await error(played.http, played.url, "ListTasks", wrong) == INVALID_PARAMS


async def test_what_could_be_no_task_is_refused_before_it_is_read(played: Stage) -> None:
    headers = {"A2A-Version": "1.0", "content-type": "application/json"}
    for path in ("/a2a", "/a2a/message:send"):
        body = b'{"parts": [' + b" " * 3 * 1024 * 1024
        answer = await played.http.post(f"{played.url}{path}", content=body, headers=headers)
        assert answer.status_code == 413


@pytest.mark.parametrize(
    "data", [[0] * MAX_VALUES, {str(each): {} for each in range(MAX_VALUES)}, [[[]] * MAX_VALUES]]
)
async def test_a_message_of_more_values_than_can_be_read_at_once_is_refused(played: Stage, data: Any) -> None:
    headers = {"A2A-Version": "1.0"}
    message = {"message": {**said("x"), "parts": [{"data": data}]}}
    rest = await played.http.post(f"{played.url}/a2a/message:send", json=message, headers=headers)
    assert (rest.status_code, rest.json()["error"]["code"]) == (413, 413)
    request = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": message}
    rpc = await played.http.post(f"{played.url}/a2a", json=request, headers=headers)
    assert "values" in rpc.json()["error"]["message"]


async def test_a_long_text_of_commas_is_one_value(played: Stage) -> None:
    assert await task(played.http, played.url, said(",[{" * MAX_VALUES))


async def test_a_page_of_large_tasks_ends_before_it_is_large(played: Stage) -> None:
    made = {(await task(played.http, played.url, said("x" * 780_000)))["id"] for _ in range(7)}
    first = await result(played.http, played.url, "ListTasks", {})
    assert 0 < len(first["tasks"]) < len(made)
    rest = await result(played.http, played.url, "ListTasks", {"pageToken": first["nextPageToken"]})
    assert {each["id"] for each in (*first["tasks"], *rest["tasks"])} == made
    assert (len(first["tasks"]) + len(rest["tasks"]), rest["nextPageToken"]) == (len(made), "")
    slim = await result(played.http, played.url, "ListTasks", {"historyLength": 0})
    assert (len(slim["tasks"]), slim["nextPageToken"]) == (len(made), "")


async def test_the_history_is_as_long_as_asked_for(played: Stage) -> None:
    asked = await task(played.http, played.url, said("saga", skill="title"))
    await task(played.http, played.url, said("Njal", taskId=asked["id"]))
    for length, expected in ((0, 0), (2, 2), (9, 3)):
        params = {"id": asked["id"], "historyLength": length}
        found = await result(played.http, played.url, "GetTask", params)
        assert len(found.get("history", [])) == expected
    shortened = await task(played.http, played.url, said("x"), historyLength=0)
    assert "history" not in shortened


async def test_a_repeated_request_is_the_same_task(played: Stage) -> None:
    params, key = {"message": said("saga", skill="title")}, {"idempotency-key": "k"}
    first, again = [
        (await result(played.http, each.url, "SendMessage", params, **key))["task"] for each in played.actors
    ]
    assert first["id"] == again["id"]
    answer = {"message": said("Njal", taskId=first["id"])}
    told, retold = [
        (await result(played.http, each.url, "SendMessage", answer, **key))["task"] for each in played.actors
    ]
    assert (state(told), told["artifacts"]) == (state(retold), retold["artifacts"])
    other = {"message": said("edda", skill="title")}
    assert await error(played.http, played.url, "SendMessage", other, **key) == INVALID_PARAMS
    another = (await result(played.http, played.url, "SendMessage", params))["task"]
    assert another["id"] != first["id"]


async def test_a_deadline_ends_the_task(played: Stage, scenes: Scenes) -> None:
    soon = {"x-weft-deadline": str(int((time.time() + 1) * 1000))}
    params = {"message": said("x", skill="hold")}
    found = (await result(played.http, played.url, "SendMessage", params, **soon))["task"]
    assert state(found) == "failed"
    await becomes(scenes.cancelled)
    bad = {"x-weft-deadline": "soon"}
    assert await error(played.http, played.url, "SendMessage", params, **bad) == INVALID_PARAMS


async def test_a_task_whose_instance_dies_is_ended_by_another(scenes: Scenes) -> None:
    async with stage(scenes.agent(), 2, working=1) as played:
        found = await task(played.http, played.url, said("x", skill="slowly"), returnImmediately=True)
        await becomes(scenes.begun)
        scenes.begun.clear()
        hearing = await subscriber(await client(played.http, played.actors[1].url), found["id"])
        await played.actors[0].die()
        played.actors[1].app.start()
        await becomes(scenes.begun)
        scenes.gate.set()
        heard = await hearing
        assert state(heard[-1]["statusUpdate"]) == "completed"
        kept = await result(played.http, played.actors[1].url, "GetTask", {"id": found["id"]})
        assert kept["artifacts"][0]["parts"] == [{"text": "one"}, {"text": "two"}]


async def test_a_turn_whose_submitter_died_is_submitted_by_whoever_looks(
    played: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book, "PATIENCE", 0.0)
    dying, other = [await each.app.a2a.book() for each in played.actors if each.app.a2a is not None]
    caller = caller_of({"x-weft-caller": CALLER}, "")

    async def die(*_: object, **__: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as dead:
        dead.setattr(dying, "_submit", die)
        beginning = asyncio.ensure_future(dying.begin(caller, "echo", said("hi")))
        await asyncio.wait([beginning])
        assert beginning.cancelled()
    (token,) = await other.owned.of(caller.owner)
    task_id = f"{other.queue}.{token}"

    async def done() -> bool:
        found = await result(played.http, played.actors[1].url, "GetTask", {"id": task_id})
        return state(found) == "completed"

    await eventually(done)


async def test_a_caller_that_goes_away_does_not_cancel_its_task(played: Stage, scenes: Scenes) -> None:
    streaming = await speaker(played, JSONRPC)
    stream = streaming.send_message(request(said("x", skill="slowly")))
    first = MessageToDict(await anext(stream))
    await becomes(scenes.begun)
    await stream.aclose()  # type: ignore[attr-defined]
    scenes.gate.set()

    async def ended() -> bool:
        now = await result(played.http, played.url, "GetTask", {"id": first["task"]["id"]})
        return state(now) == "completed"

    await eventually(ended)
    assert not scenes.cancelled.is_set()


async def test_an_instance_that_drains_refuses_so_that_another_is_asked(played: Stage) -> None:
    played.actors[0].app.drain()
    answer = await played.http.post(f"{played.url}/a2a", json={})
    assert (answer.status_code, answer.headers["x-weft-refused"]) == (503, "draining")
    card = await played.http.get(f"{played.url}/.well-known/agent-card.json")
    assert card.status_code == 200


async def test_an_agent_without_a_mesh_says_that_it_keeps_no_tasks(scenes: Scenes) -> None:
    async with scenes.agent().serving() as url, httpx.AsyncClient() as http:
        answer = await ask(http, url, "SendMessage", {"message": said("x")})
        assert answer["error"]["code"] == -32603
        assert "weft run" in answer["error"]["message"]
        plain = await http.post(f"{url}/rpc", json={"kind": "echo", "payload": {"text": "x"}})
        assert plain.json() == {"result": "x"}


async def test_the_mesh_in_memory_speaks_a2a(scenes: Scenes) -> None:
    async with InMemoryMesh() as mesh:
        first, _ = mesh.add(scenes.agent(), 2)
        transport = httpx.ASGITransport(app=mesh.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://novelist.mesh") as http:
            speaker = await client(http, "http://novelist.mesh", streaming=False)
            (answer,) = await sent(speaker, said("x", skill="who"))
            told = answer["task"]["artifacts"][0]["parts"][0]["data"]
            assert told["caller"].startswith("spiffe://weft.local/operator/")
            held = await task(http, "http://novelist.mesh", said("x", skill="hold"), returnImmediately=True)
            await becomes(scenes.begun)
            mesh.kill(first)
            scenes.gate.set()

            async def ended() -> bool:
                now = await result(http, "http://novelist.mesh", "GetTask", {"id": held["id"]})
                return state(now) == "completed"

            await eventually(ended)


async def test_an_agent_may_do_without_a2a(scenes: Scenes) -> None:
    async with stage(scenes.agent(a2a=False)) as played:
        for path in ("/.well-known/agent-card.json", "/a2a"):
            assert (await played.http.get(f"{played.url}{path}")).status_code == 404


async def test_a_question_by_rpc_is_an_error_with_its_code(played: Stage) -> None:
    body = {"kind": "title", "payload": {"genre": "saga"}}
    answer = await played.http.post(f"{played.url}/rpc", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "input-required")
    talk = await played.http.post(f"{played.url}/rpc", json={"kind": "talk", "payload": {}})
    assert talk.json()["detail"] == "go on"


async def test_push_notification_configs_are_kept_by_task(played: Stage) -> None:
    asked = await task(played.http, played.url, said("saga", skill="title"))
    config = {"taskId": asked["id"], "id": "p", "url": "http://reader.mesh/x", "token": "t"}
    assert await result(played.http, played.url, "CreateTaskPushNotificationConfig", config) == config
    other = played.actors[1].url
    one = {"taskId": asked["id"], "id": "p"}
    assert await result(played.http, other, "GetTaskPushNotificationConfig", one) == config
    of_task = {"taskId": asked["id"]}
    assert (await result(played.http, other, "ListTaskPushNotificationConfigs", of_task))["configs"] == [
        config
    ]
    for _ in range(2):
        await result(played.http, other, "DeleteTaskPushNotificationConfig", one)
    assert await error(played.http, other, "GetTaskPushNotificationConfig", one) == NOT_FOUND
    unknown = {"taskId": "unknown", "id": "p"}
    for method in ("Get", "Delete"):
        code = await error(played.http, other, f"{method}TaskPushNotificationConfig", unknown)
        assert code == NOT_FOUND
    at_gateway = {"x-weft-submitter": "door/key:a"}
    outside = (await result(played.http, other, "SendMessage", {"message": said("x")}, **at_gateway))["task"]
    for url in (config["url"], "http://127.0.0.1:1/"):
        outside_config = {**config, "taskId": outside["id"], "url": url}
        code = await error(
            played.http, other, "CreateTaskPushNotificationConfig", outside_config, **at_gateway
        )
        assert code == INVALID_PARAMS
    for url in (
        "ftp://hook.mesh/",
        "http://",
        "http://user:word@hook.mesh/",
        "junk",
        "http://h/" + "x" * 3000,
    ):
        wrong = {**config, "url": url}
        code = await error(played.http, other, "CreateTaskPushNotificationConfig", wrong)
        assert code == INVALID_PARAMS


async def test_a_card_that_is_known_is_not_sent_again(played: Stage) -> None:
    url = f"{played.url}/.well-known/agent-card.json"
    first = await played.http.get(url)
    assert "max-age" in first.headers["cache-control"]
    again = await played.http.get(url, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert (await played.http.post(url)).status_code == 405


async def test_there_is_no_extended_card(played: Stage) -> None:
    assert await error(played.http, played.url, "GetExtendedAgentCard", {}) == UNSUPPORTED
