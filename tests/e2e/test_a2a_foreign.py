"""A foreign A2A server in a mesh, and the official client: through the sidecar, and through a gateway."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.types import AgentCard, Message, Part, Role, SendMessageRequest
from tests.e2e.meshes import RunningMesh, eventually, mesh_client, running_mesh
from tests.e2e.messaging_mesh import agent, document, manifest

from weft import NotFound
from weft.local.ports import free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON_RPC, HTTP_JSON = "JSONRPC", "HTTP+JSON"
"""Bindings."""

CARD = "/.well-known/agent-card.json"

EXAMPLE = Path(__file__).parents[2] / "examples" / "a2a"


@dataclass(frozen=True)
class Scene:
    """A mesh with a foreign A2A agent `echo`, a plain one `plain`, and a gateway."""

    mesh: RunningMesh
    gateway: str
    """Where callers from outside find `echo`."""

    @property
    def door(self) -> str:
        """Where the listener of a sidecar is."""
        return self.mesh.local.proxy_url.removeprefix("http://")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    port = free_port()
    plain = tmp_path_factory.mktemp("plain")
    resources = manifest(
        agent("echo", "a2a_agent.py", protocol="a2a"),
        agent("plain", "foreign_agent.py", plain, capabilities=["count"]),
        agent("words", str(EXAMPLE / "words.py"), protocol="a2a"),
        document("Gateway", "public", port=port, anonymous=True),
    )
    async with running_mesh(resources) as mesh:

        async def read() -> bool:
            echo, words = await mesh.api.agent("echo", "echo-1"), await mesh.api.agent("words", "words-1")
            return "say-it-again" in echo["capabilities"] and "count-words" in words["capabilities"]

        await eventually(read, lambda: f"its skills are not known\n{mesh.log('echo-1')}")
        yield Scene(mesh, f"http://127.0.0.1:{port}/v1/agents/echo")


@dataclass(frozen=True)
class Way:
    """How a client comes to the agent."""

    base: str
    """Which it believes to be the agent's address."""
    options: Mapping[str, Any]
    """Of its HTTP client."""


def ways(scene: Scene) -> Mapping[str, Way]:
    door = scene.door
    return {
        "proxy": Way("http://echo.mesh", {"proxy": f"http://{door}"}),
        "capability": Way("http://say-it-again.cap.mesh", {"proxy": f"http://{door}"}),
        "instance": Way("http://echo-1.echo.mesh", {"proxy": f"http://{door}"}),
        "localhost": Way(f"http://echo.mesh.localhost:{door.rpartition(':')[2]}", {"mounts": _only(door)}),
        "header": Way(f"http://{door}", {"headers": {"x-weft-to": "echo"}}),
        "gateway": Way(scene.gateway, {}),
    }


def _only(address: str) -> dict[str, httpx.AsyncBaseTransport]:
    """Names below `localhost` are this machine, whatever the system's resolver thinks."""
    return {"all://*.localhost": _Localhost(address)}


class _Localhost(httpx.AsyncHTTPTransport):
    def __init__(self, address: str) -> None:
        super().__init__()
        self._host = address.rpartition(":")[0]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(host=self._host)
        return await super().handle_async_request(request)


async def say(
    way: Way, binding: str, *, streaming: bool, version: str = "1.0"
) -> tuple[AgentCard, list[str]]:
    """The card that an unmodified client finds, and what it is answered by the way that the card says."""
    async with httpx.AsyncClient(timeout=30, trust_env=False, **way.options) as http:
        card = await A2ACardResolver(http, way.base).get_agent_card()
        chosen = AgentCard()
        chosen.CopyFrom(card)
        del chosen.supported_interfaces[:]
        chosen.supported_interfaces.extend(
            each for each in card.supported_interfaces if each.protocol_version == version
        )
        config = ClientConfig(httpx_client=http, supported_protocol_bindings=[binding], streaming=streaming)
        client = ClientFactory(config).create(chosen)
        message = Message(message_id="m", role=Role.ROLE_USER, parts=[Part(text="once more")])
        words = []
        async for event in client.send_message(SendMessageRequest(message=message)):
            words += _words(event)
        return card, words


def _words(event: Any) -> list[str]:
    match event.WhichOneof("payload"):
        case "artifact_update":
            return [part.text for part in event.artifact_update.artifact.parts]
        case "task":
            return [part.text for artifact in event.task.artifacts for part in artifact.parts]
    return []


@pytest.mark.parametrize("name", ["proxy", "capability", "instance", "localhost", "header", "gateway"])
async def test_a_client_finds_the_agent_by_its_card_and_speaks_to_it(scene: Scene, name: str) -> None:
    way = ways(scene)[name]
    card, words = await say(way, JSON_RPC, streaming=True)
    assert words == ["once", "more"]
    urls = {(each.protocol_binding, each.protocol_version): each.url for each in card.supported_interfaces}
    assert urls == {
        (JSON_RPC, "1.0"): f"{way.base}/a2a/rpc",
        (HTTP_JSON, "1.0"): f"{way.base}/a2a",
        (JSON_RPC, "0.3"): f"{way.base}/a2a/rpc",
    }
    assert not card.capabilities.extended_agent_card


