"""An A2A task as it stands, and what happens to it from then on: the same, in the same order, for everybody.

What a follower is told comes from what is written down, and from nothing else: what workers tell of a turn,
which has one order, and then how the turn's task ended. So any instance can tell it, from any moment on.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from weft.model.task import Task, TaskEvent, TaskEventKind
from weft.sdk.a2a.book import TaskBook
from weft.sdk.a2a.outcome import Turn, ending_of
from weft.sdk.a2a.record import TaskRecord
from weft.sdk.a2a.wire import Json, State, state_of, status, with_artifact

LONGEST_WAIT = 2.0
"""Seconds between two looks whether a task that asked for input goes on, when there is no signal."""

WORKING = "working"
"""What a worker tells when it begins: `{"working": true}`."""

PARTS = "parts"
"""What it tells of a result in pieces: `{"parts": [...], "append": true}`."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An A2A task at one moment."""

    record: TaskRecord
    task: Json
    """As A2A writes it, with its whole history and all artifacts."""
    cursor: str
    """Up to where the news of the last turn's task are in it."""

    @property
    def state(self) -> State:
        """Where the task stands."""
        return state_of(self.task)


async def snapshot(book: TaskBook, record: TaskRecord, work: Task | None = None) -> Snapshot:
    """The task of that record; `work` is the last turn's task, if it is known.

    Raises NotFound if it is no longer kept, Unavailable.
    """
    begun = await opening(book, record)
    turn, current, artifacts = record.last, begun.task["status"], begun.task["artifacts"]
    if work is None:
        work = await book.turn_task(record, turn)
    updates, cursor = await _told(book, turn, work, task_id=record.id, context_id=record.context_id)
    if record.cancelled_at is not None:
        updates.append(_cancelled(record))
    for each in updates:
        artifacts = _taken(artifacts, each)
        if "statusUpdate" in each:
            current = each["statusUpdate"]["status"]
    return Snapshot(record, {**begun.task, "status": current, "artifacts": artifacts}, cursor)


async def opening(book: TaskBook, record: TaskRecord) -> Snapshot:
    """The task of that record as it was when its last turn began.

    Raises NotFound if it is no longer kept, Unavailable.
    """
    artifacts: list[Json] = []
    for turn in record.turns[:-1]:
        work = await book.turn_task(record, turn)
        for each in (await _told(book, turn, work))[0]:
            artifacts = _taken(artifacts, each)
    task: Json = {
        "id": record.id,
        "contextId": record.context_id,
        "status": status(State.SUBMITTED, record.last.at),
        "artifacts": artifacts,
        "history": record.messages(),
    }
    return Snapshot(record, task, cursor="")


async def events(book: TaskBook, begun: Snapshot, *, through_rests: bool) -> AsyncGenerator[Json]:
    """What happens after a snapshot, as A2A's StreamResponses, until the task has ended.

    Or until it asks for input, unless it is to be followed `through_rests`. Raises NotFound, Unavailable.
    """
    record, cursor, state = begun.record, begun.cursor, begun.state
    while True:
        if not state.at_rest:
            async with aclosing(_of_turn(book, record, cursor)) as updates:
                async for each in updates:
                    state = _state_after(each, state)
                    yield each
        if state.terminal or not through_rests:
            return
        turns = len(record.turns)
        now = await _gone_on(book, record)
        if len(now.turns) == turns:
            yield _cancelled(now)
            return
        # One turn at a time, should there have been several meanwhile.
        record, cursor, state = replace(now, turns=now.turns[: turns + 1]), "", State.SUBMITTED


async def _of_turn(book: TaskBook, record: TaskRecord, cursor: str) -> AsyncGenerator[Json]:
    """What happens in the last turn of a record after that cursor, up to its end."""
    turn = record.last
    await book.turn_task(record, turn)
    async with book.tasks.follow(turn.task, cursor) as news:
        async for each in news:
            if each.event is not None:
                update = _update(turn, each.event)
                if update is not None:
                    yield _addressed(update, record.id, record.context_id)
            elif each.task is not None and each.task.state.terminal:
                for update in _ended(turn, each.task, record.id, record.context_id):
                    yield update


async def _told(
    book: TaskBook, turn: Turn, work: Task, *, task_id: str = "", context_id: str = ""
) -> tuple[list[Json], str]:
    """What has happened in a turn, and the cursor after it."""
    told, cursor = await book.tasks.told(work)
    updates = [_addressed(each, task_id, context_id) for each in _updates(turn, told)]
    if work.state.terminal:
        updates += _ended(turn, work, task_id, context_id)
    return updates, cursor


def _updates(turn: Turn, told: Sequence[TaskEvent]) -> Iterator[Json]:
    for event in told:
        if (update := _update(turn, event)) is not None:
            yield update


def _update(turn: Turn, event: TaskEvent) -> Json | None:
    data: Any = event.data
    if event.kind is not TaskEventKind.PARTIAL or not isinstance(data, dict):
        return None
    if WORKING in data:
        return {"statusUpdate": {"status": status(State.WORKING, event.at)}}
    artifact = {"artifactId": turn.artifact_id, "parts": data[PARTS]}
    return {"artifactUpdate": {"artifact": artifact, "append": data["append"], "lastChunk": False}}


def _ended(turn: Turn, work: Task, task_id: str, context_id: str) -> list[Json]:
    ending = ending_of(turn, work, task_id, context_id)
    found: list[Json] = [] if ending.artifact is None else [{"artifactUpdate": ending.artifact}]
    found.append({"statusUpdate": {"status": ending.status}})
    return [_addressed(each, task_id, context_id) for each in found]


def _addressed(update: Json, task_id: str, context_id: str) -> Json:
    ((kind, content),) = update.items()
    return {kind: {"taskId": task_id, "contextId": context_id, **content}}


def _taken(artifacts: list[Json], update: Json) -> list[Json]:
    if "artifactUpdate" not in update:
        return artifacts
    return with_artifact(artifacts, update["artifactUpdate"])


def _cancelled(record: TaskRecord) -> Json:
    at = record.cancelled_at or 0.0
    update = {"statusUpdate": {"status": status(State.CANCELED, at)}}
    return _addressed(update, record.id, record.context_id)


def _state_after(update: Json, state: State) -> State:
    return State(update["statusUpdate"]["status"]["state"]) if "statusUpdate" in update else state


async def _gone_on(book: TaskBook, record: TaskRecord) -> TaskRecord:
    """The record, once there is more in it than that."""
    async with book.news.listen(record.id) as listener:
        pause = 0.1
        while True:
            now = (await book.entry(record.id)).value
            if len(now.turns) > len(record.turns) or now.cancelled_at is not None:
                return now
            signalled = await listener.next(pause) is not None
            pause = 0.1 if signalled else min(2 * pause, LONGEST_WAIT)
