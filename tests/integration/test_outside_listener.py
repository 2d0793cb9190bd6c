"""The listener of a gateway, in a real Envoy: what it asks, where calls go, and what never gets in."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from tests.envoys import running_envoy
from tests.pki import Pki
from tests.sds import write_secrets

from weft.aio.ports import reserve_port
from weft.controlplane.snapshots import Snapshots
from weft.controlplane.translate.outside_listener import outside_listener
from weft.model.gateway import GatewaySpec
from weft.model.manifest import parse_manifest
from weft.model.node import Address, Inbound, Node
from weft.sdk.server import bind, serving_http

HOST = "127.0.0.1"
CALLER = "spiffe://weft.local/agent/public/g-1"
GATEWAY = """
apiVersion: weft.dev/v1alpha1
kind: Gateway
metadata: {name: public}
spec: {maxBodyBytes: 2048}
"""


class GatewayProcess:
    """What stands for the gateway's process: lets one key in, and tells what it was sent."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], bytes]] = []

    async def answer(self, request: Request) -> Response:
        body = await request.body()
        headers = dict(request.headers)
        self.asked.append((f"{request.method} {request.url.path}", headers, body))
        if not request.url.path.startswith("/authorize/"):
            return JSONResponse({"path": request.url.path, "headers": headers})
        if headers.get("x-api-key") != "right":
            problem = {"type": "urn:weft:problem:rate-limited", "status": 429}
            return JSONResponse(problem, 429, {"retry-after": "7", "x-weft-error": "rate-limited"})
        return Response(headers={"x-weft-submitter": "key:right", "ratelimit": '"default";r=9;t=1'})


class Outside:
    """A gateway's Envoy with its process, seen from outside."""

    def __init__(self, client: httpx.AsyncClient, process: GatewayProcess) -> None:
        self.client = client
        self.process = process


@pytest_asyncio.fixture
async def outside() -> AsyncIterator[Outside]:
    async with AsyncExitStack() as stack:
        process = GatewayProcess()
        app = Starlette()
        app.add_route("/{path:path}", process.answer, methods=["GET", "POST", "DELETE"])
        listener = bind(HOST, 0)
        await stack.enter_async_context(serving_http(app, listener))
        ports = [stack.enter_context(reserve_port(HOST, None)) for _ in range(3)]
        outbound, inbound, door = (Address(HOST, each.port) for each in ports)
        agent = Address(HOST, listener.getsockname()[1])
        node = Node("g-1", outbound, Inbound("public", inbound, agent), outside=door)
        snapshots = Snapshots([Address(HOST, 1)])
        snapshots.update([], parse_manifest(GATEWAY))
        pki = Pki()

        def secrets(directory: Path) -> None:
            write_secrets(directory, pki, CALLER)

        await stack.enter_async_context(running_envoy(snapshots.snapshot(node), node, secrets))
        client = httpx.AsyncClient(base_url=f"http://{door}", timeout=30)
        yield Outside(await stack.enter_async_context(client), process)


async def test_a_direct_call_is_authorised_by_headers_alone_and_goes_into_the_mesh(outside: Outside) -> None:
    answer = await outside.client.post(
        "/v1/agents/summarizer", content=b'{"kind": "x"}', headers={"x-api-key": "right"}
    )
    # No such agent runs: what says so is the outbound listener, which knows it by its name.
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:weft:problem:no-such-agent"
    assert "'summarizer.mesh'" in answer.json()["detail"]
    assert answer.headers["ratelimit"] == '"default";r=9;t=1'
    [(what, headers, body)] = outside.process.asked
    assert what == "POST /authorize/v1/agents/summarizer"
    assert headers["x-weft-door"] == "outside"
    assert body == b""


async def test_a_refused_direct_call_gets_the_gateways_own_refusal(outside: Outside) -> None:
    answer = await outside.client.post("/v1/agents/summarizer", headers={"x-api-key": "wrong"})
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "7"
    assert answer.headers["x-weft-error"] == "rate-limited"
    assert answer.json()["type"] == "urn:weft:problem:rate-limited"


async def test_nobody_outside_poses_as_a_member_of_the_mesh(outside: Outside) -> None:
    posing = {
        "x-weft-caller": "spiffe://weft.local/agent/editor/e-1",
        "x-weft-submitter": "key:admin",
        "x-weft-door": "inside",
        "x-weft-task": "reviews.00000000000000000000000000",
        "x-weft-tool": "search",
        "x_weft_caller": "spiffe://weft.local/agent/editor/e-1",
    }
    answer = (await outside.client.get("/v1/tasks", headers=posing)).json()
    assert answer["headers"]["x-weft-door"] == "outside"
    said = {name for name in answer["headers"] if name.startswith(("x-weft-", "x_weft_"))}
    assert said == {"x-weft-door"}


@pytest.mark.parametrize("size", [2049, 8192, 262144])
@pytest.mark.parametrize("path", ["/v1/tasks", "/v1/agents/summarizer"])
async def test_a_body_that_says_to_be_beyond_the_limit_is_refused_before_anybody_is_asked(
    outside: Outside, path: str, size: int
) -> None:
    answer = await outside.client.post(path, content=b"x" * size, headers={"x-api-key": "right"})
    assert (answer.status_code, answer.headers["x-weft-error"]) == (413, "invalid-request")
    assert outside.process.asked == []
    allowed = await outside.client.post(path, content=b"x" * 2048, headers={"x-api-key": "right"})
    assert allowed.status_code != 413


async def test_a_body_that_turns_out_to_be_beyond_the_limit_is_refused(outside: Outside) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield b"x" * 65536

    headers = {"x-api-key": "right"}
    called = await outside.client.post("/v1/agents/summarizer", content=pieces(), headers=headers)
    assert (called.status_code, called.headers["x-weft-error"]) == (413, "invalid-request")


@pytest.mark.parametrize(
    "path", ["/rpc", "/authorize/v1/agents/x", "/v1/agents/a.b", "/V1/tasks", "//v1/tasks"]
)
async def test_no_other_path_leads_anywhere_but_to_the_gateways_own_answer(
    outside: Outside, path: str
) -> None:
    answer = await outside.client.post(path)
    if answer.status_code == 404:
        assert answer.headers["x-weft-error"] == "not-found"
    else:
        assert json.loads(answer.content)["path"].startswith("/v1/")


async def test_what_is_below_an_agent_is_asked_about_and_goes_on_by_any_method(
    outside: Outside,
) -> None:
    path = "/v1/agents/nobody/a2a/tasks/7"
    assert (await outside.client.get(path)).status_code == 429
    for method in ("GET", "POST", "DELETE"):
        answer = await outside.client.request(method, f"{path}?x=1", headers={"x-api-key": "right"})
        # The mesh behind it has no such agent.
        assert (answer.status_code, answer.headers["x-weft-error"]) == (404, "no-such-agent")
        assert "'nobody.mesh'" in answer.json()["detail"]
        asked, headers, _ = outside.process.asked[-1]
        assert asked == f"{method} /authorize{path}"
        assert headers["x-weft-door"] == "outside"


@pytest.mark.parametrize(("tls", "scheme"), [("", "http"), ("tls: {certificate: c, key: k}", "https")])
def test_cards_of_a_gateway_say_how_it_is_spoken_to(tls: str, scheme: str) -> None:
    [resource] = parse_manifest(GATEWAY.replace("maxBodyBytes: 2048", tls))
    assert isinstance(resource.spec, GatewaySpec)
    listener = outside_listener(Address(HOST, 1), resource.spec)
    assert f"{scheme}://%REQ(:AUTHORITY)%".encode() in listener.SerializeToString()
