"""What a handler calls by other HTTP clients is told what its own call brought, without any code."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import httpx
import httpx2
import openai
import pytest
from opentelemetry import baggage, trace
from tests.envoys import EchoAgent

from weft import Agent
from weft.sdk.trace import trace_of
from weft.testing import InMemoryMesh

TRACE = f"00-{'a' * 32}-{'b' * 16}-01"
SENT = {"x-weft-context": "chat-1", "x-weft-budget": "5000 tokens", "traceparent": TRACE, "baggage": "a=1"}
HOPS = {"x-weft-hops": "planner"}


@pytest.fixture
async def proxy(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """What stands for a sidecar's outbound listener: it answers with the headers it gets."""
    async with EchoAgent() as echo:
        url = f"http://127.0.0.1:{echo.port}"
        for name in ("WEFT_PROXY", "HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield url


async def by_httpx(url: str, **headers: str) -> Any:
    async with httpx.AsyncClient() as client:
        return (await client.get(url, headers=headers)).json()


async def by_blocking_httpx(url: str, **headers: str) -> Any:
    return (await asyncio.to_thread(httpx.get, url, headers=headers)).json()


async def by_httpx2(url: str, **headers: str) -> Any:
    async with httpx2.AsyncClient() as client:
        return (await client.get(url, headers=headers)).json()


async def by_aiohttp(url: str, **headers: str) -> Any:
    async with (
        aiohttp.ClientSession(trust_env=True) as session,
        session.get(url, headers=headers) as response,
    ):
        return json.loads(await response.text())


async def by_openai(url: str, **headers: str) -> Any:
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        answer = await client.models.with_raw_response.list(extra_headers=headers)
        return json.loads(answer.text)


CLIENTS = (by_httpx, by_blocking_httpx, by_httpx2, by_aiohttp, by_openai)


def passed(headers: dict[str, str]) -> dict[str, str]:
    return {name: headers[name] for name in (*SENT, *HOPS, "x-weft-deadline") if name in headers}


async def handled(call: Any, deadline: str = "") -> Any:
    """What `call` gives inside the handler of a call with SENT."""
    headers = {**SENT, **HOPS, **({"x-weft-deadline": deadline} if deadline else {})}
    async with InMemoryMesh() as mesh:
        agent = Agent("editor")

        @agent.handles("do")
        async def do() -> Any:
            return await call()

        mesh.add(agent)
        return await mesh.client.request("editor", "do", headers=headers)


@pytest.mark.parametrize("client", CLIENTS)
async def test_calls_of_the_mesh_pass_on_what_the_handlers_call_brought(proxy: str, client: Any) -> None:
    expected = {**SENT, **HOPS}
    for url in ("http://coder.mesh/any", f"http://coder.mesh.localhost:{proxy.rpartition(':')[2]}/any"):
        assert passed(await handled(lambda url=url: client(url))) == expected
    assert passed(await handled(lambda: client(f"{proxy}/v1/models"))) == expected
    assert passed(await handled(lambda: client(f"{proxy}/any", **{"x-weft-to": "coder"}))) == expected


@pytest.mark.parametrize("client", CLIENTS)
async def test_what_a_call_says_itself_stays_and_other_hosts_hear_nothing(proxy: str, client: Any) -> None:
    own = await handled(lambda: client("http://coder.mesh/any", **{"X-Weft-Budget": "1 tokens"}))
    assert passed(own) == {**SENT, **HOPS, "x-weft-budget": "1 tokens"}
    for url in ("http://example.com/any", f"{proxy}/any", "http://mesh.example.com/v1/", "http://notmesh/"):
        assert passed(await handled(lambda url=url: client(url))) == {}
    assert passed(await client("http://coder.mesh/any")) == {}, "outside a handler"


async def test_a_deadline_goes_along(proxy: str) -> None:
    told = await handled(lambda: by_httpx("http://coder.mesh/"), deadline="99999999999999")
    assert told["x-weft-deadline"] == "99999999999999"


def test_an_agent_that_does_not_want_it_leaves_other_clients_alone() -> None:
    script = """
import asyncio, aiohttp, httpx
from weft import Agent, current
from weft.testing import InMemoryMesh
before = httpx.AsyncClient.send, aiohttp.ClientSession._request
async def main():
    async with InMemoryMesh() as mesh:
        agent = Agent("editor", propagate=False)
        @agent.handles("do")
        async def do() -> bool:
            return before == (httpx.AsyncClient.send, aiohttp.ClientSession._request)
        mesh.add(agent)
        print(await mesh.client.request("editor", "do"))
asyncio.run(main())
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout.strip() == "True"


def test_what_was_not_imported_is_not_imported_for_it() -> None:
    script = """
import asyncio, sys
from weft import Agent
from weft.testing import InMemoryMesh
async def main():
    async with InMemoryMesh() as mesh:
        agent = Agent("editor")
        @agent.handles("do")
        async def do() -> list[str]:
            names = ("httpx", "httpx2", "openai", "opentelemetry.trace")
            return [each for each in names if each in sys.modules]
        mesh.add(agent)
        print(await mesh.client.request("editor", "do"))
asyncio.run(main())
"""
    run = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True, timeout=60
    )
    assert run.stdout.strip() == "[]"


async def test_inside_a_handler_the_call_is_opentelemetrys_current_context() -> None:
    async def seen() -> tuple[str, object, bool]:
        span = trace.get_current_span().get_span_context()
        return f"{span.trace_id:032x}/{span.span_id:016x}", baggage.get_baggage("a"), span.is_remote

    assert await handled(seen) == [f"{'a' * 32}/{'b' * 16}", "1", True]
    assert not trace.get_current_span().get_span_context().is_valid


async def test_calls_are_made_below_the_handlers_own_span(proxy: str) -> None:
    own = trace.SpanContext(int("a" * 32, 16), int("c" * 16, 16), is_remote=False)

    async def within() -> Any:
        with trace.use_span(trace.NonRecordingSpan(own)):
            return await by_httpx("http://coder.mesh/any")

    told = await handled(within)
    assert trace_of(told["traceparent"]) == "a" * 32
    assert told["traceparent"].split("-")[2] == "c" * 16
    assert passed(told).keys() == {*SENT, *HOPS}
