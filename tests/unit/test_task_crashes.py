"""Tasks whose worker or submitter dies, or loses the store or the broker, at every single step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Generic, TypeVar

import pytest
from tests.fake_time import run_in_fake_time

from weft.aio.poll import until
from weft.errors import InvalidRequest, Unavailable
from weft.messaging.broker import Consumer, Delivery, Priority, QueueSettings
from weft.messaging.brokers.memory import MemoryBroker
from weft.messaging.message import Message
from weft.model.message_subjects import WEBHOOK_QUEUE
from weft.model.queue import QueueSpec
from weft.model.redelivery import Backoff
from weft.model.task import Task, TaskState
from weft.store.bucket import Bucket, Entry
from weft.store.memory import MemoryStore
from weft.store.signals import Signals
from weft.tasks.attempt import Runner, TaskRun
from weft.tasks.client import TaskClient
from weft.tasks.ledger import Ledger
from weft.tasks.worker import Worker

T = TypeVar("T")

QUEUE = "q"
SPEC = QueueSpec(max_deliveries=3, visibility_timeout=4.0, backoff=Backoff(initial=1.0, longest=1.0))
HOOK = "https://example.com/"
HUNDRED_STEPS = 100
EPOCH = 1_700_000_000.0


class Blow(Enum):
    """What happens to a process at its last step."""

    DIES_BEFORE = auto()
    DIES_AFTER = auto()
    LOSES_CONNECTION_BEFORE = auto()
    LOSES_CONNECTION_AFTER = auto()


class Fate:
    """Strikes at one step of a process: of all that it asks of store and broker, in order."""

    def __init__(self, step: int, blow: Blow) -> None:
        self._left = step
        self._blow = blow
        self.struck = False

    @property
    def _deadly(self) -> bool:
        return self._blow in {Blow.DIES_BEFORE, Blow.DIES_AFTER}

    async def step(self, operation: Callable[[], Awaitable[T]], *, can_fail: bool = True) -> T:
        """One thing that the process asks for."""
        if self.struck and self._deadly:
            await asyncio.Event().wait()
        now = self._left == 0 and not self.struck and (can_fail or self._deadly)
        self._left -= 0 if self._left == 0 else 1
        self.struck = self.struck or now
        if now and self._blow is Blow.DIES_BEFORE:
            await asyncio.Event().wait()
        if now and self._blow is Blow.LOSES_CONNECTION_BEFORE:
            raise Unavailable("cut off before")
        result = await operation()
        if now and self._blow is Blow.DIES_AFTER:
            await asyncio.Event().wait()
        if now and self._blow is Blow.LOSES_CONNECTION_AFTER:
            raise Unavailable("cut off after")
        return result


class FatefulBucket(Generic[T]):
    """A bucket as a process sees it; what got through is noted."""

    def __init__(self, bucket: Bucket[T], fate: Fate, written: list[T]) -> None:
        self._bucket = bucket
        self._fate = fate
        self._written = written
        self.entries = bucket.entries
        self.recent = bucket.recent
        self.watch = bucket.watch

    async def get(self, key: str) -> Entry[T] | None:
        return await self._fate.step(lambda: self._bucket.get(key))

    async def create(self, key: str, value: T, *, ttl: float | None = None) -> int:
        return await self._noting(value, lambda: self._bucket.create(key, value, ttl=ttl))

    async def put(self, key: str, value: T, *, ttl: float | None = None) -> int:
        return await self._noting(value, lambda: self._bucket.put(key, value, ttl=ttl))

    async def update(self, key: str, value: T, *, revision: int, ttl: float | None = None) -> int:
        return await self._noting(value, lambda: self._bucket.update(key, value, revision=revision, ttl=ttl))

    async def delete(self, key: str, *, revision: int | None = None) -> None:
        await self._fate.step(lambda: self._bucket.delete(key, revision=revision))

    async def _noting(self, value: T, write: Callable[[], Awaitable[int]]) -> int:
        async def noted() -> int:
            revision = await write()
            self._written.append(value)
            return revision

        return await self._fate.step(noted)


class FatefulSignals:
    """Signals as a process sends them."""

    def __init__(self, signals: Signals, fate: Fate) -> None:
        self._signals = signals
        self._fate = fate
        self.listen = signals.listen

    async def send(self, key: str) -> None:
        await self._fate.step(lambda: self._signals.send(key), can_fail=False)


class FatefulDelivery:
    """A message in the hands of a process."""

    def __init__(self, delivery: Delivery, fate: Fate) -> None:
        self._delivery = delivery
        self._fate = fate
        self.message = delivery.message
        self.lane = delivery.lane
        self.subtopic = delivery.subtopic
        self.deliveries = delivery.deliveries
        self.sequence = delivery.sequence
        self.sent_at = delivery.sent_at

    async def ack(self) -> None:
        await self._fate.step(self._delivery.ack)

    async def nack(self, delay: float = 0.0) -> None:
        await self._fate.step(lambda: self._delivery.nack(delay))

    async def extend(self) -> None:
        await self._fate.step(self._delivery.extend)

    async def dead_letter(self, reason: str) -> None:
        await self._fate.step(lambda: self._delivery.dead_letter(reason))


class FatefulConsumer:
    """Takes messages; a dead process takes none."""

    def __init__(self, consumer: Consumer, fate: Fate) -> None:
        self._consumer = consumer
        self._fate = fate

    async def pull(self, limit: int, *, wait: float) -> Sequence[Delivery]:
        if self._fate.struck:
            await asyncio.Event().wait()  # the others are to have what this one left
        return [FatefulDelivery(each, self._fate) for each in await self._consumer.pull(limit, wait=wait)]

    async def aclose(self) -> None:
        await self._consumer.aclose()


class FatefulBroker(MemoryBroker):
    """A broker as a process sees it."""

    def __init__(self, broker: MemoryBroker, fate: Fate) -> None:
        super().__init__()
        self._contents = broker._contents
        self._fate = fate

    async def enqueue(
        self, queue: str, message: Message, *, priority: Priority = Priority.NORMAL, delay: float = 0.0
    ) -> None:
        await self._fate.step(
            lambda: MemoryBroker.enqueue(self, queue, message, priority=priority, delay=delay)
        )


def now() -> float:
    """The time of the fake clock, in seconds since 1970."""
    return EPOCH + asyncio.get_running_loop().time()


async def declared(queue: str) -> QueueSpec:
    return SPEC


@dataclass
class World:
    """A store, a broker, and all that was written down of tasks."""

    ledger: Ledger
    broker: MemoryBroker
    written: list[Task] = field(default_factory=list)

    def seen_by(self, fate: Fate) -> tuple[Ledger, FatefulBroker]:
        """What a process with that fate works with."""
        ledger = Ledger(
            FatefulBucket(self.ledger.records, fate, self.written),
            FatefulBucket(self.ledger.events, fate, []),
            FatefulSignals(self.ledger.news, fate),
            self.ledger.cancellations,
        )
        return ledger, FatefulBroker(self.broker, fate)

    def client(self, fate: Fate) -> TaskClient:
        ledger, broker = self.seen_by(fate)
        return TaskClient(ledger, broker, declared, submitter="key:test@gate", clock=now)

    async def work(self, fate: Fate, run: Runner, name: str) -> None:
        """A worker's whole life."""
        ledger, broker = self.seen_by(fate)
        consumer = FatefulConsumer(await broker.queue_consumer(QUEUE), fate)
        worker = Worker(ledger, broker, consumer, QUEUE, SPEC, run, name=name, clock=now)
        await worker.run()

    async def settled(self) -> None:
        """Wait until no message is left."""

        async def empty() -> bool:
            stats = await self.broker.queue_stats(QUEUE)
            return stats.ready + stats.in_flight + stats.delayed == 0

        async with asyncio.timeout(3600):
            await until(empty)

    async def check(self, task_id: str, ends: set[TaskState]) -> None:
        """Whether the task has one end, and all that belongs to it."""
        entry = await self.ledger.records.get(task_id)
        assert entry is not None
        task = entry.value
        assert task.state in ends
        recorded = [each for each in self.written if each.state.terminal and not each.announced]
        assert len(recorded) == 1, recorded
        dead = await self.broker.peek(QUEUE, limit=10, dead=True)
        assert [each.message.id for each in dead] == [task_id] * (task.state is TaskState.FAILED)
        hooks = {each.message.id for each in await self.broker.peek(WEBHOOK_QUEUE, limit=10)}
        assert hooks == {f"{task_id}-{task.state}"}


