"""What a task's record allows whoever got a message of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from weft.errors import Unavailable
from weft.model.task import Task, TaskError, TaskState
from weft.store.bucket import Bucket, Entry
from weft.store.memory import MemoryStore
from weft.tasks.claims import (
    DEADLINE_EXCEEDED,
    MISSING_PATIENCE,
    TOO_MANY_DELIVERIES,
    Claims,
    Decision,
    Drop,
    Later,
    Limits,
    Over,
    Run,
)
from weft.tasks.records import TaskCodec
from weft.tasks.transitions import cancelled, claimed, failed, handed_back, put_back, redriven, succeeded
from weft.tasks.wire import Submission, another_message_id

NOW = 1_000_000.0
LIMITS = Limits(max_deliveries=2, visibility_timeout=30.0)
ERROR = TaskError("internal", "no luck")
TASK = Task("q.0000000000000000000000000a", TaskState.QUEUED, NOW - 10, "spiffe://weft.local/agent/a/b")


class Desk:
    """A worker, and the record of one task."""

    def __init__(self, records: Bucket[Task]) -> None:
        self.records = records
        self.submission = Submission(TASK, 0, "application/json", {}, b"1", TASK.id)

    async def write(self, task: Task) -> None:
        await self.records.put(task.id, task)

    async def claim(self, *, deliveries: int = 1, message_id: str = TASK.id, task: Task = TASK) -> Decision:
        claims = Claims(self.records, worker="adder.one", clock=lambda: NOW)
        submission = replace(self.submission, message_id=message_id, task=task)
        return await claims.claim(submission, deliveries=deliveries, limits=LIMITS)

    async def record(self) -> Entry[Task] | None:
        return await self.records.get(TASK.id)


@pytest.fixture
async def desk() -> Desk:
    desk = Desk(await MemoryStore().bucket("tasks", TaskCodec()))
    revision = await desk.records.create(TASK.id, TASK)
    desk.submission = replace(desk.submission, revision=revision)
    return desk


RUNNING = claimed(TASK, message_id=TASK.id, worker="adder.two", now=NOW - 5)


async def test_a_waiting_task_is_claimed_by_one_write(desk: Desk) -> None:
    decision = await desk.claim()
    assert isinstance(decision, Run)
    assert decision.task == replace(
        TASK, state=TaskState.RUNNING, attempts=1, started_at=NOW, worker="adder.one", message=TASK.id
    )
    assert await desk.record() == Entry(TASK.id, decision.task, decision.revision)


@pytest.mark.parametrize("deliveries", [1, 2])
async def test_a_task_put_back_after_a_failure_is_claimed_as_it_stands(desk: Desk, deliveries: int) -> None:
    await desk.write(put_back(RUNNING, ERROR, not_before=NOW))
    decision = await desk.claim(deliveries=deliveries)
    assert isinstance(decision, Run)
    assert (decision.task.attempts, decision.task.error) == (2, ERROR)


async def test_a_message_that_comes_too_early_waits_for_its_time(desk: Desk) -> None:
    await desk.write(put_back(RUNNING, ERROR, not_before=NOW + 7))
    assert await desk.claim() == Later(7)


async def test_the_same_message_again_means_that_its_worker_is_gone(desk: Desk) -> None:
    await desk.write(RUNNING)
    decision = await desk.claim(deliveries=2)
    assert isinstance(decision, Run)
    assert (decision.task.attempts, decision.task.worker) == (2, "adder.one")


async def test_another_message_of_a_running_task_waits(desk: Desk) -> None:
    await desk.write(RUNNING)
    assert await desk.claim(message_id=another_message_id(TASK.id)) == Later(LIMITS.visibility_timeout)


async def test_after_the_last_attempt_it_fails(desk: Desk) -> None:
    await desk.write(replace(RUNNING, attempts=2))
    decision = await desk.claim(deliveries=2)
    assert isinstance(decision, Over)
    assert decision.task.state is TaskState.FAILED
    assert decision.task.error is not None
    assert decision.task.error.code == TOO_MANY_DELIVERIES
    assert "adder.two" in decision.task.error.detail
    entry = await desk.record()
    assert entry is not None
    assert entry.value == decision.task


async def test_attempts_that_were_handed_back_do_not_count(desk: Desk) -> None:
    task = TASK
    for _ in range(5):
        task = handed_back(claimed(task, message_id=TASK.id, worker="adder.two", now=NOW))
    await desk.write(task)
    decision = await desk.claim(deliveries=6)
    assert isinstance(decision, Run)
    assert (decision.task.attempts, decision.task.failures) == (6, 1)


async def test_a_redriven_task_has_all_its_attempts_again(desk: Desk) -> None:
    await desk.write(
        redriven(failed(replace(RUNNING, attempts=2), ERROR, message_id=TASK.id, now=NOW), now=NOW)
    )
    decision = await desk.claim()
    assert isinstance(decision, Run)
    assert (decision.task.attempts, decision.task.failures) == (3, 1)


async def test_past_its_deadline_it_fails_without_being_run(desk: Desk) -> None:
    late = replace(TASK, deadline=NOW - 1)
    await desk.write(late)
    decision = await desk.claim(task=late)
    assert isinstance(decision, Over)
    assert decision.task.error is not None
    assert (decision.task.error.code, decision.task.attempts) == (DEADLINE_EXCEEDED, 0)


@pytest.mark.parametrize(
    "end",
    [
        succeeded(RUNNING, 1, now=NOW),
        failed(RUNNING, ERROR, message_id=TASK.id, now=NOW),
        cancelled(RUNNING, now=NOW),
    ],
    ids=lambda end: str(end.state),
)
async def test_an_end_is_final(desk: Desk, end: Task) -> None:
    await desk.write(end)
    assert await desk.claim(deliveries=2) == Over(end)
    entry = await desk.record()
    assert entry is not None
    assert entry.value == end


async def test_a_missing_record_is_looked_for_again_before_its_message_is_dropped(desk: Desk) -> None:
    await desk.records.delete(TASK.id)
    for deliveries in range(1, MISSING_PATIENCE):
        assert isinstance(await desk.claim(deliveries=deliveries), Later)
    assert isinstance(await desk.claim(deliveries=MISSING_PATIENCE), Drop)


async def test_a_message_of_an_earlier_task_with_the_same_id_is_dropped(desk: Desk) -> None:
    await desk.write(replace(TASK, submitted_at=NOW))
    assert isinstance(await desk.claim(), Drop)


async def test_a_store_that_is_away_is_no_decision() -> None:
    store = MemoryStore()
    desk = Desk(await store.bucket("tasks", TaskCodec()))
    store.interrupt()
    with pytest.raises(Unavailable):
        await desk.claim()


async def test_tasks_whose_workers_fell_silent_again_are_run_one_at_a_time() -> None:
    records = await MemoryStore().bucket("tasks", TaskCodec())
    claims = Claims(records, worker="adder.one", clock=lambda: NOW)
    limits = Limits(max_deliveries=5, visibility_timeout=30.0)

    async def claim(letter: str, silences: int) -> Decision:
        task = replace(TASK, id=TASK.id[:-1] + letter)
        stands = task
        for _ in range(silences):
            stands = claimed(stands, message_id=task.id, worker="adder.two", now=NOW)
        await records.put(task.id, stands)
        submission = Submission(task, 1, "application/json", {}, b"1", task.id)
        return await claims.claim(submission, deliveries=2, limits=limits)

    first = await claim("a", 2)
    assert isinstance(first, Run)
    waiting = await claim("b", 2)
    assert isinstance(waiting, Later)
    assert 0 < waiting.pause < limits.visibility_timeout
    assert isinstance(await claim("c", 1), Run)
    assert isinstance(await claim("d", 0), Run)
    claims.release(TASK.id[:-1] + "c")
    assert isinstance(await claim("b", 2), Later)
    claims.release(first.task.id)
    assert isinstance(await claim("b", 2), Run)
