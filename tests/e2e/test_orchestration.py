"""An orchestration in a real mesh: a worker that is killed, and an end that ends all of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.e2e.meshes import RunningMesh, eventually, mesh_client, running_mesh
from tests.e2e.messaging_mesh import Journal, agent, document, manifest

from weft import RateLimited, TimedOut
from weft.local.messaging_control import MessagingApi
from weft.orchestration import Branch, coordinate
from weft.testing import SimulatedLLM

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(200)]


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Journal:
    return Journal(tmp_path_factory.mktemp("orchestration") / "journal")


@pytest.fixture(scope="module")
def provider() -> Iterator[SimulatedLLM]:
    with SimulatedLLM(first_token="0ms", tokens_per_second=0, answer_tokens=6) as llm:
        yield llm


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(journal: Journal, provider: SimulatedLLM) -> AsyncIterator[RunningMesh]:
    declared = manifest(
        document("ModelPool", "sim", providers=[{"name": "own", "url": provider.url}]),
        document("Queue", "work", visibilityTimeout="3s", maxDeliveries=3, backoff={"initial": "100ms"}),
        agent("lead", "lead.py", "lead", journal.file),
        agent("hand", "lead.py", "hand", journal.file, replicas=2),
    )
    async with running_mesh(declared) as mesh:
        yield mesh


async def test_a_worker_that_is_killed_costs_the_branches_it_had_directly_but_not_that_in_the_queue(
    mesh: RunningMesh, journal: Journal, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    async with mesh_client(mesh) as client:
        run = asyncio.create_task(
            client.request("lead", "orchestrate", number=1, gate=str(gate), calls=2, timeout=100)
        )
        await journal.has(lambda seen: len(seen.of("begun")) == 3)
        begun = {tuple(words[:2]): words[2] for words in journal.of("begun") if words[0] == "task"}
        victim = begun["task", "1"]
        lost = [words for words in journal.of("begun") if words[0] == "call" and words[2] == victim]
        mesh.program(victim).kill()
        await journal.has(lambda seen: len([words for words in seen.of("begun") if words[0] == "task"]) == 2)
        gate.touch()
        outcome = await run

    assert outcome["answers"]["task"] == "task 1"
    assert set(outcome["errors"].values()) <= {"interrupted"}
    assert len(outcome["errors"]) == len(lost)
    assert len(outcome["answers"]) + len(outcome["errors"]) == 3
    ran = [words[2] for words in journal.of("begun") if words[0] == "task"]
    assert outcome["worker"] == f"{ran[-1]}.hand"
    await mesh.ready(victim)
    await mesh.becomes("hand", victim, "healthy")


async def test_when_who_asked_goes_away_all_branches_end_that_in_the_queue_too(
    mesh: RunningMesh, journal: Journal, tmp_path: Path
) -> None:
    def of(what: str) -> list[list[str]]:
        return [words for words in journal.of(what) if words[1] == "2"]

    async with mesh_client(mesh) as client:
        never = str(tmp_path / "never")
        run = asyncio.create_task(
            client.request("lead", "orchestrate", number=2, gate=never, calls=3, timeout=100)
        )
        await journal.has(lambda _: len(of("begun")) == 4)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

    await journal.has(lambda _: sorted(words[0] for words in of("broken-off")) == ["call"] * 3 + ["task"])
    api = MessagingApi(mesh.api)

    async def cancelled() -> bool:
        states = [each["state"] for each in await api.tasks("work", state=None, limit=10)]
        return sorted(states) == ["cancelled", "succeeded"]

    await eventually(cancelled, lambda: "the task was not cancelled")


async def test_each_branch_that_is_a_model_keeps_to_its_own_budget_and_deadline_and_all_to_theirs(
    mesh: RunningMesh,
) -> None:
    async with mesh_client(mesh) as client:
        poor = Branch(model="sim", budget="10 tokens", name="poor")
        slow = Branch(model="sim", timeout=2.0, name="slow")
        rich = Branch(model="sim", budget="5000 tokens", max_tokens=20, name="rich", stream=True)
        told = "[[sim first-token=60s]] Hello"

        outcome = await coordinate("Hello", [poor, rich], mesh=client, budget="9000 tokens")
        late = await coordinate(told, [slow, len], mesh=client)
        none_left = await coordinate("Hello", [rich, len], mesh=client, budget="10 tokens")

    [refused] = outcome.failures
    assert refused.branch.label == "poor"
    assert isinstance(refused.error, RateLimited)
    assert "budget" in refused.error.detail
    assert "simulated" in outcome.value[0]
    assert isinstance(late.failures[0].error, TimedOut)
    assert isinstance(none_left.failures[0].error, RateLimited)
