"""Clients of A2A for tests: a2a-sdk's own, unmodified, and requests as they are on the wire."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from a2a.client import Client, ClientConfig, create_client
from a2a.types import a2a_pb2 as a2a
from google.protobuf.json_format import MessageToDict, ParseDict

LIMIT = 60.0
"""Seconds in which whatever is to happen has happened."""

JSONRPC = "JSONRPC"
REST = "HTTP+JSON"

Json = dict[str, Any]


async def client(
    http: httpx.AsyncClient, url: str, *, binding: str = JSONRPC, streaming: bool = True
) -> Client:
    """a2a-sdk's client of the agent there, by the card that it reads."""
    config = ClientConfig(httpx_client=http, supported_protocol_bindings=[binding], streaming=streaming)
    return await create_client(url, config)


def said(*parts: Any, skill: str = "", **fields: Any) -> Json:
    """A message: of texts, and of data."""
    made = [{"text": each} if isinstance(each, str) else {"data": each} for each in parts]
    message: Json = {"messageId": "m", "role": "ROLE_USER", "parts": made, **fields}
    return {**message, "metadata": {"skill": skill}} if skill else message


def request(message: Json, **configuration: Any) -> a2a.SendMessageRequest:
    """A request to send it."""
    return ParseDict({"message": message, "configuration": configuration}, a2a.SendMessageRequest())


async def sent(client: Client, message: Json, **configuration: Any) -> list[Json]:
    """Everything that comes back of a message, as JSON."""
    answers = client.send_message(request(message, **configuration))
    return [MessageToDict(each) async for each in answers]


async def subscriber(client: Client, task_id: str) -> asyncio.Task[list[Json]]:
    """A subscriber of a task that has heard the first of it; it comes to everything it hears, as JSON."""
    events = client.subscribe(a2a.SubscribeToTaskRequest(id=task_id))
    first = MessageToDict(await anext(events))

    async def listen() -> list[Json]:
        return [first, *[MessageToDict(each) async for each in events]]

    return asyncio.create_task(listen())


async def ask(
    http: httpx.AsyncClient,
    url: str,
    method: str,
    params: Any,
    *,
    version: str | None = "1.0",
    **headers: str,
) -> Json:
    """The answer to a JSON-RPC request, as it comes; `headers` with underscores for hyphens."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if version is not None:
        given["A2A-Version"] = version
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    answer = await http.post(f"{url}/a2a", json=body, headers=given)
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


async def result(http: httpx.AsyncClient, url: str, method: str, params: Any, **headers: str) -> Any:
    """The result of one."""
    answer = await ask(http, url, method, params, **headers)
    assert "result" in answer, answer
    return answer["result"]


async def error(http: httpx.AsyncClient, url: str, method: str, params: Any, **headers: str) -> int:
    """The code of the error that one ends with."""
    answer = await ask(http, url, method, params, **headers)
    assert "error" in answer, answer
    code: int = answer["error"]["code"]
    return code


async def task(http: httpx.AsyncClient, url: str, message: Json, **configuration: Any) -> Json:
    """The task that a message becomes."""
    params = {"message": message, "configuration": configuration}
    found: Json = (await result(http, url, "SendMessage", params))["task"]
    return found


def state(task: Json) -> str:
    """Where a task stands, in lower case."""
    text: str = task["status"]["state"]
    return text.removeprefix("TASK_STATE_").lower().replace("_", "-")
