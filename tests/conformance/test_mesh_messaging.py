"""What agents and clients are promised of tasks and events, in memory as in a real mesh."""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from tests.conformance.messaging_meshes import (
    LIMIT,
    InMemory,
    MessagingMesh,
    StandingMessages,
    queue,
    topic,
)
from tests.processes import core

from weft import (
    Agent,
    AgentError,
    AgentFailed,
    Conflict,
    Interrupted,
    InvalidRequest,
    Mesh,
    NotFound,
    QueueFull,
    ReceivedEvent,
    TaskHandle,
    TaskRun,
    TaskState,
    TimedOut,
    current,
)
from weft.aio.poll import until
from weft.contexts.limits import ContextLimits
from weft.sdk.context import Context, handling
from weft.testing import InMemoryMesh

QUEUES = {
    "plain": queue(),
    "twice": queue(max_deliveries=2),
    "single": queue(concurrency=1),
    "short": queue(max_length=1),
    "limited": queue(max_deliveries=1, time_limit="200ms"),
}
TOPICS = {name: topic(max_deliveries=2) for name in ("orders", "bills", "news", "notes", "parts", "old")}

Factory = Callable[[], AbstractAsyncContextManager[MessagingMesh]]

REAL = "real"


@pytest.fixture(scope="session")
def standing_messages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandingMessages]:
    """A mesh of its own with all the queues and topics."""
    with core(tmp_path_factory.mktemp("messages"), os.environ, lease_ttl=3.0) as running, ExitStack() as ends:
        standing = StandingMessages(running, ends, QUEUES, TOPICS)
        with asyncio.Runner() as runner:
            runner.run(running.start())
            runner.run(asyncio.wait_for(standing.declare(), LIMIT))
        yield standing


@asynccontextmanager
async def in_memory() -> AsyncIterator[MessagingMesh]:
    async with InMemoryMesh(queues=QUEUES, topics=TOPICS) as mesh:
        yield InMemory(mesh)


@pytest.fixture(params=["in memory", REAL])
def factory(request: pytest.FixtureRequest) -> Factory:
    if request.param == REAL:
        standing: StandingMessages = request.getfixturevalue("standing_messages")
        return standing.mesh
    return in_memory


@pytest.fixture
async def mesh(factory: Factory) -> AsyncIterator[MessagingMesh]:
    async with factory() as mesh:
        yield mesh


@dataclass
class Point:
    x: int
    y: int = 0


class Inbox:
    """What a function has got so far."""

    def __init__(self) -> None:
        self.items: list[Any] = []

    async def get(self, number: int) -> list[Any]:
        """The items, once there are that many."""

        async def there() -> bool:
            return len(self.items) >= number

        async with asyncio.timeout(LIMIT):
            await until(there)
        return self.items


def worker(queue_name: str, function: Callable[..., Any], **options: Any) -> Agent:
    """An agent with one function for tasks."""
    agent = Agent("worker", **options)
    agent.task(queue_name)(function)
    return agent


async def result(task: TaskHandle) -> Any:
    return await task.result(LIMIT)


async def becomes(task: TaskHandle, state: TaskState) -> None:
    async def there() -> bool:
        return (await task.status()).state is state

    async with asyncio.timeout(LIMIT):
        await until(there)


async def test_a_task_is_done_with_its_arguments_checked_and_converted(mesh: MessagingMesh) -> None:
    async def shift(point: Point, by: int = 1) -> Point:
        return Point(point.x + by, point.y)

    (name,) = await mesh.add(worker("plain", shift))
    task = await mesh.client.submit("plain", point=Point(1, 2), by="4")
    assert await result(task) == {"x": 5, "y": 2}
    known = await mesh.client.task(task.id).status()
    assert (known.state, known.attempts, known.worker) == (TaskState.SUCCEEDED, 1, name)


async def test_wrong_arguments_fail_a_task_at_once_and_say_which(mesh: MessagingMesh) -> None:
    async def shift(by: int) -> int:
        return by

    await mesh.add(worker("plain", shift))
    task = await mesh.client.submit("plain", by="far")
    with pytest.raises(AgentFailed, match=r"after 1 attempts.*invalid-request.*by: "):
        await result(task)


