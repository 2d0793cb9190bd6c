"""Tasks, from submission to the end, over every broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry
from pydantic_core import from_json
from tests.conformance.running_broker import RunningBroker
from tests.conformance.task_scene import LIMIT, TaskScene, ended, in_state, task_scene
from tests.servers import nats_server

from weft.aio.poll import until
from weft.errors import Conflict, Denied, InvalidRequest, NotFound, QueueFull, Refused
from weft.messaging.broker import Delivery
from weft.messaging.channel import Channel
from weft.messaging.message import Message
from weft.model.message_subjects import WEBHOOK_QUEUE
from weft.model.task import Task, TaskError, TaskEventKind, TaskState
from weft.store.bucket import Store
from weft.store.memory import MemoryStore
from weft.store.nats import NatsStore
from weft.tasks import attempt
from weft.tasks.attempt import TaskRun
from weft.tasks.claims import TOO_MANY_DELIVERIES, Claims, Limits, Run
from weft.tasks.ledger import Ledger
from weft.tasks.metrics import SubmissionMetrics, WorkerMetrics
from weft.tasks.purge import Purge
from weft.tasks.redrive import Redrive
from weft.tasks.transitions import failed, succeeded
from weft.tasks.wire import submission_in

pytestmark = pytest.mark.asyncio(loop_scope="session")

NO_LUCK = TaskError("internal", "no luck")


class Mirror:
    """A Protection that writes backwards, bound to the message."""

    async def seal(
        self, channel: Channel, message_id: str, content_type: str, body: bytes, *, encrypted: bool
    ) -> bytes:
        return f"{channel} {message_id} {content_type} ".encode() + body[::-1] if encrypted else body

    async def open(
        self, channel: Channel, message_id: str, content_type: str, body: bytes, *, encrypted: bool
    ) -> bytes:
        if not encrypted:
            return body
        bound = f"{channel} {message_id} {content_type} ".encode()
        assert body.startswith(bound)
        return body.removeprefix(bound)[::-1]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def task_store(
    running: RunningBroker, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Store]:
    """The store beside each broker: in NATS, or for the broker in memory in memory, too."""
    if not running.durable:
        yield MemoryStore()
        return
    async with nats_server(tmp_path_factory.mktemp("tasks")) as server:
        store = await NatsStore.connect([server.url], name="tasks")
        yield store
        await store.close()


@pytest_asyncio.fixture(loop_scope="session")
async def tasks(running: RunningBroker, task_store: Store) -> AsyncIterator[TaskScene]:
    """Each broker, with a store."""
    async with task_scene(running, task_store) as scene:
        yield scene


async def test_a_task_is_run_and_its_result_kept(tasks: TaskScene) -> None:
    queue = await tasks.queue()
    client = await tasks.client()
    submitted = await client.submit(queue, 21, labels={"team": "blue"}, headers={"x-weft-context": "c1"})
    assert submitted.created
    assert (await client.get(submitted.task.id)).state is TaskState.QUEUED
    async with tasks.worker(queue):
        task = await ended(client, submitted.task.id)
    assert (task.state, task.result, task.attempts) == (TaskState.SUCCEEDED, {"twice": 42}, 1)
    assert (task.worker, task.context, task.labels) == ("adder.one", "c1", {"team": "blue"})
    assert task.started_at is not None
    assert task.finished_at is not None
    assert task.submitted_at <= task.started_at <= task.finished_at
    await nothing_left(tasks, queue)


async def test_what_is_submitted_reaches_the_handler(tasks: TaskScene) -> None:
    queue = await tasks.queue()
    client = await tasks.client()
    seen: list[tuple[bytes, str, dict[str, str]]] = []

    async def look(run: TaskRun) -> None:
        seen.append((run.payload, run.content_type, dict(run.headers)))

    await client.submit(queue, {"a": ["ü", None]}, headers={"traceparent": "00-1-2-01"})
    last = await client.submit(queue, b"\x00\xff")
    async with tasks.worker(queue, look, concurrency=1):
        await ended(client, last.task.id)
    assert seen == [
        ('{"a":["ü",null]}'.encode(), "application/json", {"traceparent": "00-1-2-01"}),
        (b"\x00\xff", "application/octet-stream", {}),
    ]


async def test_a_failed_attempt_is_made_again(tasks: TaskScene) -> None:
    queue = await tasks.queue(max_deliveries=3)
    client = await tasks.client()
    states: list[Task] = []

    async def third_time(run: TaskRun) -> int:
        states.append(run.task)
        if run.attempt < 3:
            raise RuntimeError("not yet")
        return run.attempt

    submitted = await client.submit(queue, None)
    async with tasks.worker(queue, third_time):
        task = await ended(client, submitted.task.id)
    assert (task.state, task.result, task.attempts) == (TaskState.SUCCEEDED, 3, 3)
    assert task.error is None
    assert [each.attempts for each in states] == [1, 2, 3]
    assert states[2].error is not None
    assert "RuntimeError" in states[2].error.detail


async def test_after_its_last_attempt_a_task_is_a_dead_letter(tasks: TaskScene) -> None:
    queue = await tasks.queue(max_deliveries=2)
    client = await tasks.client()

    async def never(run: TaskRun) -> None:
        raise NotFound("no such thing")

    submitted = await client.submit(queue, "x")
    async with tasks.worker(queue, never):
        task = await ended(client, submitted.task.id)
        await dead_letters(tasks, queue, 1)
    assert (task.state, task.attempts) == (TaskState.FAILED, 2)
    assert task.error is not None
    assert (task.error.code, task.error.detail) == ("not-found", "no such thing")
    [dead] = await tasks.broker.peek(queue, limit=10, dead=True)
    assert (dead.message.id, dead.reason) == (task.id, "not-found: no such thing")


async def test_what_makes_no_sense_is_not_tried_again(tasks: TaskScene) -> None:
    queue = await tasks.queue(max_deliveries=5)
    client = await tasks.client()

    async def picky(run: TaskRun) -> Any:
        if run.payload == b'"large"':
            return "x" * 1024 * 1024
        if run.payload == b'"deep"':
            nested: list[Any] = []
            for _ in range(10_000):
                nested = [nested]
            return nested
        if run.payload == b'"object"':
            return object()
        raise InvalidRequest("nonsense")

    kinds = ["bad", "large", "deep", "object"]
    submitted = [await client.submit(queue, each) for each in kinds]
    async with tasks.worker(queue, picky):
        ends = [await ended(client, each.task.id) for each in submitted]
    assert {(each.state, each.attempts) for each in ends} == {(TaskState.FAILED, 1)}
    assert {each.error.code for each in ends if each.error} == {"invalid-request"}


async def test_garbage_in_the_queue_is_put_aside_and_blocks_nothing(tasks: TaskScene) -> None:
    queue = await tasks.queue()
    client = await tasks.client()
    good = await client.submit(queue, 1)
    forged = Message("q.0000000000000000000000000a", b"1", {"weft-task": "{}", "weft-revision": "1"})
    broken = Message(good.task.id, b"", {"weft-task": "[", "weft-revision": "1"})
    for garbage in (Message("x", b"\xff"), forged, broken):
        await tasks.broker.enqueue(queue, garbage)
    last = await client.submit(queue, 2)
    async with tasks.worker(queue, concurrency=1):
        assert (await ended(client, good.task.id)).result == {"twice": 2}
        assert (await ended(client, last.task.id)).result == {"twice": 4}
        await dead_letters(tasks, queue, 3)
    dead = await tasks.broker.peek(queue, limit=10, dead=True)
    assert all("carries" in each.reason for each in dead)


async def test_an_idempotency_key_makes_one_task_of_several_submissions(tasks: TaskScene) -> None:
    queue = await tasks.queue()
    client = await tasks.client()
    first = await client.submit(queue, 1, idempotency_key="k")
    assert client.id_for(queue, "k") == first.task.id
    again = await client.submit(queue, 1, idempotency_key="k")
    more = await client.submit(queue, 1, idempotency_key="k")
    assert (first.created, again.created, more.created) == (True, False, False)
    assert first.task.id == again.task.id == more.task.id
    with pytest.raises(Conflict, match="another payload"):
        await client.submit(queue, 2, idempotency_key="k")
    other = await client.submit(queue, 2, idempotency_key="k", submitter="key:somebody-else")
    assert other.created
    runs: list[str] = []

    async def count(run: TaskRun) -> None:
        runs.append(run.task.id)

    async with tasks.worker(queue, count):
        await ended(client, first.task.id)
        await ended(client, other.task.id)
        await nothing_left(tasks, queue)
    assert sorted(runs) == sorted([first.task.id, other.task.id])
    late = await client.submit(queue, 1, idempotency_key="k")
    assert (late.created, late.task.state) == (False, TaskState.SUCCEEDED)


async def test_a_submitter_that_died_before_enqueuing_is_made_good_by_its_key(tasks: TaskScene) -> None:
    queue = await tasks.queue()
    client = await tasks.client()
    ledger = await Ledger.open(tasks.store)
    first = await client.submit(queue, 1, idempotency_key="k")
    await tasks.broker.purge(queue)
    assert (await ledger.records.get(first.task.id)) is not None
    await client.submit(queue, 1, idempotency_key="k")
    async with tasks.worker(queue):
        assert (await ended(client, first.task.id)).result == {"twice": 2}


async def test_a_full_queue_refuses_and_leaves_nothing_behind(tasks: TaskScene) -> None:
    queue = await tasks.queue(max_length=2)
    client = await tasks.client()
    await client.submit(queue, 1)
    await client.submit(queue, 2)
    with pytest.raises(QueueFull):
        await client.submit(queue, 3, idempotency_key="k")
    assert len((await client.list(queue)).tasks) == 2
    async with tasks.worker(queue):
        await nothing_left(tasks, queue)

    async def taken() -> bool:
        # A server may say for a moment yet that there is no room.
        with suppress(QueueFull):
            return (await client.submit(queue, 3, idempotency_key="k")).created
        return False

    async with asyncio.timeout(LIMIT):
        await until(taken)


async def test_a_task_that_was_taken_outlives_its_repetition_into_a_full_queue(tasks: TaskScene) -> None:
    queue = await tasks.queue(max_length=1)
    client = await tasks.client()
    taken = await client.submit(queue, 1, idempotency_key="k")
    with pytest.raises(QueueFull):
        await client.submit(queue, 1, idempotency_key="k")
    async with tasks.worker(queue):
        assert (await ended(client, taken.task.id)).result == {"twice": 2}


async def test_submissions_that_make_no_sense_are_refused(tasks: TaskScene) -> None:
    queue = await tasks.queue()
    client = await tasks.client()
    with pytest.raises(NotFound):
        await client.submit("nowhere", 1)
    now = time.time()
    refused: list[dict[str, Any]] = [
        {"priority": "urgent"},
        {"delay": 1.0, "not_before": now},
        {"delay": 1e9},
        {"delay": float("nan")},
        {"deadline": now - 1},
        {"deadline": now + 5, "delay": 10},
        {"result_ttl": 0.0},
        {"webhook": "ftp://x/"},
        {"headers": {"weft-task": "{}"}},
        {"headers": {"X": "y"}},
        {"labels": {str(each): "" for each in range(17)}},
        {"idempotency_key": ""},
        {"labels": {"a": "\ud800"}},
        {"submitter": "x" * 5000},
        {"headers": {"x-weft-context": "x" * 5000}},
    ]
    for options in refused:
        with pytest.raises(InvalidRequest):
            await client.submit(queue, 1, **options)
    with pytest.raises(InvalidRequest):
        await client.submit(queue, "x" * 1024 * 1024)
    assert not (await client.list(queue)).tasks
    for task_id in ("", "x", f"{queue}.0000000000000000000000000z", f"{queue}.00000000000000000000000000"):
        with pytest.raises(NotFound):
            await client.get(task_id)


async def test_a_delayed_task_is_not_begun_before_its_time(tasks: TaskScene) -> None:
    queue = await tasks.queue()
    client = await tasks.client()
    later = await client.submit(queue, 1, delay=1.5)
    now = await client.submit(queue, 2)
    async with tasks.worker(queue):
        first = await ended(client, now.task.id)
        second = await ended(client, later.task.id)
    assert first.started_at is not None
    assert second.started_at is not None
    assert second.started_at - second.submitted_at > 1.0


async def test_a_task_past_its_deadline_fails_without_being_run(tasks: TaskScene) -> None:
    queue = await tasks.queue(deadline="30m")
    client = await tasks.client()
    submitted = await (await tasks.client(clock=lambda: time.time() - 3600)).submit(queue, 1)
    async with tasks.worker(queue):
        task = await ended(client, submitted.task.id)
    assert task.error is not None
    assert (task.state, task.error.code, task.attempts) == (TaskState.FAILED, "deadline-exceeded", 0)
    # Redriven it has as much time once more.
    await dead_letters(tasks, queue, 1)
    assert await (await Redrive.open(tasks.store, tasks.broker)).redrive(queue) == 1
    async with tasks.worker(queue):
        assert (await ended(client, submitted.task.id)).result == {"twice": 2}


async def test_an_attempt_has_a_time_limit_and_a_task_a_deadline(tasks: TaskScene) -> None:
    queue = await tasks.queue(time_limit="200ms", max_deliveries=2)
    client = await tasks.client()
    cut_off: list[int] = []

    async def hang(run: TaskRun) -> None:
        try:
            await asyncio.sleep(LIMIT)
        except asyncio.CancelledError:
            cut_off.append(run.attempt)
            raise

    slow = await client.submit(queue, 1)
    async with tasks.worker(queue, hang):
        task = await ended(client, slow.task.id)
        assert task.error is not None
        assert (task.state, task.error.code, cut_off) == (TaskState.FAILED, "timed-out", [1, 2])
        late = await client.submit(queue, 1, deadline=time.time() + 0.1)
        task = await ended(client, late.task.id)
        assert task.error is not None
        assert (task.state, task.error.code) == (TaskState.FAILED, "deadline-exceeded")


async def test_cancelling_reaches_a_running_handler(tasks: TaskScene) -> None:
    queue = await tasks.queue()
    client = await tasks.client()
    stopped = asyncio.Event()

    async def hang(run: TaskRun) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            stopped.set()

    submitted = await client.submit(queue, 1)
    async with tasks.worker(queue, hang):
        await in_state(client, submitted.task.id, TaskState.RUNNING)
        assert (await client.cancel(submitted.task.id)).state is TaskState.CANCELLED
        async with asyncio.timeout(LIMIT):
            await stopped.wait()
        await nothing_left(tasks, queue)
        after = await client.submit(queue, 2)
        await in_state(client, after.task.id, TaskState.RUNNING)
    assert (await client.get(submitted.task.id)).state is TaskState.CANCELLED


async def test_a_cancelled_task_that_waits_is_never_run(tasks: TaskScene) -> None:
    queue = await tasks.queue()
    client = await tasks.client()
    submitted = await client.submit(queue, 1)
    await client.cancel(submitted.task.id)
    ran: list[str] = []

    async def note(run: TaskRun) -> None:
        ran.append(run.task.id)

    async with tasks.worker(queue, note):
        await nothing_left(tasks, queue)
    assert not ran
    assert (await client.cancel(submitted.task.id)).state is TaskState.CANCELLED
    with pytest.raises(NotFound):
        await client.cancel(f"{queue}.00000000000000000000000000")


async def test_a_result_that_comes_after_the_cancellation_is_dropped(tasks: TaskScene) -> None:
    queue = await tasks.queue()
    client = await tasks.client()
    go_on = asyncio.Event()

    async def stubborn(run: TaskRun) -> str:
        try:
            await go_on.wait()
        except asyncio.CancelledError:
            return "all the same"
        return "done"

    submitted = await client.submit(queue, 1)
    async with tasks.worker(queue, stubborn):
        await in_state(client, submitted.task.id, TaskState.RUNNING)
        await client.cancel(submitted.task.id)
        await nothing_left(tasks, queue)
    task = await client.get(submitted.task.id)
    assert (task.state, task.result) == (TaskState.CANCELLED, None)


async def test_progress_and_partial_results_are_followed_in_order(tasks: TaskScene) -> None:
    queue = await tasks.queue(max_deliveries=2)
    client = await tasks.client()
    begun = asyncio.Event()

    async def tell(run: TaskRun) -> str:
        await run.partial({"n": 1})
        await run.progress(0.5, "half")
        await begun.wait()
        await run.partial({"n": 2})
        if run.attempt == 1:
            raise RuntimeError("once more")
        await run.partial({"n": 3})
        return "end"

    submitted = await client.submit(queue, 1)
    task_id = submitted.task.id
    async with tasks.worker(queue, tell), asyncio.timeout(LIMIT):
        news = []
        async with client.follow(task_id) as following:
            async for each in following:
                news.append(each)
                if each.event is not None and each.event.kind is TaskEventKind.PROGRESS:
                    begun.set()
    states = [(each.task.state, each.task.attempts) for each in news if each.task]
    assert states[-1] == (TaskState.SUCCEEDED, 2)
    assert (TaskState.RUNNING, 1) in states
    told = [(each.event.attempt, each.event.data) for each in news if each.event]
    half = {"fraction": 0.5, "message": "half"}
    assert told == [
        (1, {"n": 1}),
        (1, half),
        (1, {"n": 2}),
        (2, {"n": 1}),
        (2, half),
        (2, {"n": 2}),
        (2, {"n": 3}),
    ]
    # From any place one may go on, at another process.
    other = await tasks.client("spiffe://weft.local/agent/tester/two")
    for place in range(len(news)):
        async with asyncio.timeout(LIMIT), other.follow(task_id, news[place].cursor) as following:
            rest = [each async for each in following]
        assert [each.event for each in rest if each.event] == [
            each.event for each in news[place + 1 :] if each.event
        ]
        assert [each.task.state for each in rest if each.task] == (
            [] if place == len(news) - 1 else [TaskState.SUCCEEDED]
        )
    with pytest.raises(InvalidRequest):
        async with other.follow(task_id, "x"):
            pass
    task = await client.get(task_id)
    assert task.progress is not None
    assert task.progress.message == "half"
    # What was told may be read at once, too, and followed from there.
    events, cursor = await other.told(task)
    assert list(events) == [each.event for each in news if each.event]
    async with asyncio.timeout(LIMIT), other.follow(task_id, cursor) as following:
        rest = [each async for each in following]
    assert [each.event for each in rest] == [None]


async def test_much_that_was_told_is_read_at_once(tasks: TaskScene) -> None:
    queue = await tasks.queue()
    client = await tasks.client()

    async def tell(run: TaskRun) -> None:
        for number in range(200):
            await run.partial(number)

    submitted = await client.submit(queue, 1)
    async with tasks.worker(queue, tell):
        task = await client.wait(submitted.task.id, LIMIT)
    events, _ = await client.told(task)
    assert [each.data for each in events] == list(range(200))


async def test_a_task_whose_partial_results_are_too_large_together_fails_and_keeps_those_it_told(
    tasks: TaskScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "MAX_PARTIAL_BYTES", 1000)
    queue = await tasks.queue(max_deliveries=3)
    client = await tasks.client()

    async def tell(run: TaskRun) -> None:
        for _ in range(3):
            await run.partial("x" * 400)

    submitted = await client.submit(queue, 1)
    async with tasks.worker(queue, tell):
        task = await client.wait(submitted.task.id, LIMIT)
    assert (task.state, task.attempts) == (TaskState.FAILED, 1), "it would fail again"
    assert task.error is not None
    assert "1000 bytes together" in task.error.detail
    events, _ = await client.told(task)
    assert [each.data for each in events] == ["x" * 400] * 2


async def test_waiting_ends_with_the_task_or_with_patience(tasks: TaskScene) -> None:
    queue = await tasks.queue()
    client = await tasks.client()
    submitted = await client.submit(queue, 3)
    assert (await client.wait(submitted.task.id, 0.05)).state is TaskState.QUEUED
    waiting = asyncio.create_task(client.wait(submitted.task.id, LIMIT))
    async with tasks.worker(queue):
        assert (await waiting).result == {"twice": 6}


async def test_a_worker_takes_no_more_than_its_concurrency_and_high_priority_first(tasks: TaskScene) -> None:
    queue = await tasks.queue(concurrency=2)
    client = await tasks.client()
    order: list[bytes] = []
    running = 0
    most = 0

    async def busy(run: TaskRun) -> None:
        nonlocal running, most
        order.append(run.payload)
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    submitted = [
        await client.submit(queue, f"{priority}{n}", priority=priority)
        for priority in ("low", "normal", "high")
        for n in range(4)
    ]
    async with tasks.worker(queue, busy) as worker:
        for each in submitted:
            await ended(client, each.task.id)
        assert worker.in_flight <= 2
    assert most == 2
    assert [each[1:2] for each in order[:4]] == [b"h"] * 4
    assert [each[1:2] for each in order[-4:]] == [b"l"] * 4


async def test_a_drained_worker_hands_back_what_it_cannot_finish(tasks: TaskScene) -> None:
    queue = await tasks.queue(max_deliveries=1)
    client = await tasks.client()

    async def hang(run: TaskRun) -> None:
        await asyncio.sleep(3600)

    submitted = await client.submit(queue, 4)
    async with tasks.worker(queue, hang):
        await in_state(client, submitted.task.id, TaskState.RUNNING)
    assert (await client.get(submitted.task.id)).state is TaskState.QUEUED
    async with tasks.worker(queue, name="adder.two"):
        task = await ended(client, submitted.task.id)
    # The attempt that was handed back does not count: of one that may be made, one was.
    assert (task.result, task.attempts, task.worker) == ({"twice": 8}, 2, "adder.two")


async def test_a_draining_worker_finishes_what_it_can(tasks: TaskScene) -> None:
    queue = await tasks.queue()
    client = await tasks.client()
    go_on = asyncio.Event()

    async def wait(run: TaskRun) -> str:
        await go_on.wait()
        return "finished"

    submitted = await client.submit(queue, 4)
    async with tasks.worker(queue, wait) as worker:
        await in_state(client, submitted.task.id, TaskState.RUNNING)
        draining = asyncio.create_task(worker.drained(LIMIT))
        await asyncio.sleep(0)
        go_on.set()
        await draining
    assert (await client.get(submitted.task.id)).result == "finished"


async def test_a_busy_agent_is_asked_again_without_counting(tasks: TaskScene) -> None:
    queue = await tasks.queue(max_deliveries=1)
    client = await tasks.client()

    async def busy(run: TaskRun) -> str:
        if run.attempt == 1:
            raise Refused("busy")
        return "done"

    submitted = await client.submit(queue, 4)
    async with tasks.worker(queue, busy):
        assert (await ended(client, submitted.task.id)).result == "done"


async def test_work_longer_than_the_visibility_timeout_is_not_given_to_another(tasks: TaskScene) -> None:
    queue = await tasks.queue(visibility_timeout="3s")
    client = await tasks.client()
    attempts: list[str] = []

    async def slow(run: TaskRun) -> None:
        attempts.append(run.task.worker)
        await asyncio.sleep(5)

    submitted = await client.submit(queue, 4)
    async with tasks.worker(queue, slow), tasks.worker(queue, slow, name="adder.two"):
        task = await ended(client, submitted.task.id)
    assert len(attempts) == task.attempts == 1


async def test_a_worker_that_dies_with_a_task_is_replaced(tasks: TaskScene) -> None:
    queue = await tasks.queue(visibility_timeout="1s")
    client = await tasks.client()
    submitted = await client.submit(queue, 5)
    ledger = await Ledger.open(tasks.store)
    async with tasks.doomed(queue) as delivery:
        claims = Claims(ledger.records, worker="adder.doomed", clock=time.time)
        claim = await claims.claim(
            submission_in(delivery.message, queue), deliveries=1, limits=Limits(2, 1.0)
        )
        assert isinstance(claim, Run)
    async with tasks.worker(queue):
        task = await ended(client, submitted.task.id)
        await nothing_left(tasks, queue)
    assert (task.result, task.attempts, task.worker) == ({"twice": 10}, 2, "adder.one")
    # The dead one, should it come back, changes nothing.
    late = succeeded(claim.task, "late", now=time.time())
    with pytest.raises(Conflict):
        await ledger.records.update(task.id, late, revision=claim.revision)


async def test_a_task_that_kills_its_workers_becomes_a_dead_letter(tasks: TaskScene) -> None:
    queue = await tasks.queue(visibility_timeout="1s", max_deliveries=1)
    client = await tasks.client()
    submitted = await client.submit(queue, 5)
    ledger = await Ledger.open(tasks.store)
    async with tasks.doomed(queue) as delivery:
        await claimed_by_the_doomed(ledger, delivery, max_deliveries=1)
    async with tasks.worker(queue):
        task = await ended(client, submitted.task.id)
        await dead_letters(tasks, queue, 1)
    assert task.error is not None
    assert (task.state, task.error.code) == (TaskState.FAILED, TOO_MANY_DELIVERIES)
    assert "adder.doomed" in task.error.detail


@pytest.mark.parametrize("state", [TaskState.SUCCEEDED, TaskState.FAILED])
async def test_what_a_dead_worker_left_undone_after_the_result_is_done(
    tasks: TaskScene, state: TaskState
) -> None:
    await tasks.webhooks()
    queue = await tasks.queue(visibility_timeout="1s")
    client = await tasks.client()
    submitted = await client.submit(queue, 5, webhook="https://example.com/hook")
    ledger = await Ledger.open(tasks.store)
    async with tasks.doomed(queue) as delivery:
        claim = await claimed_by_the_doomed(ledger, delivery, max_deliveries=2)
        after = succeeded(claim.task, "kept", now=time.time())
        if state is TaskState.FAILED:
            after = failed(claim.task, NO_LUCK, message_id=delivery.message.id, now=time.time())
        await ledger.records.update(after.id, after, revision=claim.revision)
    async with tasks.worker(queue):
        await dead_letters(tasks, queue, 1 if state is TaskState.FAILED else 0)
        [hook] = await announced(tasks, 1)
        await nothing_left(tasks, queue)
    assert (await client.get(submitted.task.id)) == after
    dead = await tasks.broker.peek(queue, limit=10, dead=True)
    assert [each.message.id for each in dead] == ([after.id] if state is TaskState.FAILED else [])
    assert hook.id == f"{after.id}-{state}"
    assert from_json(hook.body) == {"task": after.id, "url": "https://example.com/hook"}


async def test_every_end_is_announced_to_its_webhook(tasks: TaskScene) -> None:
    await tasks.webhooks()
    queue = await tasks.queue()
    client = await tasks.client()

    async def some(run: TaskRun) -> None:
        if run.payload == b"1":
            raise InvalidRequest("no")

    good, bad = [await client.submit(queue, n, webhook="https://example.com/") for n in range(2)]
    unwanted = await client.submit(queue, 2, webhook="https://example.com/", delay=60)
    await client.cancel(unwanted.task.id)
    await client.cancel(unwanted.task.id)
    async with tasks.worker(queue, some):
        await ended(client, good.task.id)
        await ended(client, bad.task.id)
        hooks = await announced(tasks, 3)
    assert sorted(each.id for each in hooks) == sorted(
        [f"{good.task.id}-succeeded", f"{bad.task.id}-failed", f"{unwanted.task.id}-cancelled"]
    )


async def test_a_failed_task_is_redriven_with_all_its_attempts(tasks: TaskScene) -> None:
    queue = await tasks.queue(max_deliveries=2)
    client = await tasks.client()
    healthy = asyncio.Event()

    async def fragile(run: TaskRun) -> str:
        if not healthy.is_set() or run.attempt == 3:
            raise RuntimeError("ill")
        return "well"

    submitted = [await client.submit(queue, each) for each in range(3)]
    redrive = await Redrive.open(tasks.store, tasks.broker)
    async with tasks.worker(queue, fragile):
        for each in submitted:
            assert (await ended(client, each.task.id)).state is TaskState.FAILED
        await dead_letters(tasks, queue, 3)
        healthy.set()
        assert await redrive.redrive(queue, [submitted[0].task.id]) == 1
        one = await ended(client, submitted[0].task.id)
        assert (one.result, one.attempts) == ("well", 4)
        assert await redrive.redrive(queue) == 2
        for each in submitted[1:]:
            assert (await ended(client, each.task.id)).result == "well"
        assert await redrive.redrive(queue) == 0


async def test_purging_a_queue_cancels_what_waits_in_it(tasks: TaskScene) -> None:
    queue = await tasks.queue(concurrency=1)
    client = await tasks.client()
    go_on = asyncio.Event()

    async def wait(run: TaskRun) -> None:
        await go_on.wait()

    running, waiting, delayed = [
        await client.submit(queue, n, delay=delay) for n, delay in enumerate((0, 1, 60))
    ]
    async with tasks.worker(queue, wait):
        await in_state(client, running.task.id, TaskState.RUNNING)
        purge = await Purge.open(tasks.store, tasks.broker)
        assert await purge.purge(queue) == 2
        go_on.set()
        assert (await ended(client, running.task.id)).state is TaskState.SUCCEEDED
    for each in (waiting, delayed):
        assert (await client.get(each.task.id)).state is TaskState.CANCELLED


async def test_tasks_of_a_queue_that_is_removed_are_cancelled_wherever_they_stand(tasks: TaskScene) -> None:
    queue = await tasks.queue(concurrency=1)
    client = await tasks.client()
    done = await client.submit(queue, 1)
    async with tasks.worker(queue):
        await ended(client, done.task.id)
    waiting = await client.submit(queue, 2)
    async with tasks.doomed(queue) as delivery:
        claims = Claims((await Ledger.open(tasks.store)).records, worker="gone.one", clock=time.time)
        claimed = await claims.claim(
            submission_in(delivery.message, queue), deliveries=1, limits=Limits(5, 30.0)
        )
        assert isinstance(claimed, Run)
    await tasks.broker.remove_queue(queue)
    await (await Purge.open(tasks.store, tasks.broker)).give_up(queue)
    assert (await client.get(waiting.task.id)).state is TaskState.CANCELLED
    assert (await client.get(done.task.id)).state is TaskState.SUCCEEDED


async def test_payloads_of_an_encrypted_queue_are_sealed_on_their_way(tasks: TaskScene) -> None:
    queue = await tasks.queue(encrypted=True, max_deliveries=1)
    client = await tasks.client(protection=Mirror())
    with pytest.raises(Denied):
        await (await tasks.client()).submit(queue, "secret")
    submitted = await client.submit(queue, "secret")
    [stored] = await tasks.broker.peek(queue, limit=10)
    assert b"secret" not in stored.message.body
    seen: list[bytes] = []

    async def look(run: TaskRun) -> None:
        seen.append(run.payload)

    async with tasks.worker(queue, look, protection=Mirror()):
        await ended(client, submitted.task.id)
    assert seen == [b'"secret"']
    locked_out = await client.submit(queue, "secret")
    async with tasks.worker(queue, look):
        task = await ended(client, locked_out.task.id)
    assert task.error is not None
    assert (task.error.code, len(seen)) == ("denied", 1)


async def test_what_workers_and_submitters_do_is_counted(tasks: TaskScene) -> None:
    queue = await tasks.queue()
    registry = CollectorRegistry()
    client = await tasks.client(metrics=SubmissionMetrics(registry))
    for number in (1, 1, 2):
        await client.submit(queue, number, idempotency_key=str(number))
    last = await client.submit(queue, "no number")
    strict = await tasks.spec(await tasks.queue(max_deliveries=1))
    async with tasks.worker(queue, concurrency=1, metrics=WorkerMetrics(registry)) as worker:
        worker.declare(strict)
        await ended(client, last.task.id)
        await dead_letters(tasks, queue, 1)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, {"queue": queue, **labels})

    assert (value("weft_tasks_submitted_total"), value("weft_tasks_resubmitted_total")) == (3, 1)
    assert value("weft_tasks_finished_total", state="succeeded") == 2
    assert value("weft_tasks_finished_total", state="failed") == 1
    assert value("weft_task_attempts_total", outcome="failed") == 1
    assert value("weft_task_wait_seconds_count") == value("weft_task_run_seconds_count") == 3


async def test_tasks_are_listed_newest_first_in_pages(tasks: TaskScene) -> None:
    queue = await tasks.queue()
    client = await tasks.client()
    submitted = [(await client.submit(queue, each)).task.id for each in range(5)]
    await client.cancel(submitted[0])
    first = await client.list(queue, limit=3)
    assert [each.id for each in first.tasks] == [submitted[0], submitted[4], submitted[3]]
    second = await client.list(queue, limit=3, before=first.next)
    assert ([each.id for each in second.tasks], second.next) == ([submitted[2], submitted[1]], None)
    only = await client.list(queue, state=TaskState.CANCELLED)
    assert [each.id for each in only.tasks] == [submitted[0]]
    with pytest.raises(InvalidRequest):
        await client.list(queue, limit=0)
    with pytest.raises(InvalidRequest):
        await client.list(queue, before="x")


async def test_two_messages_of_one_task_run_it_once(tasks: TaskScene) -> None:
    queue = await tasks.queue(visibility_timeout="3s")
    client = await tasks.client()
    runs: list[int] = []

    async def slow(run: TaskRun) -> int:
        runs.append(run.attempt)
        await asyncio.sleep(2)
        return run.attempt

    first = await client.submit(queue, 1, idempotency_key="k")
    await client.submit(queue, 1, idempotency_key="k")
    async with tasks.worker(queue, slow), tasks.worker(queue, slow, name="adder.two"):
        assert (await ended(client, first.task.id)).result == 1
        await nothing_left(tasks, queue)
    assert runs == [1]


async def claimed_by_the_doomed(ledger: Ledger, delivery: Delivery, *, max_deliveries: int) -> Run:
    """A task claimed by a worker that will do nothing more."""
    claims = Claims(ledger.records, worker="adder.doomed", clock=time.time)
    submission = submission_in(delivery.message, delivery.message.id.partition(".")[0])
    claim = await claims.claim(submission, deliveries=1, limits=Limits(max_deliveries, 1.0))
    assert isinstance(claim, Run)
    return claim


async def announced(tasks: TaskScene, count: int) -> list[Message]:
    """What was put into the queue of webhooks, as soon as it is so many."""

    async def there() -> bool:
        return len(await tasks.broker.peek(WEBHOOK_QUEUE, limit=10)) >= count

    async with asyncio.timeout(LIMIT):
        await until(there)
    return [each.message for each in await tasks.broker.peek(WEBHOOK_QUEUE, limit=10)]


async def nothing_left(tasks: TaskScene, queue: str) -> None:
    """Wait until no message is in the queue."""

    async def empty() -> bool:
        stats = await tasks.broker.queue_stats(queue)
        return stats.ready + stats.in_flight + stats.delayed == 0

    async with asyncio.timeout(LIMIT):
        await until(empty)


async def dead_letters(tasks: TaskScene, queue: str, count: int) -> None:
    """Wait until there are so many."""

    async def there() -> bool:
        return (await tasks.broker.queue_stats(queue)).dead == count

    async with asyncio.timeout(LIMIT):
        await until(there)
