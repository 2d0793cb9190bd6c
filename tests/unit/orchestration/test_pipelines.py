"""One after another: each stage gets what the one before it made."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.orchestration.crew import Crew

from weft import AgentFailed, InvalidRequest, TimedOut
from weft.orchestration import Branch, BranchResult, Outcome, pipeline
from weft.testing import InMemoryMesh


async def test_each_stage_gets_what_the_one_before_it_made(mesh: InMemoryMesh, crew: Crew) -> None:
    mesh.add(crew.agent("ann"))
    mesh.add(crew.agent("ben"))

    outcome = await pipeline("add", ["ann", str.upper, "ben"], mesh=mesh.client)

    assert outcome.value == "ben: ANN: ADD"
    assert [each.value for each in outcome.results] == ["ann: add", "ANN: ADD", "ben: ANN: ADD"]
    assert len({each.trace for each in crew.contexts}) == 1


async def test_a_mapping_that_a_stage_makes_is_the_arguments_of_the_next(
    mesh: InMemoryMesh, crew: Crew
) -> None:
    mesh.add(crew.agent("ann", answer={"task": "multiply"}))
    mesh.add(crew.agent("ben"))
    assert (await pipeline("add", ["ann", "ben"], mesh=mesh.client)).value == "ben: multiply"


async def test_a_stage_that_fails_ends_it_and_the_next_is_not_asked(mesh: InMemoryMesh, crew: Crew) -> None:
    mesh.add(crew.agent("ann", fails=True))
    mesh.add(crew.agent("ben"))

    with pytest.raises(AgentFailed, match="ann cannot"):
        await pipeline("add", ["ann", "ben"], mesh=mesh.client)

    assert [name for name, _ in crew.asked] == ["ann"]
    outcome = await pipeline("add", [Branch("ann", fallback="ben"), "ben"], mesh=mesh.client)
    assert outcome.value == "ben: ben: add"


async def test_the_deadline_is_for_all_stages_together(mesh: InMemoryMesh, crew: Crew) -> None:
    mesh.add(crew.agent("ann"))
    mesh.add(crew.agent("ben"))
    crew.gate("ben")

    with pytest.raises(TimedOut):
        await pipeline("add", ["ann", "ben"], mesh=mesh.client, timeout=1.5)

    await crew.until(lambda: crew.cancelled == ["ben"])
    first, second = crew.contexts
    assert first.deadline == second.deadline


async def test_cancelling_it_cancels_the_stage_at_work(mesh: InMemoryMesh, crew: Crew) -> None:
    mesh.add(crew.agent("ann"))
    mesh.add(crew.agent("ben"))
    crew.gate("ben")

    run = asyncio.create_task(pipeline("add", ["ann", "ben"], mesh=mesh.client))
    await crew.until(lambda: len(crew.asked) == 2)
    run.cancel()

    with pytest.raises(asyncio.CancelledError):
        await run
    await crew.until(lambda: crew.cancelled == ["ben"])


async def test_stages_are_told_as_they_end(mesh: InMemoryMesh) -> None:
    told = [each async for each in pipeline.stream("a", [str.upper, len], mesh=mesh.client)]
    one, two, outcome = told
    assert isinstance(one, BranchResult)
    assert isinstance(two, BranchResult)
    assert isinstance(outcome, Outcome)
    assert (one.value, two.value, outcome.value) == ("A", 1, 1)


@pytest.mark.parametrize("stages", [[], "ann"])
async def test_a_pipeline_without_stages_is_refused(mesh: InMemoryMesh, stages: list[str]) -> None:
    with pytest.raises(InvalidRequest):
        await pipeline("add", stages, mesh=mesh.client)