async def test_a_function_says_that_a_task_makes_no_sense_and_it_is_not_tried_again(
    mesh: MessagingMesh,
) -> None:
    async def refuse() -> None:
        raise InvalidRequest("there is no such planet")

    await mesh.add(worker("plain", refuse))
    with pytest.raises(AgentFailed, match=r"after 1 attempts .*no such planet"):
        await result(await mesh.client.submit("plain"))


async def test_a_failed_attempt_is_followed_by_another(mesh: MessagingMesh) -> None:
    async def stumble(run: TaskRun) -> int:
        if run.attempt == 1:
            raise RuntimeError("not at once")
        return run.attempt

    await mesh.add(worker("plain", stumble))
    assert await result(await mesh.client.submit("plain")) == 2


async def test_a_task_whose_attempts_all_fail_is_a_dead_letter_with_the_agents_own_words(
    mesh: MessagingMesh,
) -> None:
    async def fail() -> None:
        raise AgentError("out of ink", code="no-ink")

    await mesh.add(worker("twice", fail))
    task = await mesh.client.submit("twice")
    with pytest.raises(AgentFailed, match=r"after 2 attempts .agent-failed: no-ink: out of ink"):
        await result(task)
    assert (await task.status()).state is TaskState.FAILED


async def test_cancelling_a_task_reaches_its_function(mesh: MessagingMesh) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    await mesh.add(worker("plain", hang))
    task = await mesh.client.submit("plain")
    async with asyncio.timeout(LIMIT):
        await begun.wait()
        assert (await task.cancel()).state is TaskState.CANCELLED
        await ended.wait()
    with pytest.raises(Interrupted, match="cancelled"):
        await result(task)


async def test_progress_and_partial_results_come_in_order_before_the_end(mesh: MessagingMesh) -> None:
    async def write(run: TaskRun) -> str:
        await run.progress(0.5, "half")
        for word in ("to", "be"):
            await run.partial({"word": word})
        return "to be"

    await mesh.add(worker("plain", write))
    task = await mesh.client.submit("plain")
    async with asyncio.timeout(LIMIT):
        news = [each async for each in task.updates()]
    told = [each.event.data for each in news if each.event is not None]
    assert told == [{"fraction": 0.5, "message": "half"}, {"word": "to"}, {"word": "be"}]
    assert [each.task.state for each in news if each.task is not None][-1] is TaskState.SUCCEEDED
    again = [each async for each in task.updates(after=news[-2].cursor)]
    assert [each.task.result for each in again if each.task is not None] == ["to be"]


async def test_what_is_submitted_again_with_its_idempotency_key_is_the_same_task(mesh: MessagingMesh) -> None:
    done = Inbox()

    async def note(number: int) -> int:
        done.items.append(number)
        return number

    await mesh.add(worker("plain", note))
    key = secrets.token_hex(8)
    first = await mesh.client.submit("plain", number=1, idempotency_key=key)
    again = await mesh.client.submit("plain", number=1, idempotency_key=key)
    assert (first.id, await result(again)) == (again.id, 1)
    with pytest.raises(Conflict, match="new key"):
        await mesh.client.submit("plain", number=2, idempotency_key=key)
    assert done.items == [1]


async def test_an_idempotency_key_is_of_an_agent_type_whichever_instance_submits(mesh: MessagingMesh) -> None:
    both = asyncio.Barrier(2)
    key = secrets.token_hex(8)

    async def pass_on(mesh: Mesh, run: TaskRun) -> tuple[str, str]:
        await both.wait()
        return run.task.worker, (await mesh.submit("plain", idempotency_key=key)).id

    names = await mesh.add(worker("single", pass_on), 2)
    tasks = [await mesh.client.submit("single") for _ in range(2)]
    (one, first), (other, second) = [await result(each) for each in tasks]
    assert {one, other} == set(names)
    assert first == second


async def test_tasks_of_higher_priority_come_first(mesh: MessagingMesh) -> None:
    done = Inbox()

    async def note(priority: str) -> None:
        done.items.append(priority)

    tasks = [
        await mesh.client.submit("single", {"priority": each}, priority=each)
        for each in ("low", "normal", "high")
    ]
    await mesh.add(worker("single", note))
    for each in tasks:
        await result(each)
    assert done.items == ["high", "normal", "low"]


async def test_a_delayed_task_does_not_start_before_its_time(mesh: MessagingMesh) -> None:
    async def now() -> float:
        return time.time()

    await mesh.add(worker("plain", now))
    submitted_at = time.time()
    later = await mesh.client.submit("plain", delay=1.0)
    await result(await mesh.client.submit("plain"))
    assert await result(later) - submitted_at >= 0.99


