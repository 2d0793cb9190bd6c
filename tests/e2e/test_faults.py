"""What callers notice when processes of the mesh die, freeze or stop, under a steady load.

A call with an Idempotency-Key must not fail. One without may, where its agent or the way to it broke midway:
it may have been processed, so nobody may repeat it. Such a call fails with Interrupted, and ran at most once.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from tests.e2e.load import Journal, check, load
from tests.e2e.meshes import RunningMesh, gone, mesh_client, running_mesh
from tests.integration.sidecar_process import eventually

from weft import Interrupted, Mesh

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORKERS = ("worker-1", "worker-2", "worker-3")


def manifest(journal: Path, replicas: int = 3) -> str:
    """Three workers whose health is checked often, and a policy that does not wait long for a frozen one."""
    return f"""
apiVersion: weft.dev/v1alpha1
kind: Agent
metadata: {{name: worker}}
spec:
  capabilities: [labour]
  health: {{interval: 200ms, timeout: 500ms, unhealthyThreshold: 2}}
  drainTimeout: 10s
  run:
    command: [{sys.executable}, worker.py, {journal}]
    replicas: {replicas}
---
apiVersion: weft.dev/v1alpha1
kind: TrafficPolicy
metadata: {{name: worker}}
spec:
  target: {{type: worker}}
  retries: {{attempts: 5, perTryTimeout: 1s}}