async def new_world() -> World:
    broker = MemoryBroker()
    await broker.declare_queue(QueueSettings(QUEUE, SPEC.visibility_timeout))
    await broker.declare_queue(QueueSettings(WEBHOOK_QUEUE))
    return World(await Ledger.open(MemoryStore()), broker)


def charmed() -> Fate:
    """Nothing happens to this one."""
    return Fate(-1, Blow.DIES_BEFORE)


async def succeed(run: TaskRun) -> str:
    await run.progress(0.5)
    await run.partial("part")
    await asyncio.sleep(6)
    return "done"


async def fail_once(run: TaskRun) -> str:
    await asyncio.sleep(0.1)
    if run.attempt == 1:
        raise RuntimeError("not yet")
    return "done"


async def refuse(run: TaskRun) -> str:
    raise InvalidRequest("nonsense")


STORIES: dict[str, tuple[Runner, set[TaskState]]] = {
    "success": (succeed, {TaskState.SUCCEEDED}),
    "retry": (fail_once, {TaskState.SUCCEEDED}),
    "failure": (refuse, {TaskState.FAILED}),
}


async def lived_through(fate: Fate, run: Runner, ends: set[TaskState]) -> bool:
    """A worker meets its fate, another one takes over; whether the fate came."""
    world = await new_world()
    submitted = await world.client(charmed()).submit(QUEUE, 1, webhook=HOOK)
    lives = [asyncio.create_task(world.work(fate, run, "a.doomed"))]
    await asyncio.sleep(0.05)
    lives.append(asyncio.create_task(world.work(charmed(), run, "a.heir")))
    await world.settled()
    await ended(lives)
    await world.check(submitted.task.id, ends)
    return fate.struck