async def test_a_task_that_waits_beyond_its_deadline_fails_untouched(mesh: MessagingMesh) -> None:
    task = await mesh.client.submit("plain", deadline=1.5)
    await asyncio.sleep(1.6)  # a deadline is a time: there is nothing else to wait for

    async def touch() -> None:
        raise AssertionError("it was too late")

    await mesh.add(worker("plain", touch))
    with pytest.raises(AgentFailed, match="deadline-exceeded"):
        await result(task)


async def test_an_attempt_that_takes_longer_than_the_queue_allows_is_cancelled(mesh: MessagingMesh) -> None:
    ended = asyncio.Event()

    async def hang() -> None:
        assert (current().remaining() or 9) < 1
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    await mesh.add(worker("limited", hang))
    with pytest.raises(AgentFailed, match=r"timed-out: .* 0.2 s"):
        await result(await mesh.client.submit("limited"))
    assert ended.is_set()


async def test_plain_functions_run_in_threads_with_what_they_ask_for(mesh: MessagingMesh) -> None:
    async def other(mesh: Mesh, run: TaskRun) -> str:
        return (await mesh.submit("single", text=run.payload.decode())).id

    def shout(text: str, mesh: Mesh, run: TaskRun) -> str:
        assert isinstance(mesh, Mesh)
        assert threading.current_thread() is not threading.main_thread()
        assert current().kind == "single"
        return f"{text.upper()} {run.attempt}"

    agent = worker("plain", other)
    agent.task("single")(shout)
    await mesh.add(agent)
    inner = await result(await mesh.client.submit("plain"))
    assert await result(mesh.client.task(inner)) == "{} 1"


async def test_a_full_queue_takes_no_more_and_says_when_to_try_again(mesh: MessagingMesh) -> None:
    first = await mesh.client.submit("short")
    with pytest.raises(QueueFull) as caught:
        await mesh.client.submit("short")
    assert caught.value.retry_after > 0

    async def nothing() -> None: ...

    await mesh.add(worker("short", nothing))
    await result(first)

    async def taken() -> bool:
        try:
            return await result(await mesh.client.submit("short")) is None
        except QueueFull:
            return False

    async with asyncio.timeout(LIMIT):
        await until(taken)


async def test_queues_and_topics_that_are_not_declared_are_not_found(mesh: MessagingMesh) -> None:
    with pytest.raises(NotFound, match="no queue 'nowhere'"):
        await mesh.client.submit("nowhere")
    with pytest.raises(NotFound, match="no topic 'nowhere'"):
        await mesh.client.publish("nowhere.at.all")
    with pytest.raises(NotFound, match="no task"):
        await mesh.client.task("plain.00000000000000000000000000").status()
    with pytest.raises(InvalidRequest, match="priority"):
        await mesh.client.submit("plain", priority="urgent")


async def test_a_wait_for_a_result_ends_in_time_and_the_task_goes_on(mesh: MessagingMesh) -> None:
    released = asyncio.Event()

    async def hang() -> str:
        await released.wait()
        return "done"

    await mesh.add(worker("plain", hang))
    task = await mesh.client.submit("plain")
    with pytest.raises(TimedOut, match="goes on"):
        await task.result(0.05)
    released.set()
    assert await result(task) == "done"


async def test_the_task_of_an_instance_that_is_killed_is_done_by_another(mesh: MessagingMesh) -> None:
    async def hang_first(run: TaskRun) -> str:
        if run.attempt == 1:
            await asyncio.Event().wait()
        return run.task.worker

    names = await mesh.add(worker("plain", hang_first), 2)
    task = await mesh.client.submit("plain")
    await becomes(task, TaskState.RUNNING)
    victim = (await task.status()).worker
    await mesh.kill(victim)
    assert {victim, await result(task)} == set(names)
    known = await task.status()
    assert (known.attempts, known.failures) == (2, 2)  # for all that the mesh knows, the task killed it


