"""What tests of queues, topics and gateways in whole meshes share: manifests, journals, ways in."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from tests.e2e.meshes import RunningMesh, eventually

from weft import Mesh
from weft.local.messaging_control import MessagingApi
from weft.sdk.membership import join_as_program
from weft.sdk.transport import HttpTransport

LIMIT = 60.0
"""Seconds in which anything waited for happens."""

ENDS = frozenset({"succeeded", "failed", "cancelled"})
"""States in which a task stays."""


def document(kind: str, name: str, **spec: Any) -> str:
    """A resource."""
    resource = {"apiVersion": "weft.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    return json.dumps(resource) + "\n"


def manifest(*documents: str) -> str:
    """A manifest of these resources."""
    return "---\n".join(documents)


def agent(name: str, program: str, *arguments: object, replicas: int = 1, **spec: Any) -> str:
    """An Agent whose instances are a program of this directory; checked often, so that tests are quick.

    One late check does not make it unhealthy: on a busy machine that would put a sole instance out of reach.
    """
    command = [sys.executable, program, *map(str, arguments)]
    health = {"interval": "300ms"}
    run = {"command": command, "replicas": replicas}
    return document("Agent", name, run=run, health=health, drainTimeout="10s", **spec)


def allow(name: str, caller: str, *actions: str, **target: str) -> str:
    """An AccessPolicy by which agents of type `caller` may do these things to something."""
    return document(
        "AccessPolicy",
        name,
        effect="allow",
        to=[target],
        **{"from": [{"type": caller}]},
        **({"rules": [{"actions": actions}]} if actions else {}),
    )


class Journal:
    """A file in which agents write down what they do: lines of words, the first of which says what."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def of(self, what: str) -> list[list[str]]:
        """The other words of all lines that begin with `what`."""
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        return [words[1:] for each in lines if (words := each.split()) and words[0] == what]

    def counts(self, what: str, place: int = 0) -> Counter[str]:
        """How many lines that begin with `what` have which word after it, or at a later `place`."""
        return Counter(each[place] for each in self.of(what))

    async def has(self, holds: Callable[[Journal], bool]) -> None:
        """Wait until `holds` is true of it."""

        async def written() -> bool:
            return holds(self)

        def otherwise() -> str:
            return f"the journal never came to it:\n{self.file.read_text() if self.file.exists() else ''}"

        await eventually(written, otherwise)


@asynccontextmanager
async def acting_as(environ: Mapping[str, str]) -> AsyncIterator[Mesh]:
    """The SDK's client in the place of the program that has this environment: its way out, its identity."""
    transport = HttpTransport(environ["WEFT_PROXY"])
    async with Mesh(transport=transport, joining=partial(join_as_program, transport, environ)) as mesh:
        yield mesh


async def ended(api: MessagingApi, task_id: str) -> dict[str, Any]:
    """The task once it has ended."""
    task: dict[str, Any] = {}

    async def over() -> bool:
        task.update(await api.task(task_id))
        return task["state"] in ENDS

    await eventually(over, lambda: f"it never ended: {task}")
    return task


class Caller:
    """Somebody outside the mesh, at a gateway."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def submit(self, queue: str, payload: Any, **more: Any) -> str:
        """Put a task into a queue; its id."""
        answer = await self.http.post("/v1/tasks", json={"queue": queue, "payload": payload, **more})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    async def task(self, task_id: str) -> dict[str, Any]:
        """How a task stands."""
        answer = await self.http.get(f"/v1/tasks/{task_id}")
        return dict(answer.raise_for_status().json())

    async def ended(self, task_id: str) -> dict[str, Any]:
        """The task once it has ended."""
        task: dict[str, Any] = {}

        async def over() -> bool:
            task.update(await self.task(task_id))
            return task["state"] in ENDS

        await eventually(over, lambda: f"it never ended: {task}")
        return task


async def api_key(mesh: RunningMesh, gateway: str, name: str, **rights: Any) -> dict[str, str]:
    """A new key of a gateway, as the header that shows it; its instances know it a moment later."""
    created = await MessagingApi(mesh.api).create_key(gateway, {"name": name, **rights})
    return {"x-api-key": created["key"]}


@asynccontextmanager
async def calling(
    url: str, headers: Mapping[str, str] | None = None, **options: Any
) -> AsyncIterator[Caller]:
    """A caller from outside, with one connection that is kept."""
    limits = httpx.Limits(max_connections=1, keepalive_expiry=None)
    async with httpx.AsyncClient(
        base_url=url, headers=headers, limits=limits, trust_env=False, timeout=LIMIT, **options
    ) as http:
        yield Caller(http)
