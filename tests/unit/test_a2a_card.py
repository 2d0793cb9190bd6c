"""The card that an agent's handlers make."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from a2a.client.card_resolver import parse_agent_card

from weft import Agent
from weft.model.offer import DESCRIPTION_VARIABLE, MCP_EXTENSION
from weft.sdk.a2a.card import CardSource, card

BASE = "http://127.0.0.1:8080"


def agent() -> Agent:
    agent = Agent("novelist", capabilities=["write", "read"], version="2.1")

    @agent.handles("plot")
    async def plot(theme: str) -> dict[str, Any]:
        """Find a plot.

        A good one.
        """
        return {"theme": theme}

    @agent.streams("chapters")
    async def chapters(count: int) -> AsyncGenerator[str, None]:
        yield str(count)

    return agent


def source(agent: Agent, **fields: Any) -> CardSource:
    return CardSource(agent.settings, agent._handlers, **fields)


def test_each_handler_is_a_skill() -> None:
    plot, chapters = card(source(agent()), BASE)["skills"]
    assert (plot["id"], plot["description"]) == ("plot", "Find a plot.\n\nA good one.")
    assert plot["tags"] == ["read", "write"]
    assert (plot["inputModes"], plot["outputModes"]) == (
        ["text/plain", "application/json"],
        ["application/json"],
    )
    assert (chapters["inputModes"], chapters["outputModes"]) == (["application/json"], ["text/plain"])


def test_a_client_reads_every_interface_at_the_address_that_was_asked() -> None:
    read = parse_agent_card(card(source(agent()), BASE))
    assert (read.name, read.version, read.capabilities.streaming) == ("novelist", "2.1", True)
    assert {each.url for each in read.supported_interfaces} == {f"{BASE}/a2a"}
    offered = {(each.protocol_binding, each.protocol_version) for each in read.supported_interfaces}
    assert offered == {(b, v) for b in ("JSONRPC", "HTTP+JSON") for v in ("1.0", "0.3")}


def test_the_description_is_the_declared_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "chapters, plot" in card(source(agent()), BASE)["description"]
    monkeypatch.setenv(DESCRIPTION_VARIABLE, "Writes novels.")
    assert card(source(agent()), BASE)["description"] == "Writes novels."


def test_an_agent_that_serves_mcp_says_where() -> None:
    assert card(source(agent()), BASE)["capabilities"]["extensions"] == []
    (extension,) = card(source(agent(), mcp_path="/mcp"), BASE)["capabilities"]["extensions"]
    assert (extension["uri"], extension["params"]) == (MCP_EXTENSION, {"path": "/mcp"})


PROGRAM = """
import asyncio, sys, httpx
from weft import Agent
agent = Agent("novelist")
@agent.handles("echo")
async def echo(text: str) -> str: return text
async def main():
    async with agent.serving() as url, httpx.AsyncClient() as http:
        await http.post(f"{url}/rpc", json={"kind": "echo", "payload": {"text": "x"}})
        card = await http.get(f"{url}/.well-known/agent-card.json")
        assert card.json()["skills"][0]["id"] == "echo"
        print("a2a" in sys.modules, "google.protobuf" in sys.modules)
        await http.post(f"{url}/a2a", json={})
        print("a2a" in sys.modules)
asyncio.run(main())
"""


def test_an_agent_that_nobody_calls_by_a2a_does_without_its_library() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "True"]