async def test_an_instance_that_drains_finishes_what_it_has_and_takes_nothing_new(
    mesh: MessagingMesh,
) -> None:
    released = asyncio.Event()

    async def hang(run: TaskRun) -> str:
        await released.wait()
        return run.task.worker

    first, second = await mesh.add(worker("single", hang), 2)
    one, other = [await mesh.client.submit("single") for _ in range(2)]
    await becomes(one, TaskState.RUNNING)
    await becomes(other, TaskState.RUNNING)
    draining = asyncio.create_task(mesh.drain(first))
    third = await mesh.client.submit("single")
    released.set()
    assert {await result(one), await result(other)} == {first, second}
    assert await result(third) == second
    await draining


async def test_what_an_instance_cannot_finish_while_it_drains_is_handed_back_uncounted(
    mesh: MessagingMesh,
) -> None:
    async def hang_first(run: TaskRun) -> str:
        if run.attempt == 1:
            await asyncio.Event().wait()
        return run.task.worker

    names = await mesh.add(worker("twice", hang_first, drain_timeout=0.1), 2)
    task = await mesh.client.submit("twice")
    await becomes(task, TaskState.RUNNING)
    victim = (await task.status()).worker
    await mesh.drain(victim)
    assert {victim, await result(task)} == set(names)
    known = await task.status()
    assert (known.attempts, known.failures) == (2, 1)


def listener(*subscriptions: tuple[str, Callable[..., Any], dict[str, Any]], kind: str = "listener") -> Agent:
    """An agent with functions for events."""
    agent = Agent(kind)
    for topic_name, function, options in subscriptions:
        agent.on(topic_name, **options)(function)
    return agent


def into(inbox: Inbox) -> Callable[[ReceivedEvent], Awaitable[None]]:
    """A function that puts what it gets there, as topic and data."""

    async def take(event: ReceivedEvent) -> None:
        inbox.items.append((event.name, event.event.data))

    return take


async def test_an_event_goes_to_one_instance_of_each_type_or_to_every_instance(mesh: MessagingMesh) -> None:
    one, other, every = Inbox(), Inbox(), Inbox()
    both = listener(("orders", into(one), {}), ("orders", into(every), {"every_instance": True}))
    await mesh.add(both, 2)
    await mesh.add(listener(("orders", into(other), {}), kind="worker"))
    for number in range(4):
        await mesh.client.publish("orders", {"n": number})
    expected = [("orders", b'{"n":%d}' % number) for number in range(4)]
    assert sorted(await one.get(4)) == expected
    assert sorted(await other.get(4)) == expected
    assert sorted(await every.get(8)) == sorted([*expected, *expected])
    assert len(one.items) == len(other.items) == 4


async def test_functions_get_what_fits_their_subtopics_and_filters(mesh: MessagingMesh) -> None:
    created, german, paid = Inbox(), Inbox(), Inbox()
    await mesh.add(
        listener(
            ("bills.created", into(created), {}),
            ("bills.*.de", into(german), {}),
            ("bills.>", into(paid), {"filter": {"exact": {"type": "paid"}}}),
        )
    )
    await mesh.client.publish("bills", 0)
    await mesh.client.publish("bills.created", 1)
    await mesh.client.publish("bills.created.de", 2)
    await mesh.client.publish("bills.settled", 3, type="paid")
    await mesh.client.publish("bills.settled.de", 4, type="paid")
    assert sorted(await created.get(1)) == [("bills.created", b"1")]
    assert sorted(await german.get(2)) == [("bills.created.de", b"2"), ("bills.settled.de", b"4")]
    assert sorted(await paid.get(2)) == [("bills.settled", b"3"), ("bills.settled.de", b"4")]
    assert (len(created.items), len(german.items), len(paid.items)) == (1, 2, 2)


async def test_an_event_brings_its_attributes_and_the_conversation_goes_on_in_what_it_causes(
    mesh: MessagingMesh,
) -> None:
    seen, answers = Inbox(), Inbox()

    async def answer(event: ReceivedEvent, mesh: Mesh) -> None:
        seen.items.append((current().conversation, event))
        await mesh.publish("news.answered", event.data, type="answer")

    async def hear(event: ReceivedEvent) -> None:
        answers.items.append((current().conversation, event.event.type, event.event.source))

    await mesh.add(listener(("news.asked", answer, {}), ("news.answered", hear, {})))
    headers = {"x-weft-context": "conversation-7"}
    with handling(Context("test", headers)):
        await mesh.client.publish(
            "news.asked", {"q": 1}, type="question", subject="all", id="the-one", extensions={"urgent": True}
        )
    ((conversation, event),) = await seen.get(1)
    assert conversation == "conversation-7"
    assert (event.topic, event.subtopic, event.deliveries) == ("news", "asked", 1)
    about = event.event
    assert (about.id, about.type, about.subject) == ("the-one", "question", "all")
    assert about.extensions["urgent"] == "true"
    ((conversation, kind, source),) = await answers.get(1)
    assert (conversation, kind) == ("conversation-7", "answer")
    assert "/agent/listener/" in source


