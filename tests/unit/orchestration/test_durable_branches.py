"""Branches that are tasks in a queue: followed, told of, and cancelled with whoever waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from tests.unit.orchestration.crew import LIMIT

from weft import (
    Agent,
    AgentFailed,
    Interrupted,
    InvalidRequest,
    NotFound,
    TaskRun,
    TaskState,
    TimedOut,
    current,
)
from weft.aio.poll import until
from weft.orchestration import Branch, BranchResult, Outcome, Partial, coordinate, map_reduce
from weft.testing import InMemoryMesh, QueueSpec

REVIEWS = Branch(queue="reviews")


class Worker:
    """An agent that works on reviews, and waits where it is told to."""

    def __init__(self) -> None:
        self.agent = Agent("worker")
        self.begun: list[str] = []
        self.broken_off: list[str] = []
        self.budgets: list[str | None] = []
        self.deadlines: list[float | None] = []
        self.go_on = asyncio.Event()

        @self.agent.task("reviews")
        async def review(task: str, run: TaskRun) -> str:
            self.begun.append(task)
            self.budgets.append(current().budget)
            self.deadlines.append(run.deadline)
            await run.partial(f"reading {task}")
            if task == "nonsense":
                raise InvalidRequest("that is no code")
            try:
                if task == "slow":
                    await self.go_on.wait()
            except asyncio.CancelledError:
                self.broken_off.append(task)
                raise
            return f"reviewed {task}"


@pytest.fixture
async def mesh() -> AsyncIterator[InMemoryMesh]:
    async with InMemoryMesh(queues={"reviews": QueueSpec(max_deliveries=2)}) as mesh:
        yield mesh


@pytest.fixture
async def worker(mesh: InMemoryMesh) -> Worker:
    """A worker of whom two instances are there."""
    worker = Worker()
    mesh.add(worker.agent, instances=2)
    return worker


async def states(mesh: InMemoryMesh) -> list[TaskState]:
    return [each.state for each in await mesh.tasks("reviews")]


async def comes_to(mesh: InMemoryMesh, *expected: TaskState) -> None:
    """Wait until the tasks of the queue have these states."""

    async def so() -> bool:
        return await states(mesh) == list(expected)

    async with asyncio.timeout(LIMIT):
        await until(so)


async def test_a_task_s_result_is_the_answer_and_who_did_it_is_told(
    mesh: InMemoryMesh, worker: Worker
) -> None:
    outcome = await coordinate("a.py", [REVIEWS, len], mesh=mesh.client, budget="70 tokens")

    assert outcome.value == ["reviewed a.py", 4]
    [durable, _] = outcome.results
    assert durable.instance in {"worker-1.worker", "worker-2.worker"}
    assert durable.branch.label == "reviews"
    assert durable.task is not None
    assert (await durable.task.status()).state is TaskState.SUCCEEDED
    assert worker.budgets[0] is not None
    assert worker.budgets[0].startswith("70 tokens;id=")


async def test_partial_results_are_told_as_they_come(mesh: InMemoryMesh, worker: Worker) -> None:
    told: list[Any] = []
    async with aclosing(coordinate.stream("slow", [REVIEWS], mesh=mesh.client)) as news:
        async for each in news:
            told.append(each)
            worker.go_on.set()
    partial, result, outcome = told
    assert partial == Partial(REVIEWS, 0, "reading slow")
    assert isinstance(result, BranchResult)
    assert isinstance(outcome, Outcome)


async def test_a_task_that_fails_is_a_branch_that_fails(mesh: InMemoryMesh, worker: Worker) -> None:
    outcome = await coordinate("nonsense", [REVIEWS, len], mesh=mesh.client)
    [failure] = outcome.failures
    assert isinstance(failure.error, AgentFailed)
    assert failure.task is not None
    assert (await failure.task.status()).state is TaskState.FAILED
    assert "that is no code" in str(failure.error)


async def test_a_queue_that_is_not_declared_is_a_branch_that_fails(mesh: InMemoryMesh) -> None:
    outcome = await coordinate("a.py", [Branch(queue="elsewhere"), len], mesh=mesh.client)
    assert isinstance(outcome.failures[0].error, NotFound)


async def test_cancelling_the_orchestration_cancels_its_tasks(mesh: InMemoryMesh, worker: Worker) -> None:
    run = asyncio.create_task(map_reduce(["slow"] * 3, REVIEWS, mesh=mesh.client))

    async def begun() -> bool:
        return len(worker.begun) == 3

    async with asyncio.timeout(LIMIT):
        await until(begun)
    run.cancel()

    with pytest.raises(asyncio.CancelledError):
        await run
    await comes_to(mesh, *[TaskState.CANCELLED] * 3)

    async def broken_off() -> bool:
        return len(worker.broken_off) == 3

    async with asyncio.timeout(LIMIT):
        await until(broken_off)


async def test_tasks_that_nobody_works_on_are_cancelled_too(mesh: InMemoryMesh) -> None:
    run = asyncio.create_task(coordinate("a.py", [REVIEWS, REVIEWS], mesh=mesh.client))
    await comes_to(mesh, TaskState.QUEUED, TaskState.QUEUED)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    await comes_to(mesh, TaskState.CANCELLED, TaskState.CANCELLED)


async def test_a_task_that_is_just_being_submitted_is_cancelled_once_it_has_been(mesh: InMemoryMesh) -> None:
    """Wherever in a submission the cancellation comes: no task is left behind."""
    for steps in range(40):
        run = asyncio.create_task(coordinate("a.py", [REVIEWS], mesh=mesh.client))
        for _ in range(steps):
            await asyncio.sleep(0)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        assert run.cancelled()
    assert set(await states(mesh)) == {TaskState.CANCELLED}


async def test_a_quorum_cancels_the_tasks_that_are_not_needed(mesh: InMemoryMesh, worker: Worker) -> None:
    outcome = await coordinate("slow", [REVIEWS, len], mesh=mesh.client, quorum=1)
    assert outcome.value == [4]
    assert [each.label for each in outcome.unneeded] == ["reviews"]
    await comes_to(mesh, *[TaskState.CANCELLED] * len(await mesh.tasks("reviews")))


async def test_a_task_that_takes_too_long_is_cancelled_and_has_the_branch_s_deadline(
    mesh: InMemoryMesh, worker: Worker
) -> None:
    branch = Branch(queue="reviews", timeout=0.5)
    outcome = await coordinate("slow", [branch, len], mesh=mesh.client)
    assert isinstance(outcome.failures[0].error, TimedOut)
    [task] = await mesh.tasks("reviews")
    assert task.state in {TaskState.CANCELLED, TaskState.FAILED}, "who notices first ends it"
    assert task.deadline is not None
    assert task.deadline - task.submitted_at <= 0.5


async def test_a_task_that_somebody_else_cancels_is_a_branch_that_fails(
    mesh: InMemoryMesh, worker: Worker
) -> None:
    run = asyncio.create_task(coordinate("slow", [REVIEWS, len], mesh=mesh.client))
    await comes_to(mesh, TaskState.RUNNING)
    [task] = await mesh.tasks("reviews")
    await mesh.client.task(task.id).cancel()
    assert isinstance((await run).failures[0].error, Interrupted)


async def test_begun_again_with_the_same_key_it_makes_no_second_task(
    mesh: InMemoryMesh, worker: Worker
) -> None:
    first = await coordinate("a.py", [REVIEWS, REVIEWS], mesh=mesh.client, idempotency_key="pull-7")
    again = await coordinate("a.py", [REVIEWS, REVIEWS], mesh=mesh.client, idempotency_key="pull-7")
    assert first.value == again.value
    assert len(await mesh.tasks("reviews")) == len(worker.begun) == 2


async def test_a_worker_that_is_killed_costs_nothing_but_another_attempt(
    mesh: InMemoryMesh, worker: Worker
) -> None:
    run = asyncio.create_task(coordinate("slow", [REVIEWS], mesh=mesh.client))
    await comes_to(mesh, TaskState.RUNNING)
    [task] = await mesh.tasks("reviews")
    agent_type, _, instance = task.worker.partition(".")
    mesh.kill(f"{instance}.{agent_type}")
    worker.go_on.set()
    [result] = (await run).results
    assert result.value == "reviewed slow"
    assert result.instance not in {"", f"{instance}.{agent_type}"}
