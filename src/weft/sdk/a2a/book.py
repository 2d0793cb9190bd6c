"""The A2A tasks of an agent type, as any of its instances finds and changes them.

An A2A task is one or several *turns*. Each is a task in the agent's inbox (`weft.tasks`): submitted, claimed,
redelivered when its worker dies, cancelled and followed as any other. What is kept beside them is one record
(`record`), changed by compare-and-set: so of two messages that go on with a task at the same time one wins.

A record is written before its turn's task is submitted. Whoever finds that the submitter died between the two
submits it, by the same key: that makes no second one.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

from weft.errors import Conflict, Denied, InvalidRequest, MeshError, NotFound
from weft.model.context_keys import outside_context_id
from weft.model.inbox import A2A_TASKS_BUCKET, inbox_queue
from weft.model.message_subjects import TASK_SIGNALS
from weft.model.task import Task
from weft.sdk.a2a.outcome import Turn, ending_of, outcome_of
from weft.sdk.a2a.owned import Owned
from weft.sdk.a2a.record import LIFETIME, MAX_PUSHES, TaskRecord, TaskRecordCodec, checked
from weft.sdk.a2a.refusals import NotCancelable, NotWaiting, TaskOver
from weft.sdk.a2a.wire import Json, State
from weft.sdk.wire import CONTEXT_HEADER
from weft.store.bucket import Bucket, Entry
from weft.tasks.client import REPLICA_LAG
from weft.tasks.task_id import is_id
from weft.work.membership import Membership

T = TypeVar("T")

logger = logging.getLogger("weft.agent")

PATIENCE = 5.0
"""Seconds that a submitter has to submit a turn that it has written down."""

SUBMITTABLE = 3600.0
"""Seconds after which a turn without a task is one whose result is no longer kept."""

MAX_CONTEXT_LENGTH = 256

LISTED_AT_ONCE = 16
"""Tasks that are read at the same time to list some, for all who ask: each may be large."""

_MOST_TRIES = 20
_PAUSE = 0.2


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a message, and what came with it."""

    owner: str
    """Whose task it is: see `caller`."""
    name: str = ""
    """As the callee's Envoy says; empty for a call that has not come through the mesh."""
    submitter: str = ""
    """Who calls at a gateway, which is `name` then."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Those that go along with calls made to answer it."""
    deadline: float | None = None
    """When it must be done, in seconds since 1970."""
    repetition: str = ""
    """The caller's Idempotency-Key."""


