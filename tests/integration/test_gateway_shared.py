"""Several gateways over one NATS share everything, and bear its loss."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
from tests.conformance.nats_broker import connected
from tests.gateways import LIMIT, QUEUE, GatewayScene, ended, gateway_scene
from tests.servers import NatsServer, nats_server

from weft.aio.poll import until
from weft.messaging.broker import BrokerAdmin
from weft.store.bucket import Store
from weft.store.nats import NatsStore
from weft.tasks.attempt import TaskRun


async def _connected(server: NatsServer, ends: AsyncExitStack) -> tuple[Store, BrokerAdmin]:
    """A process's own way to NATS."""
    store = await NatsStore.connect([server.url], name="gateway", timeout=2.0)
    ends.push_async_callback(store.close)
    broker = await connected(server)
    ends.push_async_callback(broker.aclose)
    return store, broker


async def _lines(response: httpx.Response) -> AsyncIterator[tuple[str, str]]:
    """Name and id of each event."""
    name = ""
    async for line in response.aiter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "id":
            yield name, value


async def _started(scene: GatewayScene, server: NatsServer, ends: AsyncExitStack) -> list[httpx.AsyncClient]:
    """Two gateways, the queues declared."""
    ways = [await _connected(server, ends) for _ in range(2)]
    await scene.declare(ways[0][1])
    return [await scene.gateway(store, broker) for store, broker in ways]


async def test_a_task_submitted_at_one_gateway_is_followed_and_cancelled_at_another(tmp_path: Path) -> None:
    interrupted = asyncio.Event()

    async def think(run: TaskRun) -> Any:
        await run.partial("first thought")
        await run.partial("second thought")
        try:
            await asyncio.Event().wait()
        finally:
            interrupted.set()

    async with nats_server(tmp_path) as server, AsyncExitStack() as ends, gateway_scene() as scene:
        here, there = await _started(scene, server, ends)
        await scene.worker(*await _connected(server, ends), think)
        alice = scene.key("alice")
        answer = await here.post("/v1/tasks", json={"queue": QUEUE, "payload": 1}, headers=alice)
        location = answer.headers["location"]
        async with asyncio.timeout(LIMIT), there.stream("GET", f"{location}/events", headers=alice) as stream:
            news = _lines(stream)
            while (event := await anext(news))[0] != "partial":
                pass
        resumed = {**alice, "last-event-id": event[1]}
        async with (
            asyncio.timeout(LIMIT),
            here.stream("GET", f"{location}/events", headers=resumed) as stream,
        ):
            news = _lines(stream)
            assert (await anext(news))[0] == "partial"
            cancelled = await there.post(f"{location}/cancel", headers=alice)
            assert cancelled.json()["state"] == "cancelled"
            assert [name async for name, _ in news] == ["state"]
            await interrupted.wait()
        listed = await there.get("/v1/tasks", params={"queue": QUEUE}, headers=alice)
        assert [each["state"] for each in listed.json()["tasks"]] == ["cancelled"]


async def test_while_nats_is_away_callers_are_told_to_come_again_and_nothing_confirmed_is_lost(
    tmp_path: Path,
) -> None:
    async def answer(run: TaskRun) -> Any:
        return json.loads(run.payload)

    async with nats_server(tmp_path) as server, AsyncExitStack() as ends, gateway_scene() as scene:
        here, there = await _started(scene, server, ends)
        alice = {**scene.key("alice"), "idempotency-key": "once"}
        confirmed = await here.post("/v1/tasks", json={"queue": QUEUE, "payload": 7}, headers=alice)
        assert confirmed.status_code == 202
        await server.kill()
        refused = await there.post("/v1/tasks", json={"queue": QUEUE, "payload": 7}, headers=alice)
        assert (refused.status_code, refused.headers["x-weft-error"]) == (503, "unavailable")
        assert refused.headers["retry-after"] == "1"
        await server.start()
        again = await _repeated(there, alice)
        assert again["id"] == confirmed.json()["id"]
        await scene.worker(*await _connected(server, ends), answer)
        assert (await ended(here, confirmed.headers["location"], alice))["result"] == 7


async def _repeated(client: httpx.AsyncClient, headers: Mapping[str, str]) -> dict[str, Any]:
    """The task, submitted again until it is taken."""
    task: dict[str, Any] = {}

    async def taken() -> bool:
        answer = await client.post("/v1/tasks", json={"queue": QUEUE, "payload": 7}, headers=headers)
        task.update(answer.json())
        return answer.status_code == 202

    async with asyncio.timeout(LIMIT):
        await until(taken)
    return task
