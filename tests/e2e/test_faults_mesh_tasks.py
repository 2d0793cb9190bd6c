"""Tasks in a whole mesh whose gateways, sidecars, Envoys, agents and NATS are killed at random."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from tests.e2e.meshes import RunningMesh, eventually, running_mesh
from tests.e2e.messaging_mesh import Journal, agent, api_key, document, manifest

from weft.aio.poll import until
from weft.aio.ports import reserve_port
from weft.errors import MeshError
from weft.local.messaging_control import MessagingApi

QUEUE = "research"
TASKS = int(os.environ.get("WEFT_CHAOS_MESH_TASKS", "120"))
KILLINGS = max(7, TASKS // 100)
"""Of each kind at least one."""
SEED = int(os.environ.get("WEFT_CHAOS_SEED", str(random.randrange(1_000_000))))
LIMIT = 250.0 + TASKS

WORKERS = ("scribe-1", "scribe-2", "porter-1", "porter-2")
GATEWAYS = ("public-1", "public-2")
ENDS = {"succeeded", "failed"}


def fails(number: int) -> bool:
    """Whether every attempt at the task of that number fails."""
    return number % 50 == 7


class Customer:
    """Submits tasks at the gateway until each is taken."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self._url = url
        self._headers = headers
        self.promised: dict[int, str] = {}
        self.refusals: Counter[str] = Counter()

    async def submit_all(self) -> None:
        """Submit everything, some at once."""
        numbers = iter(range(TASKS))

        async def some() -> None:
            for number in numbers:
                await until(partial(self._submit, number), first=0.2)

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(some())

    async def _submit(self, number: int) -> bool:
        given = {"number": number, **({"fail": 99, "status": 500} if fails(number) else {})}
        headers = {**self._headers, "idempotency-key": str(number)}
        try:
            # Every connection anew: the gateways share the port, and either may be dead.
            async with httpx.AsyncClient(trust_env=False, timeout=15.0) as http:
                answer = await http.post(
                    f"{self._url}/v1/tasks", json={"queue": QUEUE, "payload": given}, headers=headers
                )
        except httpx.HTTPError as error:
            self.refusals[type(error).__name__] += 1
            return False
        if answer.status_code == 202:
            self.promised[number] = answer.json()["id"]
            return True
        # Envoy says so, too, while the process behind it is away.
        self.refusals[f"{answer.status_code} {answer.headers.get('x-weft-error')}"] += 1
        assert answer.status_code in {401, 502, 503, 504}, answer.text
        return False


async def _kill(mesh: RunningMesh, journal: Journal, done: Counter[str]) -> None:
    """Kill something now and then, while it gets on."""
    chance = random.Random(SEED)
    deeds: list[tuple[str, Callable[[], psutil.Process]]] = [
        ("nats", lambda: mesh.process("nats")),
        ("worker's sidecar", lambda: mesh.process(chance.choice(WORKERS))),
        ("worker's envoy", lambda: mesh.envoy(chance.choice(WORKERS))),
        ("worker's program", lambda: mesh.program(chance.choice(WORKERS))),
        ("gateway's sidecar", lambda: mesh.process(chance.choice(GATEWAYS))),
        ("gateway's envoy", lambda: mesh.envoy(chance.choice(GATEWAYS))),
        ("gateway's program", lambda: mesh.program(chance.choice(GATEWAYS))),
    ]
    chosen = deeds + chance.choices(deeds[1:], k=KILLINGS - len(deeds))
    chance.shuffle(chosen)
    for number, (name, victim) in enumerate(chosen):
        enough = (number + 1) * TASKS // (KILLINGS + 2)

        async def got_on(enough: int = enough) -> bool:
            return len(journal.counts("task")) >= enough

        await until(got_on)
        # It may be dead already, or not up again.
        with suppress(psutil.NoSuchProcess, AssertionError, ValueError, KeyError):
            victim().kill()
            done[name] += 1


@pytest.mark.timeout(LIMIT + 60)
async def test_every_promised_task_has_one_end_whatever_of_the_mesh_is_killed(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    print(f"WEFT_CHAOS_SEED={SEED}")
    journal = Journal(tmp_path / "journal")
    with reserve_port("127.0.0.1") as reserved:
        port = reserved.port
    backoff = {"initial": "100ms", "longest": "500ms"}
    declared = manifest(
        document("Queue", QUEUE, visibilityTimeout="3s", maxDeliveries=6, concurrency=4, backoff=backoff),
        document("Gateway", "public", port=port, replicas=2, rate={"requests": 100000}),
        agent("scribe", "scribe.py", journal.file, QUEUE, "--", replicas=2),
        agent("porter", "porter.py", journal.file, tmp_path, replicas=2, tasks=[{"queue": QUEUE}]),
    )
    done: Counter[str] = Counter()
    async with running_mesh(declared) as mesh, asyncio.timeout(LIMIT):
        api = MessagingApi(mesh.api)
        customer = Customer(f"http://127.0.0.1:{port}", await api_key(mesh, "public", "customer"))
        async with asyncio.TaskGroup() as group:
            group.create_task(customer.submit_all())
            group.create_task(_kill(mesh, journal, done))
        ends = await _ends(api, customer.promised)
        await eventually(lambda: _is_empty(api), lambda: "the queue is never empty", limit=60.0)
        letters = {each["id"]: each["reason"] for each in await api.peek(QUEUE, dead=True, limit=1000)}
    for number, task_id in customer.promised.items():
        task = ends[task_id]
        if task["state"] == "succeeded":
            assert task["result"]["number"] == number
            assert not fails(number)
            assert task_id not in letters
        else:
            assert letters[task_id].startswith(f"{task['error']['code']}: "), letters[task_id]
    begun = journal.counts("task")
    figures = {
        "tasks": len(ends),
        "dead": len(letters),
        "collateral": sum(each["state"] == "failed" for each in ends.values())
        - sum(map(fails, customer.promised)),
        "repeated": sum(max(0, begun[str(number)] - (6 if fails(number) else 1)) for number in range(TASKS)),
        "refusals": dict(customer.refusals),
        "killed": dict(done),
    }
    print(figures)
    for name, value in figures.items():
        record_property(name, value)
    assert len(ends) == TASKS
    assert figures["collateral"] == 0


async def _ends(api: MessagingApi, promised: dict[int, str]) -> dict[str, dict[str, Any]]:
    """All tasks once they have ended."""
    found: dict[str, dict[str, Any]] = {}

    async def over() -> bool:
        for task_id in promised.values():
            if task_id in found:
                continue
            try:
                task = await api.task(task_id)
            except MeshError:
                return False
            if task["state"] not in ENDS:
                return False
            found[task_id] = task
        return True

    await until(over)
    return found


async def _is_empty(api: MessagingApi) -> bool:
    status = await api.queue(QUEUE)
    return not status["ready"] + status["inFlight"] + status["delayed"]