class TaskBook:
    """The A2A tasks of an agent type. Open it with `open`."""

    def __init__(
        self, membership: Membership, agent_type: str, records: Bucket[TaskRecord], owned: Owned
    ) -> None:
        self.tasks = membership.tasks
        """The turns' tasks."""
        self.queue = inbox_queue(agent_type)
        self.news = membership.store.signals(TASK_SIGNALS)
        """Of every change of a record; the key is the A2A task's id."""
        self.owned = owned
        self.reading = asyncio.Semaphore(LISTED_AT_ONCE)
        """Who lists tasks reads them in it."""
        self._type = agent_type
        self._records = records
        self._clock: Callable[[], float] = time.time

    @classmethod
    async def open(cls, membership: Membership, agent_type: str) -> TaskBook:
        """That of an agent type, for one of its instances. Raises Unavailable."""
        records = await membership.store.bucket(A2A_TASKS_BUCKET, TaskRecordCodec(), direct=True)
        return cls(membership, agent_type, records, await Owned.open(membership.store, agent_type))

    async def begin(
        self,
        caller: Caller,
        skill: str,
        message: Json,
        *,
        pushes: tuple[Json, ...] = (),
    ) -> TaskRecord:
        """A new task for this message; it is in the inbox when this returns.

        Raises InvalidRequest, TooMany, and Unavailable.
        """
        key = _key("begin", caller, "") if caller.repetition else secrets.token_hex(16)
        task_id = self.tasks.id_for(self.queue, key)
        if caller.repetition and (known := await self._records.get(self._key(task_id))) is not None:
            return await self._repeated(known.value, caller, message)
        context_id = message.get("contextId") or secrets.token_hex(16)
        if len(context_id) > MAX_CONTEXT_LENGTH:
            raise InvalidRequest(f"a contextId has {MAX_CONTEXT_LENGTH} characters at most")
        message = {**message, "contextId": context_id, "taskId": task_id}
        turn = Turn(1, task_id, key, message, self._clock())
        record = checked(TaskRecord(task_id, context_id, caller.owner, skill, (turn,), pushes))
        try:
            revision = await _settled(lambda: self._records.create(self._key(task_id), record, ttl=LIFETIME))
        except Conflict:
            known = await self.entry(task_id, caller.owner)
            return await self._repeated(known.value, caller, message)
        listed = asyncio.ensure_future(self.owned.add(caller.owner, task_id.partition(".")[2]))
        try:
            await self._submit(record, turn, caller)
        except MeshError:
            with suppress(MeshError):  # what is left expires some time, and nobody knows its id
                await self._records.delete(self._key(task_id), revision=revision)
            raise
        finally:
            await asyncio.gather(listed, return_exceptions=True)
        return record

    async def go_on(self, task_id: str, caller: Caller, message: Json, skill: str | None) -> TaskRecord:
        """Give a task that asked for input this message; its next turn is in the inbox when this returns.

        Raises NotFound, TaskOver, NotWaiting; InvalidRequest, also for another context or skill; Unavailable.
        """
        for _ in range(_MOST_TRIES):
            entry = await self.entry(task_id, caller.owner)
            record = entry.value
            key = _key("go on", caller, task_id) if caller.repetition else secrets.token_hex(16)
            if record.last.key == key:
                return record
            _check_same(record, message, skill)
            answer = await self._question(record)
            message = {**message, "contextId": record.context_id, "taskId": record.id}
            turn = Turn(
                len(record.turns) + 1, self.tasks.id_for(self.queue, key), key, message, self._clock()
            )
            after = record.followed_by(turn, answer)
            try:
                revision = await self._write(after, entry.revision)
            except Conflict:
                await asyncio.sleep(REPLICA_LAG)
                continue
            try:
                await self._submit(after, turn, caller)
            except MeshError:
                with suppress(MeshError):  # else whoever looks next submits it
                    await self._write(record, revision)
                raise
            await self.news.send(task_id)
            return after
        raise Conflict(f"task {task_id!r} changes all the time; try again")

    async def cancel(self, task_id: str, owner: str) -> TaskRecord:
        """Cancel a task; its work is interrupted. Raises NotFound, NotCancelable, Unavailable."""
        for _ in range(_MOST_TRIES):
            entry = await self.entry(task_id, owner)
            record = entry.value
            if record.cancelled_at is not None:
                raise NotCancelable(f"task {task_id!r} is canceled already")
            work = await self.turn_task(record, record.last)
            under_way = not work.state.terminal
            if under_way:
                work = await self.tasks.cancel(work.id)
            state = outcome_of(work).state
            if under_way and state is State.CANCELED:
                return record
            if state.terminal:
                raise NotCancelable(f"task {task_id!r} has ended: {state.value}")
            cancelled = replace(record, cancelled_at=self._clock())
            try:
                await self._write(cancelled, entry.revision)
            except Conflict:
                await asyncio.sleep(REPLICA_LAG)
                continue
            await self.news.send(task_id)
            return cancelled
        raise Conflict(f"task {task_id!r} changes all the time; try again")

    async def entry(self, task_id: str, owner: str | None = None) -> Entry[TaskRecord]:
        """The record of a task. Raises NotFound, also for somebody else's; Unavailable."""
        missing = NotFound(f"there is no task {task_id[:100]!r}, or it is no longer kept")
        if not is_id(task_id) or task_id.partition(".")[0] != self.queue:
            raise missing
        entry = await self._records.get(self._key(task_id))
        if entry is None:
            await asyncio.sleep(REPLICA_LAG)
            entry = await self._records.get(self._key(task_id))
        if entry is None or (owner is not None and entry.value.owner != owner):
            raise missing
        return entry

    async def turn_task(self, record: TaskRecord, turn: Turn) -> Task:
        """The task that does a turn, submitted now if its submitter died before it could.

        Raises NotFound if its result is no longer kept; Unavailable.
        """
        while True:
            try:
                return await self.tasks.get(turn.task)
            except NotFound:
                age = self._clock() - turn.at
                if not -SUBMITTABLE < age < SUBMITTABLE:
                    raise
                if age > PATIENCE:
                    logger.warning("turn %d of task %r was not submitted; it is now", turn.number, record.id)
                    await self._submit(record, turn, Caller(record.owner))
            await asyncio.sleep(_PAUSE)

    async def add_push(self, task_id: str, owner: str, config: Json) -> TaskRecord:
        """Have an address told of the task's events; it replaces one of the same id.

        Raises NotFound, InvalidRequest if there are too many, Unavailable.
        """

        def change(pushes: tuple[Json, ...]) -> tuple[Json, ...]:
            others = tuple(each for each in pushes if each["id"] != config["id"])
            if len(others) >= MAX_PUSHES:
                raise InvalidRequest(f"a task has {MAX_PUSHES} push notification configs at most")
            return (*others, config)

        return await self._change_pushes(task_id, owner, change)

    async def remove_push(self, task_id: str, owner: str, config_id: str) -> None:
        """Have an address told nothing any more. Raises NotFound for an unknown task; Unavailable."""
        await self._change_pushes(
            task_id, owner, lambda pushes: tuple(each for each in pushes if each["id"] != config_id)
        )

    async def _change_pushes(
        self, task_id: str, owner: str, change: Callable[[tuple[Json, ...]], tuple[Json, ...]]
    ) -> TaskRecord:
        for _ in range(_MOST_TRIES):
            entry = await self.entry(task_id, owner)
            record = replace(entry.value, pushes=change(entry.value.pushes))
            if record == entry.value:
                return record
            try:
                await self._write(record, entry.revision)
            except Conflict:
                await asyncio.sleep(REPLICA_LAG)
                continue
            return record
        raise Conflict(f"task {task_id!r} changes all the time; try again")

    async def _question(self, record: TaskRecord) -> Json | None:
        """What the agent asked at the end of the last turn. Raises TaskOver, NotWaiting."""
        work = await self.turn_task(record, record.last)
        if record.cancelled_at is not None or (work.state.terminal and outcome_of(work).state.terminal):
            raise TaskOver(f"task {record.id!r} has ended: begin another in the same context")
        if not work.state.terminal:
            raise NotWaiting(
                f"task {record.id!r} is being worked on, and asks for nothing: wait, or cancel it"
            )
        return ending_of(record.last, work, record.id, record.context_id).status.get("message")

    async def _repeated(self, record: TaskRecord, caller: Caller, message: Json) -> TaskRecord:
        if record.owner != caller.owner or not _says(record.turns[0].message, message):
            raise InvalidRequest("the Idempotency-Key was used with another message: use a new one for this")
        await self.turn_task(record, record.turns[0])
        return record

    async def _submit(self, record: TaskRecord, turn: Turn, caller: Caller) -> None:
        headers = dict(caller.headers)
        conversation = _inside(record)
        if conversation.isascii() and conversation.isprintable():
            headers[CONTEXT_HEADER] = conversation
        payload = {
            "id": record.id,
            "context": record.context_id,
            "skill": record.skill,
            "caller": caller.name,
            "turn": turn.number,
            "messages": record.messages(turn.number),
        }
        await _settled(
            lambda: self.tasks.submit(
                self.queue, payload, idempotency_key=turn.key, headers=headers, deadline=caller.deadline
            )
        )

    async def _write(self, record: TaskRecord, revision: int) -> int:
        return await self._records.update(self._key(record.id), record, revision=revision, ttl=LIFETIME)

    def _key(self, task_id: str) -> str:
        return f"{self._type}.{task_id.partition('.')[2]}"