async def ended(lives: list[asyncio.Task[None]]) -> None:
    for each in lives:
        each.cancel()
    for each in lives:
        with suppress(asyncio.CancelledError):
            await each


@pytest.mark.parametrize("blow", Blow)
@pytest.mark.parametrize("story", STORIES)
def test_whenever_a_worker_is_struck_its_task_has_one_end(story: str, blow: Blow) -> None:
    run, ends = STORIES[story]
    for step in range(HUNDRED_STEPS):
        if not run_in_fake_time(lived_through(Fate(step, blow), run, ends)):
            break
    assert 4 < step < HUNDRED_STEPS - 1


async def cancelled_meanwhile(fate: Fate) -> bool:
    """As before, but somebody cancels the task while the first worker has it."""
    world = await new_world()
    client = world.client(charmed())
    submitted = await client.submit(QUEUE, 1, webhook=HOOK)
    lives = [asyncio.create_task(world.work(fate, succeed, "a.doomed"))]
    await asyncio.sleep(2)
    await client.cancel(submitted.task.id)
    lives.append(asyncio.create_task(world.work(charmed(), succeed, "a.heir")))
    await world.settled()
    await ended(lives)
    await world.check(submitted.task.id, {TaskState.CANCELLED})
    return fate.struck


@pytest.mark.parametrize("blow", Blow)
def test_whenever_a_worker_is_struck_a_cancelled_task_stays_cancelled(blow: Blow) -> None:
    for step in range(HUNDRED_STEPS):
        if not run_in_fake_time(cancelled_meanwhile(Fate(step, blow))):
            break
    assert 4 < step < HUNDRED_STEPS - 1


async def submitted_again(fate: Fate, submission: dict[str, Any]) -> bool:
    """A submitter meets its fate, and its caller submits again, with the same key."""
    world = await new_world()

    async def submit() -> None:
        with suppress(Unavailable):
            await world.client(fate).submit(QUEUE, 1, **submission)

    lives = [asyncio.create_task(submit()), asyncio.create_task(world.work(charmed(), fail_once, "a.heir"))]
    await asyncio.sleep(1)
    submitted = await world.client(charmed()).submit(QUEUE, 1, **submission)
    await asyncio.sleep(0.2)
    await world.settled()
    await ended(lives)
    await world.check(submitted.task.id, {TaskState.SUCCEEDED})
    return fate.struck


@pytest.mark.parametrize("delay", [None, 3.0])
@pytest.mark.parametrize("blow", Blow)
def test_whenever_a_submitter_is_struck_its_key_makes_it_good(blow: Blow, delay: float | None) -> None:
    submission = {"idempotency_key": "k", "webhook": HOOK, "delay": delay}
    for step in range(HUNDRED_STEPS):
        if not run_in_fake_time(submitted_again(Fate(step, blow), submission)):
            break
    assert 1 < step < HUNDRED_STEPS - 1


async def cancelled_again(fate: Fate) -> bool:
    """Who cancels a task meets its fate, and cancels it again."""
    world = await new_world()
    submitted = await world.client(charmed()).submit(QUEUE, 1, webhook=HOOK)

    async def cancel() -> None:
        with suppress(Unavailable):
            await world.client(fate).cancel(submitted.task.id)

    lives = [asyncio.create_task(world.work(charmed(), succeed, "a.heir"))]
    await asyncio.sleep(1)
    lives.append(asyncio.create_task(cancel()))
    await asyncio.sleep(1)
    await world.client(charmed()).cancel(submitted.task.id)
    await world.settled()
    await ended(lives)
    await world.check(submitted.task.id, {TaskState.CANCELLED})
    return fate.struck


@pytest.mark.parametrize("blow", Blow)
def test_whenever_who_cancels_is_struck_cancelling_again_makes_it_good(blow: Blow) -> None:
    for step in range(HUNDRED_STEPS):
        if not run_in_fake_time(cancelled_again(Fate(step, blow))):
            break
    assert 3 < step < HUNDRED_STEPS - 1
