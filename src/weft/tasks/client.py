"""Submitting tasks, and asking after them.

A submission first creates the task's record, then puts its message into the queue. Between the two its
submitter may die: then nobody was told that the task is there, and the record alone has no effect. Submitted
again with the same idempotency key, the record is found, and the message put into the queue. Then there may
be two messages for one task, of which one at a time can claim it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, replace
from typing import Any, TypedDict, Unpack

from weft.errors import Conflict, InvalidRequest, MeshError, NotFound, Unavailable
from weft.messaging.broker import MAX_DELAY, Broker, Priority
from weft.messaging.channel import Channel, ChannelKind
from weft.messaging.protection import NoProtection, Protection
from weft.model.queue import QueueSpec
from weft.model.task import Task, TaskEvent, TaskState
from weft.store.bucket import Entry, Store
from weft.tasks.cancelling import cancel_task
from weft.tasks.json_value import json_bytes
from weft.tasks.ledger import Ledger
from weft.tasks.listing import TaskPage, listed
from weft.tasks.metrics import SubmissionMetrics
from weft.tasks.news import TaskNews, entry_of, following, told, until_ended
from weft.tasks.records import MAX_TEXT_LENGTH, check_labels, lifetime
from weft.tasks.task_id import check_id, check_queue, derived_id, new_id
from weft.tasks.webhooks import check_webhook
from weft.tasks.wire import Submission, another_message_id, check_headers, message_for, payload_bytes

CONTEXT_HEADER = "x-weft-context"

MAX_RESULT_TTL = 30 * 86400.0
"""Seconds that a result may be kept."""

REPLICA_LAG = 0.1
"""Seconds that one replica of the store may be behind another: who finds nothing looks again after them."""

_MOST_TRIES = 20
"""How often a record is written at most when others write it at the same time."""

_PRIORITIES = {str(each.name).lower(): each for each in Priority}

Queues = Callable[[str], Awaitable[QueueSpec]]
"""Tells how a queue is declared. Raises NotFound."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of a submission."""

    task: Task
    created: bool
    """False if it had been submitted before, with the same idempotency key."""


class TaskClientOptions(TypedDict, total=False):
    """What a client of tasks may be told beyond what it needs."""

    protection: Protection | None
    """Without it tasks can't be submitted to encrypted queues."""
    metrics: SubmissionMetrics | None
    """Where it counts."""
    clock: Callable[[], float]
    """Tells the seconds since 1970."""