async def _settled(attempt: Callable[[], Awaitable[T]]) -> T:
    """What `attempt` gives, tried for a while: a new inbox takes a moment until it is there and granted."""
    patience = PATIENCE
    while True:
        try:
            return await attempt()
        except (NotFound, Denied):
            if patience <= 0:
                raise
        patience -= _PAUSE
        await asyncio.sleep(_PAUSE)


def _inside(record: TaskRecord) -> str:
    """What the conversation is called in the mesh: what somebody at a gateway calls it is nobody else's."""
    _, _, rest = record.owner.partition("\n")
    submitter = rest.partition("\n")[0]
    return outside_context_id(submitter, record.context_id) if submitter else record.context_id


def _key(purpose: str, caller: Caller, task_id: str) -> str:
    """The same for the same caller's repetition of a request."""
    framed = "\0".join((purpose, caller.owner, task_id, caller.repetition))
    return hashlib.sha256(framed.encode(errors="replace")).hexdigest()


def _says(kept: Json, message: Json) -> bool:
    """Whether a message that is kept, with what was filled in, is this one."""
    return all(kept.get(name) == value for name, value in message.items())


def _check_same(record: TaskRecord, message: Json, skill: str | None) -> None:
    """Raise InvalidRequest unless the message goes on with this task's context and skill."""
    context_id = message.get("contextId")
    if context_id and context_id != record.context_id:
        raise InvalidRequest(f"task {record.id!r} belongs to another contextId than the message says")
    if skill is not None and skill != record.skill:
        raise InvalidRequest(f"task {record.id!r} is of skill {record.skill!r}: begin another task")