@pytest.mark.parametrize("name", ["proxy", "gateway"])
@pytest.mark.parametrize(
    ("binding", "streaming", "version"),
    [(JSON_RPC, False, "1.0"), (HTTP_JSON, True, "1.0"), (HTTP_JSON, False, "1.0"), (JSON_RPC, True, "0.3")],
)
async def test_both_bindings_streams_and_the_former_version_work(
    scene: Scene, name: str, binding: str, streaming: bool, version: str
) -> None:
    _, words = await say(ways(scene)[name], binding, streaming=streaming, version=version)
    assert words == ["once", "more"]


async def test_the_example_asks_by_nothing_but_the_name(scene: Scene) -> None:
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLE / "ask.py"),
        "the quick brown fox",
        env={**os.environ, "HTTP_PROXY": scene.mesh.local.proxy_url, "NO_PROXY": ""},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await program.communicate()
    assert said.decode().splitlines() == ["4 words"]


async def test_an_agent_that_listens_at_the_root_is_reached_through_the_gateway_too(scene: Scene) -> None:
    outside = Way(scene.gateway.removesuffix("echo") + "words", {})
    card, words = await say(outside, JSON_RPC, streaming=False)
    assert words == ["2 words"]
    assert [each.url for each in card.supported_interfaces] == [f"{outside.base}/"]


async def test_nothing_of_where_the_agent_says_it_is_reaches_anybody(scene: Scene) -> None:
    async with httpx.AsyncClient(proxy=scene.mesh.local.proxy_url, trust_env=False) as http:
        for path in (CARD, "/.well-known/agent.json"):
            shown = await http.get(f"http://echo.mesh{path}?x=1")
            assert (shown.status_code, shown.headers["content-type"]) == (200, "application/json")
            assert "elsewhere" not in shown.text
            # As servers of A2A 1.0 write it for clients of 0.3.
            assert shown.json()["url"] == "http://echo.mesh/a2a/rpc"
    listed = await scene.mesh.api.card("echo")
    assert "elsewhere" not in str(listed["card"])
    told = " ".join(listed["notes"])
    assert "only the path" in told
    assert "GRPC" in told
    assert "'!'" in told


async def test_an_agent_without_a_card_is_asked_itself(scene: Scene) -> None:
    async with httpx.AsyncClient(proxy=scene.mesh.local.proxy_url, trust_env=False) as http:

        async def asked() -> bool:
            answer = await http.get(f"http://plain.mesh{CARD}")
            return answer.status_code == 200 and answer.json()["path"] == CARD

        await eventually(asked, lambda: "its card is still asked of the control plane")
        unknown = await http.get(f"http://nobody.mesh{CARD}")
        assert (unknown.status_code, unknown.headers["x-weft-error"]) == (404, "no-such-agent")


async def test_the_catalogue_is_searched_by_skill_tag_and_text(scene: Scene) -> None:
    async with mesh_client(scene.mesh) as mesh:
        for found in (
            await mesh.cards("SAY ag"),
            await mesh.cards(skill="say_it.again"),
            await mesh.cards(skill=["say-it-again", "!"], tag=["wörter", "Odd"]),
        ):
            assert [each.type for each in found] == ["echo"]
        assert [each.type for each in await mesh.cards()] == ["echo", "words"]
        assert await mesh.cards("again elsewhere") == []
        assert await mesh.cards(tag=["speech", "silence"]) == []
        assert await mesh.cards(skill="plain") == []
        card = (await mesh.card("echo")).card
        assert {each["url"] for each in card["supportedInterfaces"]} == {
            "http://echo.mesh/a2a/rpc",
            "http://echo.mesh/a2a",
        }
        with pytest.raises(NotFound, match="card"):
            await mesh.card("plain")


async def test_a_gateway_lets_nobody_past_the_agents(scene: Scene) -> None:
    outside = scene.gateway.removesuffix("/echo")
    async with httpx.AsyncClient(trust_env=False) as http:
        for path in ("control/v1/agents", "llm/v1/models", "tools/mcp", "cap/x", "nobody/rpc", "no.dots/rpc"):
            answer = await http.get(f"{outside}/{path}")
            assert (answer.status_code, "x-weft-error" in answer.headers) == (404, True), path
        for path in ("tasks", "events", "tasks/", "%74asks"):
            answer = await http.post(f"{outside}/plain/{path}", json={})
            assert (answer.status_code, answer.headers.get("x-weft-error")) == (404, "not-found"), path
        seen = (await http.post(f"{outside}/plain/some/path?q=1", json={"a": 1})).json()
        assert (seen["method"], seen["path"]) == ("POST", "/some/path?q=1")
        assert seen["headers"]["x-weft-caller"].startswith("spiffe://weft.local/agent/public/")
        forged = {"x-weft-card-base": "http://evil.example", "x-weft-card-of": "type/plain"}
        card = (await http.get(f"{scene.gateway}{CARD}", headers=forged)).json()
        assert card["url"] == f"{scene.gateway}/a2a/rpc"


async def test_what_an_agent_offers_leaves_with_it(scene: Scene, tmp_path: Path) -> None:
    mesh = scene.mesh
    await mesh.apply(agent("echo", "a2a_agent.py", replicas=0, protocol="a2a"))
    await mesh.ended("echo-1")
    listed, unread = await mesh.api.cards([])
    assert ([each["type"] for each in listed], unread) == (["words"], {})
