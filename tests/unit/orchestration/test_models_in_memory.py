"""Models in a mesh in memory: agents and models at one task, without a sidecar."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from tests.unit.orchestration.crew import LIMIT, Crew

from weft import AgentFailed, Interrupted, InvalidRequest, NoSuchAgent, TimedOut, Unavailable
from weft.aio.poll import until
from weft.orchestration import Branch, Step, coordinate
from weft.testing import InMemoryMesh, SimulatedLLM


@pytest.fixture(scope="module")
def provider() -> Iterator[SimulatedLLM]:
    with SimulatedLLM(first_token="0ms", tokens_per_second=0, answer_tokens=6) as llm:
        yield llm


@pytest.fixture
async def mesh(provider: SimulatedLLM) -> AsyncIterator[InMemoryMesh]:
    async with InMemoryMesh(models=provider.url) as mesh:
        yield mesh


@pytest.mark.parametrize("stream", [False, True])
async def test_agents_and_models_work_at_one_task(mesh: InMemoryMesh, crew: Crew, stream: bool) -> None:
    mesh.add(crew.agent("ann"))
    model = Branch(model="sim", stream=stream)
    outcome = await coordinate("add", ["ann", model], mesh=mesh.client, synthesis=model)
    assert outcome.answers[0] == "ann: add"
    assert "simulated" in outcome.answers[1]
    assert outcome.value


async def test_a_provider_s_error_is_the_model_s(mesh: InMemoryMesh) -> None:
    branches: list[Step] = [Branch(model="sim"), Branch(model="sim", stream=True), len]
    outcome = await coordinate("[[sim fail=500]]", branches, mesh=mesh.client)
    assert [type(each.error) for each in outcome.failures] == [AgentFailed, AgentFailed]


async def test_a_provider_that_breaks_off_is_one_that_breaks_off_here(mesh: InMemoryMesh) -> None:
    outcome = await coordinate(
        "[[sim break-after=3]]", [Branch(model="sim", stream=True), len], mesh=mesh.client
    )
    assert isinstance(outcome.failures[0].error, Interrupted)


async def test_a_model_that_nobody_waits_for_is_left(mesh: InMemoryMesh, provider: SimulatedLLM) -> None:
    slow = Branch(model="sim", timeout=0.5)
    outcome = await coordinate("[[sim first-token=60s]]", [slow, len], mesh=mesh.client)
    assert isinstance(outcome.failures[0].error, TimedOut)

    async def left() -> bool:
        return bool(provider.stats()["inFlight"] == 0)

    async with asyncio.timeout(LIMIT):
        await until(left)


async def test_without_models_there_are_none_and_where_nobody_listens_neither() -> None:
    async with InMemoryMesh() as mesh:
        outcome = await coordinate("add", [Branch(model="sim"), len], mesh=mesh.client)
        assert isinstance(outcome.failures[0].error, NoSuchAgent)
    async with InMemoryMesh(models="http://127.0.0.1:1/v1") as mesh:
        outcome = await coordinate("add", [Branch(model="sim", timeout=1), len], mesh=mesh.client)
        assert isinstance(outcome.failures[0].error, Unavailable | TimedOut)
    with pytest.raises(InvalidRequest, match="models are at a URL"):
        InMemoryMesh(models="llm")
