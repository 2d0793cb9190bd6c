"""The same for many items, a few at a time."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.orchestration.crew import Crew

from weft import Agent, AgentFailed, InvalidRequest, Refused
from weft.orchestration import Branch, BranchResult, Outcome, map_reduce
from weft.testing import InMemoryMesh


async def test_answers_are_reduced_in_the_order_of_the_items(mesh: InMemoryMesh, crew: Crew) -> None:
    mesh.add(crew.agent("ann"), instances=3)

    outcome = await map_reduce(iter(range(20)), "ann", reduce=lambda values: values, mesh=mesh.client)

    assert outcome.value == [f"ann: {number}" for number in range(20)]
    assert [each.index for each in outcome.results] == list(range(20))


async def test_an_agent_reduces_and_nobody_is_asked_about_nothing(mesh: InMemoryMesh, crew: Crew) -> None:
    mesh.add(crew.agent("ann"))
    adder = Agent("adder")

    @adder.handles("reduce")
    async def add(values: list[int]) -> int:
        return sum(values)

    mesh.add(adder)

    assert (await map_reduce(["a", "bc"], len, reduce="adder", mesh=mesh.client)).value == 3
    assert (await map_reduce([], "ann", reduce=sum, mesh=mesh.client, quorum=0.5)).value == 0
    assert (await map_reduce([], "ann", mesh=mesh.client)).value == []


async def test_no_more_items_are_at_work_than_may_be(mesh: InMemoryMesh) -> None:
    at_work = most = 0

    async def work(item: int) -> int:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0)
        at_work -= 1
        return item

    outcome = await map_reduce(range(100), work, reduce=sum, mesh=mesh.client, concurrency=4)

    assert (outcome.value, most) == (4950, 4)


async def test_an_agent_that_is_busy_makes_no_item_fail_if_fewer_are_at_work_than_it_takes(
    mesh: InMemoryMesh,
) -> None:
    agent = Agent("one-by-one", concurrency=1)

    @agent.handles("task")
    async def work(task: int) -> int:
        await asyncio.sleep(0)
        return task

    mesh.add(agent, instances=2)

    assert (await map_reduce(range(9), "one-by-one", reduce=sum, mesh=mesh.client, concurrency=1)).value == 36
    with pytest.raises(Refused):
        await map_reduce(range(9), "one-by-one", mesh=mesh.client, concurrency=9)


async def test_an_item_that_fails_ends_it_unless_it_is_to_be_left_out(mesh: InMemoryMesh) -> None:
    def halve(item: int) -> float:
        if item % 2:
            raise AgentFailed(f"{item} is odd")
        return item / 2

    with pytest.raises(AgentFailed, match="1 is odd"):
        await map_reduce(range(4), halve, mesh=mesh.client)
    outcome = await map_reduce(range(4), halve, mesh=mesh.client, on_failure="continue")
    assert outcome.value == [0, 1]
    assert [each.index for each in outcome.failures] == [1, 3]
    twice = Branch(halve, fallback=lambda item: item / 2)
    assert (await map_reduce(range(4), twice, mesh=mesh.client)).value == [0, 0.5, 1, 1.5]


async def test_a_quorum_of_items_is_enough(mesh: InMemoryMesh) -> None:
    outcome = await map_reduce(range(9), lambda item: item, mesh=mesh.client, quorum=3, concurrency=1)
    assert outcome.value == [0, 1, 2]
    assert len(outcome.unneeded) == 6


async def test_answers_are_told_as_they_come(mesh: InMemoryMesh, crew: Crew) -> None:
    mesh.add(crew.agent("ann"))
    stream = map_reduce.stream(range(5), "ann", mesh=mesh.client, concurrency=2)
    *results, outcome = [each async for each in stream]
    assert sorted(each.index for each in results if isinstance(each, BranchResult)) == list(range(5))
    assert isinstance(outcome, Outcome)


async def test_none_at_once_is_refused(mesh: InMemoryMesh) -> None:
    with pytest.raises(InvalidRequest, match="1 or more"):
        await map_reduce([1], len, mesh=mesh.client, concurrency=0)
