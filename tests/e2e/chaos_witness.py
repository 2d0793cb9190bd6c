"""Who looks on while tasks are worked on, and says at the end whether all went well."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.chaos_plan import ERRORS, EXECUTIONS, TOO_MANY, Kind, kind_of

from weft.aio.poll import until
from weft.messaging.broker import StoredMessage
from weft.model.task import Task, TaskState
from weft.store.bucket import Bucket, Put, Snapshot
from weft.tasks.wire import task_of


@dataclass
class Witness:
    """Follows the records of all tasks."""

    ended: dict[str, Task] = field(default_factory=dict)
    """As each stood when it had ended, by id."""
    twice: list[tuple[Task, Task]] = field(default_factory=list)
    """Those that were written again afterwards, and not as they were."""

    async def follow(self, records: Bucket[Task]) -> None:
        """Look on, until cancelled."""
        async with records.watch() as changes:
            async for change in changes:
                match change:
                    case Snapshot(entries):
                        for entry in entries:
                            self._note(entry.value)
                    case Put(entry):
                        self._note(entry.value)

    def _note(self, task: Task) -> None:
        before = self.ended.get(task.id)
        if before is not None:
            if _end(before) != _end(task):
                self.twice.append((before, task))
        elif task.state.terminal:
            self.ended[task.id] = task


def _end(task: Task) -> Any:
    return task.state, task.result, task.error, task.finished_at


@dataclass(frozen=True)
class Execution:
    """A handler that began."""

    number: int
    task_id: str
    pid: int
    attempt: int

    @classmethod
    def read(cls, line: str) -> Execution:
        """What a worker noted."""
        number, task_id, pid, attempt = line.split()
        return cls(int(number), task_id, int(pid), int(attempt))


@dataclass(frozen=True)
class Figures:
    """What came of it all."""

    tasks: int
    succeeded: int
    dead: int
    collateral: int
    """Tasks that would have succeeded, whose workers were killed at every attempt."""
    executions: int
    repeated: int
    """Executions beyond those there would have been if nobody had been killed."""


def check(
    promised: Mapping[int, str],
    ends: Mapping[str, Task],
    executions: Collection[Execution],
    dead: Sequence[StoredMessage],
) -> Figures:
    """Every promised task has one result, of one execution, or is a dead letter with its reason."""
    done = {(each.task_id, each.pid, each.attempt) for each in executions}
    reasons = {task_of(each.message.id): each.reason for each in dead}
    states: Counter[TaskState] = Counter()
    collateral = 0
    for number, task_id in promised.items():
        task, kind = ends[task_id], kind_of(number)
        states[task.state] += 1
        if task.state is TaskState.SUCCEEDED:
            assert kind in {Kind.QUICK, Kind.FLAKY}, task
            assert task.result["number"] == number, task
            assert (task_id, task.result["pid"], task.result["attempt"]) in done, task
            assert task_id not in reasons, task
        else:
            assert task.state is TaskState.FAILED, task
            assert task.error is not None, task
            assert task.error.code in {ERRORS.get(kind), TOO_MANY}, task
            assert reasons[task_id].startswith(f"{task.error.code}: "), (task, reasons[task_id])
            collateral += kind not in ERRORS
    begun = Counter(each.number for each in executions)
    attempts = Counter(each.task_id for each in executions)
    for task_id in promised.values():
        # Claimed, and killed before it could say that it had begun, is an attempt, too.
        assert attempts[task_id] <= ends[task_id].attempts, ends[task_id]
    repeated = sum(max(0, begun[number] - EXECUTIONS[kind_of(number)]) for number in promised)
    return Figures(
        len(promised),
        states[TaskState.SUCCEEDED],
        states[TaskState.FAILED],
        collateral,
        sum(begun.values()),
        repeated,
    )


async def all_ended(witness: Witness, promised: Collection[str]) -> None:
    """Wait until the witness has seen the ends of all these tasks."""
    left = set(promised)

    async def none_left() -> bool:
        left.difference_update(witness.ended)
        return not left

    await until(none_left)


async def ends(records: Bucket[Task], task_ids: Collection[str]) -> dict[str, Task]:
    """How these tasks stand now, by id."""
    found: dict[str, Task] = {}
    waiting = iter(task_ids)

    async def read() -> None:
        for task_id in waiting:
            entry = await records.get(task_id)
            assert entry is not None, f"the record of {task_id} is lost"
            found[task_id] = entry.value

    async with asyncio.TaskGroup() as group:
        for _ in range(64):
            group.create_task(read())
    return found