"""


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Journal:
    return Journal(tmp_path_factory.mktemp("journal") / "executions")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(journal: Journal) -> AsyncIterator[RunningMesh]:
    async with running_mesh(manifest(journal.path)) as mesh:
        yield mesh


@pytest_asyncio.fixture(loop_scope="module")
async def client(shared: RunningMesh) -> AsyncIterator[Mesh]:
    async with mesh_client(shared) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def mesh(shared: RunningMesh, client: Mesh) -> RunningMesh:
    """The mesh, with all of its workers back at work after the test before."""
    async with load(client) as calls:
        await calls.reaches(*WORKERS)
    return shared


@contextmanager
def frozen(*processes: psutil.Process) -> Iterator[None]:
    """Within the context the processes are stopped: their connections stay open, nobody answers."""
    try:
        for each in processes:
            each.suspend()
        yield
    finally:
        for each in processes:
            each.resume()


@dataclass
class HeldCall:
    """A call that an agent has begun, and will answer once it is released."""

    call: str
    instance: str
    """Who has begun it."""
    answer: asyncio.Task[str]
    gate: Path

    def release(self) -> None:
        """Let whoever executes the call answer it."""
        self.gate.touch()


@asynccontextmanager
async def held_call(
    client: Mesh, to: str, journal: Journal, directory: Path, *, keyed: bool = False
) -> AsyncIterator[HeldCall]:
    """A call under way; an agent is executing it."""
    call, gate = uuid.uuid4().hex, directory / "gate"
    key = call if keyed else None
    request = client.request(to, "hold", call=call, gate=str(gate), idempotency_key=key, result_type=str)
    task = asyncio.create_task(request)
    try:
        await eventually(lambda: task.done() or call in journal.executions(), lambda: "nobody began the call")
        yield HeldCall(call, journal.executions()[call][0], task, gate)
    finally:
        gate.touch()
        task.cancel()
        await asyncio.wait({task})


async def test_a_killed_agent_costs_only_calls_it_had_begun(
    mesh: RunningMesh, client: Mesh, journal: Journal
) -> None:
    async with load(client) as calls:
        mesh.program("worker-1").kill()
        await calls.goes_on()
    check(calls, journal)


async def test_a_killed_sidecar_and_its_envoy_cost_only_calls_they_had_begun(
    mesh: RunningMesh, client: Mesh, journal: Journal
) -> None:
    async with load(client) as calls:
        program, sidecar, envoy = mesh.program("worker-2"), mesh.process("worker-2"), mesh.envoy("worker-2")
        sidecar.kill()
        envoy.kill()
        await gone(program)
        await calls.goes_on()
    check(calls, journal)


async def test_a_killed_envoy_of_an_agent_costs_only_calls_it_had_begun(
    mesh: RunningMesh, client: Mesh, journal: Journal
) -> None:
    async with load(client) as calls:
        mesh.envoy("worker-3").kill()
        await calls.goes_on()
        await calls.reaches("worker-3")
    check(calls, journal)


async def test_a_killed_envoy_of_the_caller_costs_only_calls_it_had_begun(
    mesh: RunningMesh, client: Mesh, journal: Journal
) -> None:
    async with load(client) as calls:
        mesh.envoy("door").kill()
        await calls.goes_on()
    check(calls, journal)


async def test_a_frozen_agent_costs_no_call_and_gets_no_more_of_them(
    mesh: RunningMesh, client: Mesh, journal: Journal
) -> None:
    async with load(client) as calls:
        with frozen(mesh.program("worker-1")):
            await mesh.becomes("worker", "worker-1", "unhealthy")
            keyed = len(calls.keyed.answers)
            await calls.until(lambda: len(calls.keyed.answers) > keyed + 40)
        await calls.reaches("worker-1")
    check(calls, journal, may_break=False)


async def test_a_frozen_machine_costs_no_call_with_a_key(
    mesh: RunningMesh, client: Mesh, journal: Journal
) -> None:
    async with load(client) as calls:
        with frozen(mesh.process("worker-2"), mesh.envoy("worker-2"), mesh.program("worker-2")):
            await mesh.becomes("worker", "worker-2", "gone")
            keyed = len(calls.keyed.answers)
            await calls.until(lambda: len(calls.keyed.answers) > keyed + 40)
        await calls.reaches("worker-2")
    check(calls, journal)


async def test_without_the_control_plane_calls_go_on_and_it_catches_up_when_it_is_back(
    mesh: RunningMesh, client: Mesh, journal: Journal
) -> None:
    async with load(client) as calls:
        mesh.process("control").kill()
        await mesh.notices("control")
        await calls.goes_on()
        await mesh.ready("control")
        await mesh.replace("worker-1")
        await calls.reaches(*WORKERS)
    check(calls, journal, may_break=False)


async def test_without_nats_calls_go_on_and_registrations_come_back(
    mesh: RunningMesh, client: Mesh, journal: Journal
) -> None:
    async with load(client) as calls:
        mesh.process("nats").kill()
        await mesh.notices("nats")
        await calls.goes_on()
        await mesh.replace("worker-1")
        await calls.reaches(*WORKERS)
    check(calls, journal, may_break=False)


async def test_a_drained_agent_finishes_and_loses_no_call(
    mesh: RunningMesh, client: Mesh, journal: Journal, tmp_path: Path
) -> None:
    async with load(client) as calls, held_call(client, "worker-1.worker", journal, tmp_path) as held:
        mesh.process("worker-1").terminate()
        await mesh.becomes("worker", "worker-1", "draining")
        await calls.goes_on()
        held.release()
        assert await held.answer == "worker-1"
        await calls.goes_on()
    check(calls, journal, may_break=False)


async def test_scaling_down_and_up_again_loses_no_call(
    mesh: RunningMesh, client: Mesh, journal: Journal
) -> None:
    async with load(client) as calls:
        await mesh.apply(manifest(journal.path, replicas=1))
        # One that is still stopping keeps its name: the next would be worker-4.
        await mesh.ended("worker-2")
        await mesh.ended("worker-3")
        await calls.goes_on()
        await mesh.apply(manifest(journal.path))
        await calls.reaches(*WORKERS)
    check(calls, journal, may_break=False)


async def test_a_call_whose_agent_dies_midway_is_never_executed_twice(
    mesh: RunningMesh, client: Mesh, journal: Journal, tmp_path: Path
) -> None:
    async with held_call(client, "worker", journal, tmp_path) as held:
        mesh.program(held.instance).kill()
        with pytest.raises(Interrupted, match="Idempotency-Key"):
            await held.answer
        held.release()
    async with load(client) as calls:
        await calls.reaches(*WORKERS)
    assert journal.executions()[held.call] == [held.instance]


async def test_a_call_with_a_key_whose_agent_dies_midway_is_answered_by_another(
    mesh: RunningMesh, client: Mesh, journal: Journal, tmp_path: Path
) -> None:
    async with held_call(client, "labour.cap", journal, tmp_path, keyed=True) as held:
        mesh.program(held.instance).kill()
        await eventually(lambda: len(journal.executions()[held.call]) == 2, lambda: "it was not repeated")
        held.release()
        answer = await held.answer
    first, second = journal.executions()[held.call]
    assert answer == second != first
