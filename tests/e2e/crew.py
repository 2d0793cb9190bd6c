"""A mesh of agents that know nothing of Weft, and whose answers tell everything: for tests of routing."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tests.e2e.leftovers import Scope, scope
from tests.e2e.meshes import PROGRAMS, eventually
from tests.integration.sidecar_process import LIMIT
from tests.processes import Core, Program, core

WORKERS = {
    "w-1": ("--version=1", "--weight=1"),
    "w-2": ("--version=1", "--weight=2"),
    "w-3": ("--version=2", "--weight=5"),
}
"""The instances of type `worker`, and how they differ."""


@dataclass
class Member:
    """One instance: its sidecar, and the directory through which its behaviour is changed."""

    sidecar: Program
    state: Path

    def seen(self) -> list[str]:
        """The requests it got, as in `GET /path`."""
        file = self.state / "seen"
        return file.read_text().splitlines() if file.exists() else []

    @contextmanager
    def set(self, name: str, text: str = "") -> Iterator[None]:
        """Within the context, have a file `name` in its state directory."""
        file = self.state / name
        draft = file.with_suffix(".new")
        draft.write_text(text)
        draft.rename(file)
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


class Crew:
    """A running mesh with its members."""

    def __init__(self, mesh: Core, inside: Scope, ends: ExitStack) -> None:
        self.core = mesh
        self.scope = inside
        self.members: dict[str, Member] = {}
        self._ends = ends

    def prepare(self, name: str, *arguments: str) -> Member:
        """One more instance, yet to be started."""
        state = self.core.directory / f"state-{name}"
        state.mkdir(exist_ok=True)
        command = (sys.executable, str(PROGRAMS / "foreign_agent.py"), str(state))
        times = ("--health-interval=0.2", "--drain-grace=0")
        return Member(self.core.sidecar(name, *arguments, *times, command=command), state)

    def join(self, ends: ExitStack, name: str, *arguments: str) -> Member:
        """Start one more instance; it stops when `ends` is closed."""
        member = self.prepare(name, *arguments)
        ends.callback(member.sidecar.stop)
        member.sidecar.start()
        return member

    def client(self, port: int | None = None) -> httpx.AsyncClient:
        """An ordinary HTTP client that knows a proxy (the door, or the one at `port`) and nothing of Weft."""
        proxy = f"http://127.0.0.1:{port or self.core.ports.proxy}"
        return httpx.AsyncClient(proxy=proxy, trust_env=False, timeout=LIMIT, verify=False)


async def answers(client: httpx.AsyncClient, url: str, *names: str) -> None:
    """Wait until calls to `url` have been answered by each of the instances `names`."""
    missing = {*names}

    async def none_missing() -> bool:
        # A different value each time, so that a consistent hash finds all of them, too.
        response = await client.get(url, headers={"x-user": str(next(_numbers))})
        if response.status_code == 200:
            missing.discard(response.json()["instance"])
        return not missing

    await eventually(none_missing, lambda: f"{missing} never answered at {url}", pause=0.02)


_numbers = itertools.count()


async def tally(
    client: httpx.AsyncClient, url: str, calls: int, *, at_once: int = 1, **options: Any
) -> Counter[str]:
    """How many of `calls` each instance answered; all of them must be answered with 200."""
    found: Counter[str] = Counter()
    numbers = iter(range(calls))

    async def caller() -> None:
        for _ in numbers:
            response = await client.get(url, **options)
            assert response.status_code == 200, response.text
            found[response.json()["instance"]] += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(caller())
    return found


def problem(response: httpx.Response) -> tuple[int, str]:
    """The status of a problem and its code, which header and body must agree on."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    body = response.json()
    assert body["status"] == response.status_code
    assert body["type"] == f"urn:weft:problem:{response.headers['x-weft-error']}"
    assert body["detail"]
    return response.status_code, response.headers["x-weft-error"]


@contextmanager
def running_crew(directory: Path, manifest: str) -> Iterator[Crew]:
    """Core and workers and a `shadow`, with `manifest` applied. At its end nothing is left over."""
    with scope() as inside:
        with core(directory, inside.environ, lease_ttl=3.0) as mesh, ExitStack() as ends:
            crew = Crew(mesh, inside, ends)
            with asyncio.Runner() as runner:
                runner.run(_start(crew, ends, manifest))
            inside.note_ports()
            yield crew
            inside.note_ports()
        with asyncio.Runner() as runner:
            runner.run(inside.check_empty())


async def _start(crew: Crew, ends: ExitStack, manifest: str) -> None:
    await crew.core.start()
    async with crew.core.api() as api:
        await api.apply(manifest, "test.yaml")
    capabilities = [f"--capability={each}" for each in CAPABILITIES]
    for name, arguments in WORKERS.items():
        crew.members[name] = crew.join(ends, name, "--type=worker", *capabilities, *arguments)
    crew.members["s-1"] = crew.join(ends, "s-1", "--type=shadow")
    async with crew.client() as client:
        await answers(client, "http://shadow.mesh/", "s-1")
        for each in CAPABILITIES:
            await answers(client, f"http://{each}.cap.mesh/", *WORKERS)


def _policy(name: str, settings: str) -> str:
    return f"""
apiVersion: weft.dev/v1alpha1
kind: TrafficPolicy
metadata: {{name: {name}}}
spec: {{target: {{capability: {name}}}, {settings}}}
"""


POLICIES = {
    "evenly": "loadBalancing: {policy: roundRobin}",
    "least": "loadBalancing: {policy: leastConnections}",
    "weighted": "loadBalancing: {policy: weighted}",
    "random": "loadBalancing: {policy: random}",
    "hashed": "loadBalancing: {policy: consistentHash, hashOn: {header: x-user}}",
    "gently": "loadBalancing: {policy: roundRobin, slowStart: 30s}",
    "strict": "outlierDetection: {consecutiveFailures: 3, interval: 100ms, ejectionTime: 5m}",
    "narrow": "circuitBreaker: {maxRequests: 1}",
    "brief": "timeout: 500ms, idleTimeout: 1500ms",
    "once": "retries: {attempts: 0}",
    "sticky": "loadBalancing: {policy: roundRobin, contextAffinity: true}",
}
"""A capability for every policy, all of them of the same workers."""

CAPABILITIES = tuple(POLICIES)

_OF_WORKERS = """
apiVersion: weft.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: worker}
spec: {target: {type: worker}, loadBalancing: {contextAffinity: true}}
"""

MANIFEST = "---".join([_OF_WORKERS, *(_policy(*each) for each in POLICIES.items())])
