"""A2A in a whole mesh: a2a-sdk's client, through sidecars, with agents made with the SDK that come and go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from tests.a2a_clients import JSONRPC, REST, Json, client, result, said, sent, state, subscriber, task
from tests.e2e.meshes import RunningMesh, eventually, running_mesh
from tests.e2e.messaging_mesh import Journal, agent, manifest
from tests.receivers import receiver

ANY = "http://novelist.mesh"
INSTANCES = ("novelist-1", "novelist-2")


@asynccontextmanager
async def into(mesh: RunningMesh) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client as a program beside a sidecar has it."""
    async with httpx.AsyncClient(proxy=mesh.local.proxy_url, timeout=60.0, trust_env=False) as http:
        yield http


def at(instance: str) -> str:
    """Where an instance is."""
    return f"http://{instance}.novelist.mesh"


def other_than(instance: str) -> str:
    return next(each for each in INSTANCES if each != instance)


async def test_agents_are_called_by_a2a_and_their_tasks_outlive_them(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    program = agent("novelist", "novelist.py", journal.file, replicas=2, capabilities=["write"])
    async with running_mesh(manifest(program)) as mesh, into(mesh) as http:
        await _is_answered(http)
        await _goes_on_at_another_instance(http)
        await _is_cancelled_from_another_instance(http, journal, tmp_path / "never")
        await _is_told_to_a_receiver(http)
        await _is_ended_by_another_instance(mesh, http, journal, tmp_path / "gate")


async def _is_answered(http: httpx.AsyncClient) -> None:
    for binding in (JSONRPC, REST):
        speaker = await client(http, ANY, binding=binding)
        *_, artifact, end = await sent(speaker, said("hello"))
        assert state(end["statusUpdate"]) == "completed"
        data = artifact["artifactUpdate"]["artifact"]["parts"][0]["data"]
        assert data["text"] == "hello"
        assert data["caller"].startswith("spiffe://weft.local/operator/")


async def _goes_on_at_another_instance(http: httpx.AsyncClient) -> None:
    asked = await task(http, at("novelist-1"), said({"genre": "saga"}, skill="title"))
    assert state(asked) == "input-required"
    told = await task(http, at("novelist-2"), said("Njal", taskId=asked["id"]))
    assert told["artifacts"][-1]["parts"] == [{"text": "Njal: a saga"}]


async def _is_cancelled_from_another_instance(http: httpx.AsyncClient, journal: Journal, gate: Path) -> None:
    message = said({"name": "lost", "gate": str(gate)}, skill="hold")
    found = await task(http, at("novelist-1"), message, returnImmediately=True)
    await journal.has(lambda it: bool(it.of("hold")))
    worker = journal.of("hold")[0][1]
    ended = await result(http, at(other_than(worker)), "CancelTask", {"id": found["id"]})
    assert state(ended) == "canceled"
    await journal.has(lambda it: it.of("cancelled") == [["lost", worker]])


async def _is_told_to_a_receiver(http: httpx.AsyncClient) -> None:
    async with receiver() as hook:
        config = {"url": hook.url, "token": "secret"}
        await task(http, ANY, said("hello"), taskPushNotificationConfig=config)

        async def told() -> bool:
            return any(b"TASK_STATE_COMPLETED" in each.body for each in hook.received)

        await eventually(told, lambda: f"the receiver got {hook.received}")
        assert all(each.headers["x-a2a-notification-token"] == "secret" for each in hook.received)
        kinds = [next(iter(json.loads(each.body))) for each in hook.received]
        assert (kinds[0], kinds[-1]) == ("task", "statusUpdate")


async def _is_ended_by_another_instance(
    mesh: RunningMesh, http: httpx.AsyncClient, journal: Journal, gate: Path
) -> None:
    message = said({"name": "saga", "gate": str(gate)}, skill="chapters")
    found = await task(http, at("novelist-1"), message, returnImmediately=True)
    await journal.has(lambda it: len(it.of("chapters")) == 1)
    worker = journal.of("chapters")[0][1]
    survivor = at(other_than(worker))
    await _has_a_chapter(http, survivor, found["id"])
    subscribers = [await client(http, survivor) for _ in range(2)]
    hearing = [await subscriber(each, found["id"]) for each in subscribers]
    mesh.program(worker).kill()
    await journal.has(lambda it: len(it.of("chapters")) == 2)
    await asyncio.to_thread(gate.touch)
    first, second = await asyncio.gather(*hearing)
    assert state(first[-1]["statusUpdate"]) == "completed"
    assert first[1:] == second[1:]
    done: Json = await result(http, survivor, "GetTask", {"id": found["id"]})
    by = journal.of("chapters")[1][1]
    assert done["artifacts"][0]["parts"] == [{"text": f"one by {by}"}, {"text": f"two by {by}"}]


async def _has_a_chapter(http: httpx.AsyncClient, url: str, task_id: str) -> None:
    async def told() -> bool:
        return bool((await result(http, url, "GetTask", {"id": task_id})).get("artifacts"))

    await eventually(told, lambda: "no chapter was told")