class TaskClient:
    """Submits tasks, and tells how they stand. Open it with `open`."""

    def __init__(
        self,
        ledger: Ledger,
        broker: Broker,
        queues: Queues,
        *,
        submitter: str,
        protection: Protection | None = None,
        metrics: SubmissionMetrics | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """As `open` and TaskClientOptions say."""
        self._ledger = ledger
        self._broker = broker
        self._queues = queues
        self._submitter = submitter
        self._protection = protection or NoProtection()
        self._metrics = metrics
        self._clock = clock

    @classmethod
    async def open(
        cls,
        store: Store,
        broker: Broker,
        queues: Queues,
        *,
        submitter: str,
        **options: Unpack[TaskClientOptions],
    ) -> TaskClient:
        """A client over `store` and `broker`, which stay the caller's to close.

        `submitter` is who submits, unless a submission says otherwise. Raises Unavailable and Denied.
        """
        return cls(await Ledger.open(store), broker, queues, submitter=submitter, **options)

    async def submit(
        self,
        queue: str,
        payload: Any,
        *,
        priority: str = "normal",
        delay: float | None = None,
        not_before: float | None = None,
        deadline: float | None = None,
        idempotency_key: str | None = None,
        result_ttl: float | None = None,
        webhook: str = "",
        headers: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        submitter: str | None = None,
    ) -> Submitted:
        """Put a task into a queue; when this returns it is stored.

        `payload` is bytes, or else what has a JSON. `delay` is in seconds; `not_before` and `deadline` are in
        seconds since 1970, `result_ttl` is in seconds (a second to 30 days); without these two the queue's
        are taken. What is submitted again by the same submitter, or another instance of its type, with the
        same `idempotency_key`, while the task's record is kept, is that task. `headers` reach the worker.

        Raises InvalidRequest; NotFound for a queue that is not declared; QueueFull; Conflict if the key was
        used with another payload; Denied; Unavailable, after which the task may be there all the same.
        """
        spec = await self._queues(check_queue(queue))
        body, content_type = payload_bytes(payload)
        now = self._clock()
        who = submitter or self._submitter
        task = _checked(
            Task(
                id=(
                    new_id(queue, now)
                    if idempotency_key is None
                    else derived_id(queue, _principal(who), idempotency_key)
                ),
                state=TaskState.QUEUED,
                submitted_at=now,
                submitter=who,
                priority=priority,
                not_before=_start(delay, not_before, now),
                deadline=now + spec.deadline if deadline is None and spec.deadline is not None else deadline,
                result_ttl=spec.result_ttl if result_ttl is None else result_ttl,
                webhook=webhook,
                context=(headers or {}).get(CONTEXT_HEADER, ""),
                labels=dict(labels or {}),
                fingerprint="" if idempotency_key is None else _fingerprint(idempotency_key, body),
            ),
            now,
        )
        check_headers(headers or {})
        submission = Submission(task, 0, content_type, dict(headers or {}), body, task.id)
        submitted = await self._submitted(submission, spec, repeatable=idempotency_key is not None)
        if self._metrics is not None:
            self._metrics.note(queue, created=submitted.created)
        return submitted

    async def get(self, task_id: str) -> Task:
        """How a task stands. Raises NotFound and Unavailable."""
        with suppress(NotFound):
            return (await entry_of(self._ledger, check_id(task_id))).value
        await asyncio.sleep(REPLICA_LAG)
        return (await entry_of(self._ledger, check_id(task_id))).value

    async def wait(self, task_id: str, timeout: float) -> Task:
        """The task once it has ended, or after `timeout` seconds as it stands then.

        Raises NotFound and Unavailable.
        """
        await self.get(task_id)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                return await until_ended(self._ledger, task_id)
        return await self.get(task_id)

    async def cancel(self, task_id: str) -> Task:
        """Cancel a task. One that runs is interrupted; one that has ended stays as it is.

        Raises NotFound, Unavailable, and Conflict if its record changes all the time.
        """
        await self.get(task_id)
        return await cancel_task(self._ledger, self._broker, task_id, clock=self._clock)

    async def list(
        self, queue: str, *, state: TaskState | None = None, limit: int = 100, before: str | None = None
    ) -> TaskPage:
        """The tasks of a queue whose records were written last, newest first; `before` is a page's `next`.

        Raises InvalidRequest, Unavailable, and Denied for members of the mesh.
        """
        return await listed(self._ledger, check_queue(queue), state=state, limit=limit, before=before)

    def follow(self, task_id: str, after: str = "") -> AbstractAsyncContextManager[AsyncIterator[TaskNews]]:
        """Each change of the task's state, and all that its worker tells, in order, until its end.

        Changes that follow each other closely may be told as one. `after` is the cursor of the last news
        that is known already, told by any process; empty for all. Entering it raises InvalidRequest for a
        cursor that is none, NotFound and Unavailable; so does reading on.
        """
        return following(self._ledger, check_id(task_id), after)

    async def told(self, task: Task) -> tuple[Sequence[TaskEvent], str]:
        """All that workers have told of `task`, as its record stands, and the cursor to follow it from there.

        Raises Unavailable.
        """
        return await told(self._ledger, task)

    def id_for(self, queue: str, idempotency_key: str) -> str:
        """The id of what this client's own submitter submits, or has submitted, with that key.

        Raises InvalidRequest for what is no key.
        """
        return derived_id(queue, _principal(self._submitter), idempotency_key)

    async def _submitted(self, submission: Submission, spec: QueueSpec, *, repeatable: bool) -> Submitted:
        task = submission.task
        for _ in range(_MOST_TRIES):
            try:
                revision = await self._ledger.records.create(
                    task.id, task, ttl=lifetime(task, task.submitted_at)
                )
            except Conflict:
                if not repeatable:
                    raise
                entry = await self._ledger.records.get(task.id)
                if entry is not None:
                    return await self._repeated(submission, entry, spec)
                await asyncio.sleep(REPLICA_LAG)  # expired just now, or is not known everywhere yet
            else:
                submission = replace(submission, revision=revision)
                return Submitted(await self._enqueued(submission, spec), created=True)
        raise Unavailable(f"task {task.id!r} can neither be made nor read; try again")

    async def _repeated(self, submission: Submission, entry: Entry[Task], spec: QueueSpec) -> Submitted:
        """What was submitted before: see that its message is in the queue."""
        task = entry.value
        if not hmac.compare_digest(task.fingerprint, submission.task.fingerprint):
            raise Conflict(
                f"task {task.id!r} was submitted with the same idempotency key and another payload: "
                "use a new key for a new task"
            )
        if task.state is not TaskState.QUEUED or task.attempts or task.enqueued:
            return Submitted(task, created=False)
        records = self._ledger.records
        with suppress(Conflict):  # then it is further on
            # Written anew, so that a first submitter who finds the queue full does not delete it.
            revision = await records.update(
                task.id, task, revision=entry.revision, ttl=lifetime(task, self._clock())
            )
            again = replace(submission, task=task, revision=revision, message_id=another_message_id(task.id))
            # If that fails the record stays: somebody may have been told that the task is there, and it is.
            await self._put(again, spec)
            known = replace(task, enqueued=True)
            await records.update(task.id, known, revision=revision, ttl=lifetime(known, self._clock()))
        return Submitted(task, created=False)

    async def _enqueued(self, submission: Submission, spec: QueueSpec) -> Task:
        """Put its message into the queue; if that fails have it be as if nothing had been submitted."""
        try:
            await self._put(submission, spec)
        except MeshError:
            begun = await self._withdrawn(submission)
            if begun is None:
                raise
            return begun
        return submission.task

    async def _put(self, submission: Submission, spec: QueueSpec) -> None:
        """Put its message into the queue."""
        task = submission.task
        delay = max(0.0, (task.not_before or 0.0) - self._clock())
        body = await self._protection.seal(
            Channel(ChannelKind.QUEUE, task.queue),
            submission.message_id,
            submission.content_type,
            submission.body,
            encrypted=spec.encrypted,
        )
        await self._broker.enqueue(
            task.queue,
            message_for(replace(submission, body=body)),
            priority=_PRIORITIES[task.priority],
            delay=min(delay, MAX_DELAY),
        )

    async def _withdrawn(self, submission: Submission) -> Task | None:
        """Delete the record again. The task, if a worker has begun it: its message got through after all."""
        task_id = submission.task.id
        try:
            await self._ledger.records.delete(task_id, revision=submission.revision)
        except Conflict:
            with suppress(Unavailable):
                entry = await self._ledger.records.get(task_id)
                if entry is not None and entry.value.state is not TaskState.QUEUED:
                    return entry.value
        except Unavailable:
            pass  # what is left expires some time, and has no effect till then
        return None


def _principal(submitter: str) -> str:
    """Whose idempotency keys are the same ones: a process that comes back may have another name."""
    return submitter.rpartition("/")[0] if submitter.startswith("spiffe://") else submitter


def _start(delay: float | None, not_before: float | None, now: float) -> float | None:
    if delay is not None and not_before is not None:
        raise InvalidRequest("a task has a delay or a time before which it must not start: give one of them")
    start = now + delay if delay is not None else not_before
    if start is None:
        return None
    if not start - now <= MAX_DELAY:  # true of NaN, too
        raise InvalidRequest(f"a task may be delayed by {MAX_DELAY / 86400:g} days at most")
    return start if start > now else None


def _checked(task: Task, now: float) -> Task:
    """`task`, if it may be submitted; else raises InvalidRequest."""
    if task.priority not in _PRIORITIES:
        raise InvalidRequest(f"{task.priority[:32]!r} is no priority: use high, normal or low")
    if not 1.0 <= task.result_ttl <= MAX_RESULT_TTL:
        raise InvalidRequest(f"results are kept for 1 s to {MAX_RESULT_TTL / 86400:g} days")
    if (
        task.deadline is not None
        and not max(now, task.not_before or 0.0) < task.deadline <= now + 365 * 86400
    ):
        raise InvalidRequest(
            "the deadline is over, before the time when the task may start, or more than a year from now"
        )
    if task.webhook:
        check_webhook(task.webhook)
    check_labels(task.labels)
    _check_texts(task)
    return task


def _check_texts(task: Task) -> None:
    """Raise InvalidRequest for what could be written down, but not be read again."""
    for name, text in (("submitter", task.submitter), ("conversation", task.context)):
        if len(text) > MAX_TEXT_LENGTH:
            raise InvalidRequest(f"the {name} of a task has at most {MAX_TEXT_LENGTH} characters")
    json_bytes([task.submitter, task.context, task.labels], "what a task is labelled with")


def _fingerprint(key: str, body: bytes) -> str:
    # With the key, which is written down nowhere, so that nobody can try out payloads of encrypted queues.
    return hmac.new(key.encode(), body, hashlib.sha256).hexdigest()[:32]
