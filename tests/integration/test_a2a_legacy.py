"""Callers of A2A 0.3 are served as that version says."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx
import pytest
from a2a.client import ClientConfig, create_client
from a2a.client.card_resolver import A2ACardResolver
from tests.a2a_clients import JSONRPC, REST, said, sent, state
from tests.a2a_stage import Stage, stage

from weft import Agent, InputRequired

Json = dict[str, Any]


@pytest.fixture
async def played() -> AsyncIterator[Stage]:
    agent = Agent("novelist")

    @agent.handles("echo", default=True)
    async def echo(text: str) -> str:
        return text

    @agent.streams("chapters")
    async def chapters(text: str) -> AsyncGenerator[str, None]:
        yield text
        yield "end"

    @agent.handles("title")
    async def title(genre: str, name: str | None = None) -> str:
        if name is None:
            raise InputRequired("whose is it?")
        return f"{name}: a {genre}"

    async with stage(agent) as running:
        yield running


def message(text: str, skill: str = "echo", **fields: Any) -> Json:
    parts = [{"kind": "text", "text": text}]
    content: Json = {"kind": "message", "messageId": "m", "role": "user", "parts": parts, **fields}
    return {"message": {**content, "metadata": {"skill": skill}}}


async def call(played: Stage, method: str, params: Json) -> Json:
    """The answer to a request as clients of 0.3 send them: they name no version."""
    body = {"jsonrpc": "2.0", "id": "1", "method": method, "params": params}
    answer = await played.http.post(f"{played.url}/a2a", json=body)
    found: Json = answer.json()
    return found


async def test_a_message_is_answered_with_a_task_of_0_3(played: Stage) -> None:
    answered = (await call(played, "message/send", message("hi")))["result"]
    assert (answered["kind"], answered["status"]["state"]) == ("task", "completed")
    assert answered["artifacts"][0]["parts"] == [{"kind": "text", "text": "hi"}]
    found = (await call(played, "tasks/get", {"id": answered["id"]}))["result"]
    assert found["status"]["state"] == "completed"


async def test_a_question_is_answered(played: Stage) -> None:
    asked = (await call(played, "message/send", message("saga", "title")))["result"]
    assert asked["status"]["state"] == "input-required"
    told = (await call(played, "message/send", message("Njal", "title", taskId=asked["id"])))["result"]
    assert told["artifacts"][-1]["parts"] == [{"kind": "text", "text": "Njal: a saga"}]


async def test_a_stream_ends_with_a_final_status(played: Stage) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "message/stream", "params": message("one", "chapters")}
    async with played.http.stream("POST", f"{played.url}/a2a", json=body) as answer:
        lines = [each async for each in answer.aiter_lines() if each.startswith("data:")]
    assert '"final": true' in lines[-1].replace('":', '": ').replace("  ", " ")
    assert any("artifact-update" in each for each in lines)


async def test_errors_are_those_of_0_3(played: Stage) -> None:
    assert (await call(played, "tasks/get", {"id": "unknown"}))["error"]["code"] == -32001
    done = (await call(played, "message/send", message("hi")))["result"]
    assert (await call(played, "tasks/cancel", {"id": done["id"]}))["error"]["code"] == -32002
    assert (await call(played, "message/send", {}))["error"]["code"] in {-32600, -32602}
    assert (await call(played, "tasks/list", {}))["error"]["code"] == -32601


async def test_http_json_of_0_3_is_below_v1(played: Stage) -> None:
    body = {"message": {"messageId": "m", "role": "ROLE_USER", "content": [{"text": "hi"}]}}
    answer = await played.http.post(f"{played.url}/a2a/v1/message:send", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["task"]["status"]["state"] == "TASK_STATE_COMPLETED"


@pytest.mark.parametrize("binding", [JSONRPC, REST])
async def test_a_client_that_chooses_0_3_from_the_card_is_served(played: Stage, binding: str) -> None:
    card = await A2ACardResolver(played.http, played.url).get_agent_card()
    offered = [each for each in card.supported_interfaces if each.protocol_version == "0.3"]
    del card.supported_interfaces[:]
    card.supported_interfaces.extend(offered)
    config = ClientConfig(httpx_client=played.http, supported_protocol_bindings=[binding])
    events = await sent(await create_client(card, config), said("hi"))
    assert state(events[-1]["statusUpdate"]) == "completed"


async def test_the_card_says_what_readers_of_0_3_look_for(played: Stage) -> None:
    async with httpx.AsyncClient() as http:
        found = (await http.get(f"{played.url}/.well-known/agent.json")).json()
    assert found["url"] == f"{played.url}/a2a"
    assert (found["preferredTransport"], found["protocolVersion"]) == ("JSONRPC", "0.3.0")
    assert {each["transport"] for each in found["additionalInterfaces"]} == {"JSONRPC", "HTTP+JSON"}
