"""Clients of A2A for tests: a2a-sdk's own, unmodified, into a mesh in memory that is served over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from a2a.client import Client, ClientConfig, create_client
from a2a.types import a2a_pb2 as a2a
from google.protobuf.json_format import MessageToDict, ParseDict

from tests.server_process import HOST
from weft.sdk.server import bind, serving_http
from weft.testing import InMemoryMesh

LIMIT = 30.0
"""Seconds in which whatever is to happen has happened."""

JSONRPC = "JSONRPC"
REST = "HTTP+JSON"


class _IntoMesh(httpx.AsyncHTTPTransport):
    """What a proxy does: goes to one address, whichever host is named, and names that."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = httpx.URL(address)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.headers["host"]
        request.url = request.url.copy_with(host=self._address.host, port=self._address.port)
        request.headers["host"] = host
        return await super().handle_async_request(request)


@asynccontextmanager
async def into(mesh: InMemoryMesh) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client for which the agents of `mesh` are at `http://<name>.mesh`."""
    listener = bind(HOST, 0)
    address = f"http://{HOST}:{listener.getsockname()[1]}"
    async with (
        serving_http(mesh.asgi, listener),
        httpx.AsyncClient(transport=_IntoMesh(address), timeout=LIMIT) as http,
    ):
        yield http


async def client(
    http: httpx.AsyncClient, name: str, *, binding: str = JSONRPC, streaming: bool = True
) -> Client:
    """a2a-sdk's client of the agent at `http://<name>.mesh`, by the card that it reads there."""
    config = ClientConfig(httpx_client=http, supported_protocol_bindings=[binding], streaming=streaming)
    return await create_client(f"http://{name}.mesh", config)


def message(*parts: Any, **fields: Any) -> a2a.SendMessageRequest:
    """A request to send a message: of texts, and of data."""
    made = [{"text": each} if isinstance(each, str) else {"data": each} for each in parts]
    configuration = {
        name: fields.pop(name)
        for name in ("returnImmediately", "historyLength", "taskPushNotificationConfig")
        if name in fields
    }
    request = {
        "message": {"messageId": "m", "role": "ROLE_USER", "parts": made, **fields},
        "configuration": configuration,
    }
    return ParseDict(request, a2a.SendMessageRequest())


async def sent(client: Client, *parts: Any, **fields: Any) -> list[dict[str, Any]]:
    """Everything that comes back of a message, as JSON."""
    return [MessageToDict(each) async for each in client.send_message(message(*parts, **fields))]


async def task_of(client: Client, *parts: Any, **fields: Any) -> dict[str, Any]:
    """The task that a message becomes, as a client that does not stream gets it."""
    (answer,) = await sent(client, *parts, **fields)
    task: dict[str, Any] = answer["task"]
    return task


async def rpc(
    http: httpx.AsyncClient, name: str, method: str, params: Any, *, version: str | None = "1.0"
) -> dict[str, Any]:
    """The answer to a JSON-RPC request, as it comes."""
    headers = {} if version is None else {"A2A-Version": version}
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    answer = await http.post(f"http://{name}.mesh/a2a", json=body, headers=headers)
    found: dict[str, Any] = answer.json()
    return found
