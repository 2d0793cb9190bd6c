"""The same small day at whichever broker: retries, dead letters, delays, events; who knows its password."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from tests.e2e.meshes import RunningMesh, eventually
from tests.e2e.messaging_mesh import Caller, Journal, agent, document

from weft import Denied
from weft.local.control import ControlApi
from weft.local.messaging_control import MessagingApi
from weft.model.operator import Scope

QUEUE = "research"
DELAY = 1.5


def broker(kind: str, url: str, password: str, **more: Any) -> list[str]:
    """The resources that say where topics and queues are."""
    secret = {"secret": "broker", "key": "password"}
    return [
        document("Secret", "broker", data={"password": password}),
        document("Broker", "default", type=kind, url=url, password=secret, **more),
    ]


def stage(journal: Journal, directory: Path, *, porters: int = 1, **porter: Any) -> list[str]:
    """A queue, a topic, and two types of agents that use them: one on the SDK, one without."""
    backoff = {"initial": "100ms", "longest": "200ms"}
    return [
        document("Queue", QUEUE, visibilityTimeout="2s", maxDeliveries=2, backoff=backoff),
        document("Topic", "orders", visibilityTimeout="2s", backoff=backoff),
        agent("scribe", "scribe.py", journal.file, QUEUE, "--", "orders"),
        agent(
            "porter",
            "porter.py",
            journal.file,
            directory,
            replicas=porters,
            events=[{"topic": "orders"}],
            **porter,
        ),
    ]


async def a_day_at_the_broker(mesh: RunningMesh, caller: Caller, journal: Journal) -> None:
    """Tasks fail, wait and succeed, and events reach everybody, as they should."""
    api = MessagingApi(mesh.api)
    late = await caller.submit(QUEUE, {"number": 1}, delay=DELAY)
    again = await caller.submit(QUEUE, {"number": 2, "fail": 1})
    never = await caller.submit(QUEUE, {"number": 3, "fail": 99})
    answer = await caller.http.post("/v1/topics/orders.new", json=17)
    assert answer.status_code == 202, answer.text

    assert (await caller.task(late))["state"] == "queued"
    assert (await caller.ended(again))["result"] == {"number": 2, "attempt": 2}
    failed = await caller.ended(never)
    assert (failed["state"], failed["attempts"], failed["error"]["code"]) == ("failed", 2, "agent-failed")

    async def set_aside() -> bool:
        letters = await api.peek(QUEUE, dead=True, limit=10)
        return [(each["id"], each["reason"].split(":")[0]) for each in letters] == [(never, "agent-failed")]

    await eventually(set_aside, lambda: "the failed task is not among the dead letters")
    assert await api.redrive(QUEUE, [never]) == 1

    async def tried_anew() -> bool:
        return journal.counts("task")["3"] == 4

    await eventually(tried_anew, lambda: "what was put back was not tried anew")
    done = await caller.ended(late)
    assert done["result"] == {"number": 1, "attempt": 1}
    waited = datetime.fromisoformat(done["startedAt"]) - datetime.fromisoformat(done["submittedAt"])
    assert waited.total_seconds() >= DELAY
    await journal.has(lambda told: {*told.counts("event")} == {"scribe", "porter"})
    assert [each[1] for each in journal.of("event")] == ["17", "17"]


async def password_is_nowhere(mesh: RunningMesh, password: str) -> None:
    """Nobody who must not know it can read the broker's password: in logs, arguments, answers, errors."""
    files = [each for each in mesh.home.rglob("*") if each.is_file()]
    holding = await asyncio.to_thread(
        lambda: [each for each in files if password.encode() in each.read_bytes()]
    )
    assert holding == []
    assert [each for each in _family(mesh) if password in str(each.cmdline())] == []
    token = (await mesh.api.make_token("looker", Scope.VIEWER, 600.0))["token"]
    roots = mesh.home / "bundle.pem"
    async with ControlApi(mesh.local.api_url, token=token, roots=roots) as viewer:
        told = [
            *(await viewer.resources("brokers")),
            *(await viewer.resources("secrets")),
            *(await MessagingApi(viewer).queues()),
            *(await MessagingApi(viewer).topics()),
        ]
        try:
            told.append(await viewer.ask("GET", "/v1/broker"))
            raise AssertionError("a viewer is told how to get into the broker")
        except Denied as error:
            told.append({"error": error.detail})
    assert "default" in str(told)
    assert password not in str(told)
    assert password not in str(await mesh.api.audit(500))


def _family(mesh: RunningMesh) -> list[psutil.Process]:
    children = [mesh.process(name) for name in mesh.local.children]
    return [*children, *(descendant for each in children for descendant in each.children(recursive=True))]