async def test_an_event_that_fails_comes_again_and_is_a_dead_letter_in_the_end(mesh: MessagingMesh) -> None:
    tries, dead = Inbox(), Inbox()

    async def fail(event: ReceivedEvent) -> None:
        tries.items.append(event.deliveries)
        raise AgentError("illegible", code="scrawl")

    async def bury(event: ReceivedEvent) -> None:
        if event.subtopic.startswith("notes."):
            dead.items.append(event.event)

    await mesh.add(listener(("notes", fail, {})))
    await mesh.add(listener(("dead-letters", bury, {}), kind="worker"))
    await mesh.client.publish("notes", {"n": 1}, id="scribble")
    (letter,) = await dead.get(1)
    assert tries.items == [1, 2]
    assert (letter.id, letter.extensions["weftgroup"]) == ("scribble", "listener")
    assert "scrawl: illegible" in letter.extensions["weftreason"]


async def test_a_subscription_begins_where_it_is_told_to(mesh: MessagingMesh) -> None:
    first = await mesh.client.publish("old", 1)
    await mesh.client.publish("old", 2)
    everything, new = Inbox(), Inbox()
    await mesh.add(listener(("old", into(everything), {"since": first})))
    await mesh.add(listener(("old", into(new), {}), kind="worker"))
    await mesh.client.publish("old", 3)
    assert [data for _, data in sorted(await everything.get(3))] == [b"1", b"2", b"3"]
    assert await new.get(1) == [("old", b"3")]


async def test_plain_functions_take_events_in_threads(mesh: MessagingMesh) -> None:
    inbox = Inbox()

    def take(event: ReceivedEvent) -> None:
        inbox.items.append((threading.current_thread() is threading.main_thread(), event.data))

    await mesh.add(listener(("parts", take, {})))
    await mesh.client.publish("parts", {"n": 1})
    assert await inbox.get(1) == [(False, {"n": 1})]


async def test_what_is_handled_of_one_conversation_has_one_context_whoever_handles_it(
    mesh: MessagingMesh,
) -> None:
    async def answer(question: str, mesh: Mesh) -> int:
        conversation = mesh.context()
        assert conversation.id == current().conversation
        await conversation.append("user", question)
        await conversation.put_artifact("notes.txt", question.encode() * 200_000)
        return int((await conversation.update(lambda state: (state or 0) + 1)).value)

    conversation_id = f"chat-{secrets.token_hex(4)}"
    _, second = await mesh.add(worker("plain", answer), 2)
    for killed in (second, None):
        with handling(Context("test", {"x-weft-context": conversation_id})):
            tasks = [await mesh.client.submit("plain", question=f"q{number}") for number in range(4)]
        for task in tasks:
            await result(task)
        if killed:
            await mesh.kill(killed)
    kept = mesh.client.context(conversation_id)
    messages = await kept.messages()
    assert [each.number for each in messages] == list(range(1, 9))
    assert {each.author.rpartition("/")[0] for each in messages} == {"spiffe://weft.local/agent/worker"}
    assert (await kept.state()).value == 8
    assert (await kept.artifact("notes.txt")).info.size == 400_000
    await kept.delete()
    with pytest.raises(NotFound):
        await mesh.client.context(conversation_id).messages()


async def test_a_context_of_ones_own_begins_where_that_is_said(mesh: MessagingMesh) -> None:
    chosen = f"mine-{secrets.token_hex(4)}"
    with pytest.raises(NotFound):
        await mesh.client.context(chosen).append("user", "x")
    created = mesh.client.context(chosen, create=True, limits=ContextLimits(messages=1))
    await created.append("user", "x")
    with pytest.raises(InvalidRequest):
        await mesh.client.context(chosen).append("user", "y")
    new, newer = mesh.client.context(), mesh.client.context()
    assert new.id != newer.id
    assert await new.messages() == []
    await new.append("user", "x")
    assert (await mesh.client.context(new.id).messages())[0].content == "x"
    assert new.headers == {"x-weft-context": new.id}
