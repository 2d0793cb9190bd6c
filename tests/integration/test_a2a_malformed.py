"""What is no A2A is answered with the protocol's own error, and nothing of the agent's inside."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest
from tests.a2a_clients import said
from tests.a2a_stage import Stage, stage

from weft import Agent

PARSE, REQUEST, METHOD, PARAMS, VERSION = -32700, -32600, -32601, -32602, -32009

LIMIT = 100_000
MESSAGE = {"message": said("x")}
OVERSIZED = json.dumps({**MESSAGE, "padding": "x" * LIMIT})
NESTED = "[" * 100_000


@pytest.fixture
async def played() -> AsyncIterator[Stage]:
    agent = Agent("novelist", max_body_bytes=LIMIT)

    @agent.handles("echo")
    async def echo(text: str) -> str:
        return text

    async with stage(agent) as running:
        yield running


def rpc(**fields: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": MESSAGE, **fields})


def without(name: str) -> str:
    return json.dumps({key: value for key, value in json.loads(rpc()).items() if key != name})


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param("", PARSE, id="nothing"),
        pytest.param("{", PARSE, id="half"),
        pytest.param(NESTED, PARSE, id="nested"),
        pytest.param('{"jsonrpc": "2.0", "id": 7, "method": "GetTask", "params": NaN}', PARSE, id="NaN"),
        pytest.param(b"\xff\xfe", PARSE, id="no UTF-8"),
        pytest.param("[]", REQUEST, id="empty batch"),
        pytest.param(f"[{rpc()}]", REQUEST, id="batch"),
        pytest.param('"SendMessage"', REQUEST, id="a text"),
        pytest.param(without("id"), REQUEST, id="notification"),
        pytest.param(rpc(id=None), REQUEST, id="id null"),
        pytest.param(rpc(id=1.5), REQUEST, id="id fraction"),
        pytest.param(rpc(id=True), REQUEST, id="id boolean"),
        pytest.param(rpc(id=[1]), REQUEST, id="id list"),
        pytest.param(without("jsonrpc"), REQUEST, id="no version of JSON-RPC"),
        pytest.param(rpc(jsonrpc="1.0"), REQUEST, id="another version of JSON-RPC"),
        pytest.param(without("method"), REQUEST, id="no method"),
        pytest.param(rpc(method=5), REQUEST, id="method number"),
        pytest.param(rpc(method="Destroy"), METHOD, id="unknown method"),
        pytest.param(rpc(method="message/send"), METHOD, id="method of 0.3"),
        pytest.param(rpc(params=[1]), REQUEST, id="params list"),
        pytest.param(rpc(params={}), PARAMS, id="no message"),
        pytest.param(rpc(params={"message": 5}), PARAMS, id="message number"),
        pytest.param(rpc(params={"message": {"parts": [{"text": "x"}]}}), PARAMS, id="no messageId"),
        pytest.param(rpc(method="GetTask", params={}), PARAMS, id="no task id"),
        pytest.param(
            rpc(params={"message": said("x"), "configuration": {"historyLength": -1}}), PARAMS, id="-1"
        ),
        pytest.param(rpc(padding="x" * LIMIT), REQUEST, id="too large"),
    ],
)
async def test_json_rpc_that_is_none(played: Stage, body: str | bytes, code: int) -> None:
    headers = {"A2A-Version": "1.0", "content-type": "application/json"}
    answer = await played.http.post(f"{played.url}/a2a", content=body, headers=headers)
    assert answer.status_code in {200, 413}
    told = answer.json()
    assert (told["jsonrpc"], told["error"]["code"]) == ("2.0", code)
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/message:send", "{", 400),
        ("POST", "/message:send", "", 400),
        ("POST", "/message:send", "[]", 400),
        ("POST", "/message:send", NESTED[:90_000], 400),
        ("POST", "/message:send", '{"message": 5}', 400),
        ("POST", "/message:send", "{}", 400),
        ("POST", "/message:send", OVERSIZED, 413),
        ("POST", "/message:stream", "{}", 400),
        ("GET", "/message:send", "", 405),
        ("GET", "/nowhere", "", 404),
        ("GET", "/tasks/unknown", "", 404),
        ("GET", "/tasks/unknown:subscribe", "", 404),
        ("POST", "/tasks/unknown:cancel", "", 404),
        ("GET", "/tasks?pageSize=500", "", 400),
        ("GET", "/tasks?pageSize=abc", "", 400),
        ("GET", "/tasks?pageToken=junk", "", 400),
        ("GET", "/extendedAgentCard", "", 400),
    ],
)
async def test_http_json_that_is_none(played: Stage, method: str, path: str, body: str, status: int) -> None:
    headers = {"A2A-Version": "1.0", "content-type": "application/json"}
    answer = await played.http.request(method, f"{played.url}/a2a{path}", content=body, headers=headers)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == status
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("version", ["1.1", "2.0", "0.2", "junk", "1.0-beta", "1", "9" * 5000])
async def test_a_version_that_is_not_spoken(played: Stage, version: str) -> None:
    headers = {"A2A-Version": version}
    answer = await played.http.post(f"{played.url}/a2a", json=json.loads(rpc()), headers=headers)
    assert (answer.json()["error"]["code"], answer.json()["id"]) == (VERSION, 7)
    rest = await played.http.post(f"{played.url}/a2a/message:send", json=MESSAGE, headers=headers)
    assert rest.status_code == 400
    assert rest.json()["error"]["details"][0]["reason"] == "VERSION_NOT_SUPPORTED"


async def test_a_method_of_1_0_without_a_version_is_one_of_0_3(played: Stage) -> None:
    answer = await played.http.post(f"{played.url}/a2a", json=json.loads(rpc()))
    assert answer.json()["error"]["code"] == VERSION


@pytest.mark.parametrize("version", ["1.0", "1.0.3"])
async def test_the_version_may_be_in_the_query(played: Stage, version: str) -> None:
    answer = await played.http.post(f"{played.url}/a2a?A2A-Version={version}", json=json.loads(rpc()))
    assert answer.json()["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"


@pytest.mark.parametrize("path", ["/a2a", "/a2a/message:send"])
@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_body_that_a_web_page_could_send_is_refused(
    played: Stage, path: str, media_type: str
) -> None:
    headers = {"A2A-Version": "1.0", "content-type": media_type}
    answer = await played.http.post(f"{played.url}{path}", content=rpc(), headers=headers)
    assert answer.status_code == 415
    assert "error" in answer.json()


async def test_a_body_without_a_length_is_limited_too(played: Stage) -> None:
    async def chunks() -> AsyncGenerator[bytes, None]:
        for _ in range(LIMIT // 1000 + 1):
            yield b" " * 1000

    headers = {"A2A-Version": "1.0", "content-type": "application/json"}
    answer = await played.http.post(f"{played.url}/a2a", content=chunks(), headers=headers)
    assert answer.json()["error"]["code"] == REQUEST


async def test_what_is_unknown_is_ignored(played: Stage) -> None:
    message = {**MESSAGE["message"], "future": 1, "parts": [{"text": "x", "future": 1}]}
    headers = {"A2A-Version": "1.0", "A2A-Extensions": "https://example.com/unknown"}
    body = json.loads(rpc(params={"message": message, "future": 1}))
    answer = await played.http.post(f"{played.url}/a2a", json=body, headers=headers)
    assert answer.json()["result"]["task"]["artifacts"][0]["parts"] == [{"text": "x"}]
