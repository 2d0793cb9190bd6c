"""Working on the tasks of a queue.

What each step leaves behind if a process dies right after it, and who finishes the work:

| after | record | message | what happens then |
|---|---|---|---|
| submitter: record created | queued | none | nobody was told; submitted again with its key, it is enqueued |
| submitter: message enqueued | queued | waits | it is worked on; at most the submitter was not told |
| worker: message taken | queued | leased | the lease ends, another worker claims the task |
| worker: task claimed | running | leased | the lease ends; that the message which the record names is \
delivered again says that its worker is gone: another claims the task, or fails it after the last attempt |
| worker: result recorded | succeeded | leased | the lease ends; the next worker announces the end and acks |
| worker: end announced | succeeded | leased | the same: the announcement is made again, with the same id |
| worker: acked | succeeded | gone | nothing is left to do; a lost ack is as if it had not been sent |
| worker: retry recorded | queued, not before | leased | the lease ends; claimed when its time has come |
| worker: nacked | queued, not before | delayed | it is worked on |
| worker: failure recorded | failed | leased | the lease ends; the next announces and dead-letters it |
| worker: dead-lettered | failed | dead letter | nothing is left to do |
| anyone: cancellation recorded | cancelled | any | who gets the message acks it; a worker that runs \
the task hears of it by a signal, or when it looks or writes |
| admin: redrive recorded | queued | dead letter | redriven again, the message is put back |

So every record ends up succeeded, failed or cancelled, once: each write of it is on condition that it stands
where the writer knows it to stand. A worker that was thought dead and comes back cannot write any more, and
leaves the message alone, which is another's by then.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypedDict, Unpack

from weft.aio.tasks import TaskOwner
from weft.errors import InvalidRequest, MeshError, Refused, TimedOut
from weft.messaging.broker import Broker, Consumer, Delivery
from weft.messaging.channel import Channel, ChannelKind
from weft.messaging.processing import Processor
from weft.messaging.protection import NoProtection, Protection
from weft.model.queue import QueueSpec
from weft.model.task import Task, TaskError, TaskState
from weft.store.bucket import Store
from weft.tasks.attempt import Attempt, Runner, TaskRun
from weft.tasks.claims import Claims, Drop, Later, Limits, Over, Run, too_late
from weft.tasks.ending import Endings
from weft.tasks.interruption import Reason
from weft.tasks.json_value import json_value, written_text
from weft.tasks.leases import Leases
from weft.tasks.ledger import Ledger
from weft.tasks.metrics import WorkerMetrics
from weft.tasks.transitions import failed, handed_back, put_back, succeeded
from weft.tasks.wire import Submission, submission_in

logger = logging.getLogger(__name__)

PATIENCE = 60.0
"""Seconds for which a worker that has a result waits for a store that is away."""

GOODBYE = 5.0
"""Seconds that a worker takes, when it is stopped, to write down what became of a task."""

REFUSAL_PAUSE = 1.0
"""Seconds until a task is offered again that its agent was too busy for."""

MAX_DETAIL = 2048
"""Characters of an error that are kept."""


class WorkerOptions(TypedDict, total=False):
    """What a worker may be told beyond what it needs."""

    concurrency: int | None
    """How many tasks it runs at once (default: as many as the queue says)."""
    protection: Protection | None
    """Without it tasks of encrypted queues fail."""
    metrics: WorkerMetrics | None
    """Where it counts."""
    patience: float
    """Seconds for which a store that is away is waited for with a result in hand (default: 60)."""
    clock: Callable[[], float]
    """Tells the seconds since 1970."""


class Worker:
    """Works on the tasks of one queue, some at a time. Open it with `open`, then `run` it.

    To stop it, call `drain`, then await `drained`, then `aclose`.
    """

    def __init__(
        self,
        ledger: Ledger,
        broker: Broker,
        consumer: Consumer,
        queue: str,
        spec: QueueSpec,
        run: Runner,
        *,
        name: str,
        concurrency: int | None = None,
        protection: Protection | None = None,
        metrics: WorkerMetrics | None = None,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """As `open` and WorkerOptions say."""
        self._ledger = ledger
        self._consumer = consumer
        self._queue = queue
        self._spec = spec
        self._runner = run
        self._name = name
        self._protection = protection or NoProtection()
        self._metrics = metrics
        self._clock = clock
        self._claims = Claims(ledger.records, worker=name, clock=clock)
        self._endings = Endings(ledger, broker, patience=patience, clock=clock)
        self._leases = Leases(ledger, queue, interval=lambda: self._spec.visibility_timeout / 3)
        self._processor = Processor(
            consumer, self._handle, concurrency=concurrency or spec.concurrency, name=f"queue {queue}"
        )

    @classmethod
    async def open(
        cls,
        store: Store,
        broker: Broker,
        queue: str,
        spec: QueueSpec,
        run: Runner,
        *,
        name: str,
        **options: Unpack[WorkerOptions],
    ) -> Worker:
        """A worker over `store` and `broker`, which stay the caller's to close.

        `name` is `<type>.<instance>`. Raises NotFound if the queue was not declared; Denied; Unavailable.
        """
        ledger = await Ledger.open(store)
        consumer = await broker.queue_consumer(queue)
        return cls(ledger, broker, consumer, queue, spec, run, name=name, **options)

    @property
    def in_flight(self) -> int:
        """How many messages it has in hand."""
        return self._processor.in_flight

    def declare(self, spec: QueueSpec) -> None:
        """The queue is declared otherwise: its limits hold for attempts that begin from now on."""
        self._spec = spec

    async def run(self) -> None:
        """Work, until drained. Outages of store and broker are borne."""
        async with TaskOwner(f"worker of queue {self._queue}") as tasks:
            tasks.start(self._leases.keep(), name="keep leases", endless=True)
            tasks.start(self._leases.listen(), name="hear of cancellations", endless=True)
            await self._processor.run()

    def pause(self) -> None:
        """Take no more tasks until `resume`; those in hand go on."""
        self._processor.pause()

    def resume(self) -> None:
        """Take tasks again."""
        self._processor.resume()

    def drain(self) -> None:
        """Take no more tasks."""
        self._processor.drain()

    async def drained(self, timeout: float) -> None:
        """Wait until the tasks in hand are done; hand back those that are not after so many seconds."""
        await self._processor.drained(timeout)

    async def aclose(self) -> None:
        """Let go of the queue. To be called when `run` has ended."""
        await self._consumer.aclose()

    async def _handle(self, delivery: Delivery) -> None:
        """See to one message. Never raises anything but cancellation: a message that fails harms no other."""
        try:
            await self._received(delivery)
        except MeshError as error:
            logger.warning("queue %r: message %s waits: %s", self._queue, delivery.message.id, error.detail)
            await self._later(delivery)
        except Exception:  # whatever is wrong with one message, the others are to be seen to
            logger.exception("queue %r: message %s could not be seen to", self._queue, delivery.message.id)
            await self._later(delivery)

    async def _received(self, delivery: Delivery) -> None:
        try:
            submission = submission_in(delivery.message, self._queue)
        except InvalidRequest as error:
            logger.warning("%s", error.detail)
            await delivery.dead_letter(error.detail)
            return
        limits = Limits(self._spec.max_deliveries, self._spec.visibility_timeout)
        decision = await self._claims.claim(submission, deliveries=delivery.deliveries, limits=limits)
        match decision:
            case Run(task, revision):
                await self._attempted(task, revision, submission, delivery)
            case Over(task, just_now):
                await self._ledger.news.send(task.id)
                await self._endings.let_go(delivery, task)
                if just_now:
                    self._note_end(task)
            case Later(pause):
                await delivery.nack(pause)
            case Drop(reason):
                logger.info(
                    "message %s of queue %r is dropped: %s", submission.message_id, self._queue, reason
                )
                await delivery.ack()

    async def _attempted(self, task: Task, revision: int, submission: Submission, delivery: Delivery) -> None:
        begun = asyncio.get_running_loop().time()
        attempt = Attempt(task, revision, submission, delivery, begun)
        self._note_start(task)
        await self._ledger.news.send(task.id)
        self._leases.hold(attempt)
        after: Task | None = handed_back(task)
        try:
            try:
                after = await self._outcome(attempt)
                await self._concluded(attempt, after)
            except asyncio.CancelledError:
                # The worker is being stopped. What was written already is found written. If then the message
                # is let go of, or another worker's, nobody is to hand it back: this ends as if not cancelled.
                if not await self._concluded_quickly(attempt, after):
                    raise
        finally:
            self._leases.release(attempt)
            self._claims.release(task.id)

    async def _outcome(self, attempt: Attempt) -> Task | None:
        """Run the handler; the record that is to follow, or None if the task was taken away."""
        try:
            with attempt.scope:
                run = await self._run_for(attempt)
                result = await self._runner(run)
                value = (
                    None if result is None else json_value(result, f"the result of task {attempt.task.id!r}")
                )
                return succeeded(attempt.task, value, now=self._clock())
        except InvalidRequest as error:
            return self._given_up(attempt, _error_of(error))
        except Refused:
            return handed_back(attempt.task, not_before=self._clock() + REFUSAL_PAUSE)
        except MeshError as error:
            return self._failed(attempt, _error_of(error))
        except Exception as error:  # a handler is the user's own code, and may raise anything
            logger.exception("the handler of task %r failed", attempt.task.id)
            kind = type(error).__name__
            return self._failed(
                attempt, TaskError("agent-failed", f"{kind}; the log of {self._name} says more")
            )
        return self._stopped(attempt)

    def _stopped(self, attempt: Attempt) -> Task | None:
        """What follows after the handler was interrupted."""
        match attempt.scope.reason:
            case Reason.TIME_LIMIT:
                limit = self._spec.time_limit
                return self._failed(
                    attempt, TaskError(TimedOut.code, f"the attempt took longer than {limit:g} s, its limit")
                )
            case Reason.DEADLINE:
                return self._given_up(attempt, too_late("its deadline passed while it was worked on"))
        return None

    async def _run_for(self, attempt: Attempt) -> TaskRun:
        """What the handler gets; its time limit runs from now on. Raises what `Protection.open` does."""
        deadline = self._limit_time(attempt)
        submission = attempt.submission
        payload = await self._protection.open(
            Channel(ChannelKind.QUEUE, self._queue),
            submission.message_id,
            submission.content_type,
            submission.body,
            encrypted=self._spec.encrypted,
        )
        return TaskRun(attempt, payload, self._ledger, deadline=deadline, clock=self._clock)

    def _limit_time(self, attempt: Attempt) -> float | None:
        """Have the attempt end in time; when that is, in seconds since 1970."""
        now = self._clock()
        deadline, limit = attempt.task.deadline, self._spec.time_limit
        if limit is not None and (deadline is None or now + limit < deadline):
            attempt.scope.interrupt_later(limit, Reason.TIME_LIMIT)
            return now + limit
        if deadline is not None:
            attempt.scope.interrupt_later(max(0.0, deadline - now), Reason.DEADLINE)
        return deadline

    def _failed(self, attempt: Attempt, error: TaskError) -> Task:
        """What follows a failed attempt: another one, or none."""
        task = attempt.task
        next_start = self._clock() + self._spec.backoff.pause(max(1, task.failures))
        if task.failures >= self._spec.max_deliveries:
            return self._given_up(attempt, error)
        if task.deadline is not None and next_start >= task.deadline:
            return self._given_up(attempt, error)
        return put_back(task, error, not_before=next_start)

    def _given_up(self, attempt: Attempt, error: TaskError) -> Task:
        return failed(attempt.task, error, message_id=attempt.submission.message_id, now=self._clock())

    async def _concluded(self, attempt: Attempt, after: Task | None) -> None:
        """Write down what follows, and let go of the message accordingly."""
        if after is None:
            await self._taken_away(attempt)
            return
        settled = await self._endings.settle(attempt, after)
        task = settled.task
        if task is None or not settled.ours:
            await self._let_go_of_foreign(attempt, task)
        elif task.state.terminal:
            await self._endings.let_go(attempt.delivery, task)
            self._note_attempt(attempt, str(task.state))
            self._note_end(task)
        else:
            await attempt.delivery.nack(max(0.0, (task.not_before or 0.0) - self._clock()))
            self._note_attempt(attempt, "handed-back" if task.forgiven > attempt.task.forgiven else "retried")

    async def _concluded_quickly(self, attempt: Attempt, after: Task | None) -> bool:
        """The same for a worker that is being stopped; whether it could be done."""
        with suppress(TimeoutError, MeshError):
            async with asyncio.timeout(GOODBYE):
                await self._concluded(attempt, after)
                return True
        return False

    async def _taken_away(self, attempt: Attempt) -> None:
        entry = await self._ledger.records.get(attempt.task.id)
        await self._let_go_of_foreign(attempt, entry.value if entry else None)

    async def _let_go_of_foreign(self, attempt: Attempt, task: Task | None) -> None:
        """Somebody else wrote the record: if that was a cancellation the message is still this worker's."""
        if task is not None and task.state is TaskState.CANCELLED:
            await self._endings.let_go(attempt.delivery, task)
            self._note_attempt(attempt, str(task.state))
        else:
            logger.warning("task %r was taken over by another worker", attempt.task.id)
            self._note_attempt(attempt, "lost")

    async def _later(self, delivery: Delivery) -> None:
        with suppress(MeshError):
            await delivery.nack(self._spec.backoff.pause(delivery.deliveries))

    def _note_start(self, task: Task) -> None:
        if self._metrics is not None and task.attempts == 1:
            could = max(task.submitted_at, task.not_before or 0.0)
            self._metrics.note_start(self._queue, (task.started_at or could) - could)

    def _note_end(self, task: Task) -> None:
        if self._metrics is not None:
            self._metrics.note_end(self._queue, str(task.state))

    def _note_attempt(self, attempt: Attempt, outcome: str) -> None:
        if self._metrics is not None:
            seconds = asyncio.get_running_loop().time() - attempt.begun
            self._metrics.note_attempt(self._queue, outcome, seconds)


def _error_of(error: MeshError) -> TaskError:
    return TaskError(error.code, written_text(error.detail, MAX_DETAIL))
