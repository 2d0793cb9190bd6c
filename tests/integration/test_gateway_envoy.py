"""A gateway's process behind its own Envoy, as callers from outside meet it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import pytest_asyncio
from tests.envoys import running_envoy
from tests.gateways import HOST, INSIDER, LIMIT, QUEUE, GatewayScene, abandoned, gateway_scene
from tests.pki import Pki
from tests.sds import write_secrets

from weft.aio.ports import reserve_port
from weft.controlplane.snapshots import Snapshots
from weft.controlplane.translate import outside_listener
from weft.gateway.draining import Draining
from weft.messaging.brokers.memory import MemoryBroker
from weft.model.gateway import GatewaySpec, Rate
from weft.model.manifest import parse_manifest
from weft.model.node import Address, Inbound, Node
from weft.store.memory import MemoryStore
from weft.tasks.attempt import TaskRun

GATEWAY = """
apiVersion: weft.dev/v1alpha1
kind: Gateway
metadata: {name: public}
spec: {maxBodyBytes: 4096}
"""


class Outside(NamedTuple):
    """A gateway seen from outside."""

    scene: GatewayScene
    client: httpx.AsyncClient
    store: MemoryStore
    broker: MemoryBroker
    draining: Draining


REQUEST_TIMEOUT = 2.0
"""Seconds that the Envoy of these tests gives a request to come."""


@pytest_asyncio.fixture
async def outside(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Outside]:
    store, broker, draining = MemoryStore(), MemoryBroker(), Draining()
    async with gateway_scene() as scene, AsyncExitStack() as stack:
        scene.spec = GatewaySpec(max_body_bytes=4096)
        await scene.declare(broker)
        behind = await scene.gateway(store, broker, draining=draining)
        ports = [stack.enter_context(reserve_port(HOST, None)) for _ in range(3)]
        outbound, inbound, door = (Address(HOST, each.port) for each in ports)
        process = Address(HOST, behind.base_url.port or 0)
        node = Node("g-1", outbound, Inbound("public", inbound, process), outside=door)
        monkeypatch.setattr(outside_listener, "REQUEST_TIMEOUT", REQUEST_TIMEOUT)
        snapshots = Snapshots([Address(HOST, 1)])
        snapshots.update([], parse_manifest(GATEWAY))
        pki = Pki()

        def secrets(directory: Path) -> None:
            write_secrets(directory, pki, "spiffe://weft.local/agent/public/g-1")

        await stack.enter_async_context(running_envoy(snapshots.snapshot(node), node, secrets))
        client = httpx.AsyncClient(base_url=f"http://{door}", timeout=LIMIT, trust_env=False)
        yield Outside(scene, await stack.enter_async_context(client), store, broker, draining)
    await broker.aclose()
    await store.close()


async def _double(run: TaskRun) -> Any:
    await run.progress(0.5)
    return 2 * json.loads(run.payload)


async def test_tasks_are_submitted_awaited_and_followed_through_envoy(outside: Outside) -> None:
    alice = outside.scene.key("alice")
    first = await outside.client.post("/v1/tasks", json={"queue": QUEUE, "payload": 1}, headers=alice)
    assert first.status_code == 202
    path = f"{first.headers['location']}/events"
    async with asyncio.timeout(LIMIT), outside.client.stream("GET", path, headers=alice) as stream:
        lines = stream.aiter_lines()
        # An event comes while the task still waits: nothing on the way gathers the stream.
        assert await anext(lines) == "event: state"
        await outside.scene.worker(outside.store, outside.broker, _double)
        names = [line.removeprefix("event: ") async for line in lines if line.startswith("event: ")]
    assert names[-2:] == ["progress", "state"]
    answer = await outside.client.post(
        "/v1/tasks", json={"queue": QUEUE, "payload": 21}, headers={**alice, "prefer": "wait=20"}
    )
    assert (answer.status_code, answer.json()["result"]) == (200, 42)


async def test_nobody_poses_as_a_member_of_the_mesh_or_goes_without_a_key(outside: Outside) -> None:
    outside.scene.allowed.add(("submit", QUEUE))
    for headers in ({}, {"x-weft-caller": INSIDER}, {"x-weft-caller": INSIDER, "x-weft-door": "inside"}):
        for path in ("/v1/tasks", "/v1/agents/editor"):
            answer = await outside.client.post(path, json={"queue": QUEUE, "payload": 1}, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["x-weft-error"] == "unauthenticated"
            assert answer.headers["content-type"] == "application/problem+json"


async def test_direct_calls_go_into_the_mesh_for_whom_the_gateway_lets_through(outside: Outside) -> None:
    writer = outside.scene.key("writer", agents=("editor",), rate=Rate(requests=2, per=3600))
    # No agent runs: it is the mesh that says so, not the gateway.
    through = await outside.client.post("/v1/agents/editor", json={}, headers=writer)
    assert (through.status_code, through.headers["x-weft-error"]) == (404, "no-such-agent")
    denied = await outside.client.post("/v1/agents/critic", json={}, headers=writer)
    assert (denied.status_code, denied.headers["x-weft-error"]) == (403, "denied")
    limited = await outside.client.post("/v1/agents/editor", json={}, headers=writer)
    assert (limited.status_code, limited.headers["x-weft-error"]) == (429, "rate-limited")
    assert int(limited.headers["retry-after"]) > 0


async def test_nothing_of_a_body_is_waited_for_that_nobody_known_sends(outside: Outside) -> None:
    answer = await _unfinished(outside, "/v1/tasks", {})
    assert answer.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("path", ["/v1/tasks", "/v1/agents/editor"])
async def test_a_body_that_does_not_come_ends_its_request(outside: Outside, path: str) -> None:
    answer = await _unfinished(outside, path, outside.scene.key("alice"))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"x-weft-error: invalid-request" in answer


async def test_a_body_that_turns_out_to_be_too_large_is_refused_by_the_process(outside: Outside) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield b"x" * 65536

    headers = {**outside.scene.key("alice"), "content-type": "application/json"}
    answer = await outside.client.post("/v1/tasks", content=pieces(), headers=headers)
    assert (answer.status_code, answer.headers["x-weft-error"]) == (413, "invalid-request")


async def _unfinished(outside: Outside, path: str, headers: Mapping[str, str]) -> bytes:
    """The head of the answer to a request whose body does not come."""
    url = outside.client.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        sent = {"host": "x", "content-type": "application/json", "content-length": "100", **headers}
        lines = [
            f"POST {path} HTTP/1.1",
            *(f"{name}: {value}" for name, value in sent.items()),
            "",
            '{"queue',
        ]
        writer.write("\r\n".join(lines).encode())
        async with asyncio.timeout(LIMIT):
            return await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.transport.abort()


async def test_a_client_that_goes_away_is_noticed_through_envoy(outside: Outside) -> None:
    alice = outside.scene.key("alice")
    await abandoned(outside.client, outside.scene.gateways[0], alice)
    [task] = (await outside.client.get(f"/v1/tasks?queue={QUEUE}", headers=alice)).json()["tasks"]
    assert task["state"] == "queued"
