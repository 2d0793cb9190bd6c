"""Tasks and events in agents' code: what is refused when it is declared, and what is said without a mesh."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from weft import Agent, InvalidRequest, Mesh, NotFound, ReceivedEvent, TaskRun, TaskState, Unavailable
from weft.aio.poll import until
from weft.model.cloud_event import CloudEvent
from weft.testing import InMemoryMesh, QueueSpec, TopicSpec

LIMIT = 30.0


async def plain(text: str) -> str:
    return text


async def take(event: ReceivedEvent) -> None: ...


async def without_event(text: str) -> None: ...


async def streaming(text: str):  # type: ignore[no-untyped-def]
    yield text


def anything(*texts: str) -> None: ...


@pytest.fixture
def agent() -> Agent:
    return Agent("worker")


def test_a_queue_has_one_function(agent: Agent) -> None:
    agent.task("research")(plain)
    with pytest.raises(ValueError, match="'worker' has a function for queue 'research' already"):
        agent.task("research")(plain)


@pytest.mark.parametrize("function", [streaming, anything])
def test_a_function_to_which_no_payload_fits_does_no_tasks(agent: Agent, function: Any) -> None:
    with pytest.raises(TypeError, match="research"):
        agent.task("research")(function)


def test_a_queue_has_a_name_and_a_concurrency_of_at_least_one(agent: Agent) -> None:
    with pytest.raises(InvalidRequest, match="Not A Name"):
        agent.task("Not A Name")
    with pytest.raises(InvalidRequest, match="queue 'research': 0 at once"):
        agent.task("research", concurrency=0)
    with pytest.raises(InvalidRequest, match="topic 'orders': 0 at once"):
        agent.on("orders", concurrency=0)


def test_a_topic_pattern_has_one_function_for_all_instances_and_one_for_each(agent: Agent) -> None:
    agent.on("orders.*")(take)
    agent.on("orders.*", every_instance=True)(take)
    with pytest.raises(ValueError, match=r"'worker' has a function for topic 'orders\.\*' already"):
        agent.on("orders.*")(take)


def test_a_function_for_events_takes_an_event_and_nothing_that_nobody_gives_it(agent: Agent) -> None:
    with pytest.raises(TypeError, match="annotated ReceivedEvent"):
        agent.on("orders")(without_event)

    async def too_curious(event: ReceivedEvent, number: int) -> None: ...

    with pytest.raises(TypeError, match="number"):
        agent.on("orders")(too_curious)


def test_topics_and_filters_that_are_none_are_refused_at_once(agent: Agent) -> None:
    with pytest.raises(InvalidRequest, match="ends in a dot"):
        agent.on("orders.")
    with pytest.raises(InvalidRequest):
        agent.on("orders", filter={"sounds-like": {"type": "a"}})


async def test_without_sidecar_and_mesh_it_is_said_how_to_get_to_queues(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("WEFT_PROXY", "WEFT_IDENTITY_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WEFT_HOME", str(tmp_path))
    mesh = Mesh()
    with pytest.raises(Unavailable, match=r"`weft up`.*`weft run -- COMMAND`"):
        await mesh.submit("research")
    only_proxy = Mesh(proxy="http://127.0.0.1:9")
    with pytest.raises(Unavailable, match=r"no identity.*`weft run -- COMMAND`"):
        await only_proxy.publish("orders")
    monkeypatch.setenv("WEFT_IDENTITY_DIR", str(tmp_path / "gone"))
    with pytest.raises(Unavailable, match=r"cannot be read from .*gone.*is its sidecar still running"):
        await only_proxy.publish("orders")


async def test_an_agent_that_cannot_join_serves_all_the_same_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = 0

    async def nobody() -> Any:
        nonlocal asked
        asked += 1
        raise Unavailable("nobody is there")

    agent = Agent("worker")
    for name in ("one", "two", "three"):
        agent.task(name)(plain)
        agent.on(name)(take)
    app = agent.app(Mesh(proxy="http://127.0.0.1:9", joining=nobody))
    app.start()

    async def twice() -> bool:
        return asked >= 2

    async with asyncio.timeout(LIMIT):
        await until(twice)
    app.drain()
    await app.drained(1)
    await app.aclose()
    assert [each.message for each in caplog.records if each.levelname == "WARNING"] == [
        "cannot use topics and queues yet, trying on: nobody is there"
    ]


async def test_functions_on_threads_take_no_more_than_their_queue_has_at_once_and_none_of_the_requests(
    agent: Agent,
) -> None:
    begun = threading.Semaphore(0)
    go_on = threading.Event()
    most = 0
    at_work = 0
    lock = threading.Lock()

    @agent.task("heavy")
    def heavy() -> None:
        nonlocal most, at_work
        with lock:
            at_work += 1
            most = max(most, at_work)
        begun.release()
        go_on.wait(LIMIT)
        with lock:
            at_work -= 1

    @agent.handles("light")
    def light() -> str:
        return "done"

    async with InMemoryMesh(queues={"heavy": QueueSpec(concurrency=12)}) as mesh:
        mesh.add(agent)
        tasks = [await mesh.client.submit("heavy") for _ in range(15)]

        async def twelve() -> bool:
            return at_work == 12

        async with asyncio.timeout(LIMIT):
            await until(twelve)
        assert await mesh.client.request("worker", "light") == "done"
        go_on.set()
        for each in tasks:
            await each.result(LIMIT)
    assert most == 12


async def test_a_mesh_in_memory_without_declarations_has_whatever_is_asked_for() -> None:
    agent = Agent("worker")

    @agent.task("greet")
    async def greet(name: str, mesh: Mesh, run: TaskRun) -> str:
        await mesh.publish("greetings.said", {"name": name}, type="said")
        return f"hello {name}, attempt {run.attempt}"

    async with InMemoryMesh() as mesh:
        mesh.add(agent)
        task = await mesh.client.submit("greet", name="ann")
        assert await task.result(LIMIT) == "hello ann, attempt 1"
        (event,) = await mesh.events("greetings")
        assert (event.name, event.event.type, event.data) == ("greetings.said", "said", {"name": "ann"})
        assert [each.id for each in await mesh.tasks("greet")] == [task.id]


async def test_a_mesh_in_memory_with_declarations_has_nothing_else() -> None:
    agent = Agent("worker")
    agent.task("research")(plain)
    async with InMemoryMesh(queues=["other"], topics={}) as mesh:
        with pytest.raises(NotFound, match=r"no queue 'research'.*InMemoryMesh\(queues=\.\.\.\)"):
            mesh.add(agent)
        listening = Agent("listener")
        listening.on("orders")(take)
        with pytest.raises(NotFound, match="no topic 'orders'"):
            mesh.add(listening)
        with pytest.raises(NotFound):
            await mesh.tasks("nothing")
        with pytest.raises(NotFound):
            await mesh.events("nothing")


async def test_dead_letters_of_a_mesh_in_memory_can_be_looked_at_and_tried_again() -> None:
    agent = Agent("worker")
    broken = True

    @agent.task("fragile")
    async def fragile() -> str:
        if broken:
            raise InvalidRequest("it is broken")
        return "fine"

    @agent.on("orders")
    async def refuse(event: ReceivedEvent) -> None:
        raise InvalidRequest("no such customer")

    async with InMemoryMesh(queues=["fragile"], topics=["orders"]) as mesh:
        mesh.add(agent)
        task = await mesh.client.submit("fragile")
        await mesh.client.publish("orders", {"n": 1})

        async def both_failed() -> bool:
            return bool(await mesh.tasks("fragile", TaskState.FAILED) and await mesh.events("dead-letters"))

        async with asyncio.timeout(LIMIT):
            await until(both_failed)
        (failed,) = await mesh.tasks("fragile", TaskState.FAILED)
        assert failed.error is not None
        assert (failed.id, failed.error.detail) == (task.id, "it is broken")
        (letter,) = await mesh.events("dead-letters")
        assert "no such customer" in letter.event.extensions["weftreason"]
        broken = False
        assert await mesh.redrive("fragile") == 1
        assert await task.result(LIMIT) == "fine"


async def test_encryption_is_left_out_in_memory() -> None:
    agent = Agent("worker")
    agent.task("secret")(plain)
    queues = {"secret": QueueSpec(encrypted=True)}
    async with InMemoryMesh(queues=queues, topics={"hidden": TopicSpec(encrypted=True)}) as mesh:
        mesh.add(agent)
        assert await (await mesh.client.submit("secret", text="a")).result(LIMIT) == "a"
        await mesh.client.publish("hidden", "b")
        assert [each.data for each in await mesh.events("hidden")] == ["b"]


async def test_what_is_in_flight_at_the_end_of_a_mesh_in_memory_is_cancelled() -> None:
    agent = Agent("worker")
    begun, ended = asyncio.Event(), asyncio.Event()

    @agent.task("endless")
    async def endless() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with InMemoryMesh() as mesh:
        mesh.add(agent)
        await mesh.client.submit("endless")
        await begun.wait()
    assert ended.is_set()


@pytest.mark.parametrize(
    ("media_type", "data", "said"),
    [
        ("application/json", b'{"a":1}', {"a": 1}),
        ("application/vnd.shop+json; v=1", b"[2]", [2]),
        ("text/plain", b"[2]", b"[2]"),
        (None, None, None),
    ],
)
def test_an_event_says_json_as_python_and_all_else_as_bytes(
    media_type: str | None, data: bytes | None, said: Any
) -> None:
    event = CloudEvent(id="1", source="/a", type="t", datacontenttype=media_type, data=data)
    assert ReceivedEvent(event, "orders").data == said


def test_an_event_whose_json_is_none_makes_no_sense() -> None:
    event = CloudEvent(id="broken", source="/a", type="t", datacontenttype="application/json", data=b"{")
    with pytest.raises(InvalidRequest, match="'broken' is no JSON"):
        _ = ReceivedEvent(event, "orders").data
