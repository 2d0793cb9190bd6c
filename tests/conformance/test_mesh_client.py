"""What `Mesh` promises, whatever is at the other end."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest
from pydantic import BaseModel, TypeAdapter
from tests.conformance.meshes import MeshFactory

from weft import (
    Agent,
    AgentError,
    AgentFailed,
    ChangeKind,
    Instance,
    Interrupted,
    InvalidRequest,
    Mesh,
    NoHealthyAgent,
    NoSuchAgent,
    NotFound,
    Refused,
    Status,
    TimedOut,
    current,
)
from weft.aio.poll import until


class Summary(BaseModel):
    text: str
    length: int


@dataclass
class Crew:
    """Two kinds of agents, and what tests need to see of their inside."""

    served: Counter[str] = field(default_factory=Counter)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)

    def summarizer(self, concurrency: int = 8) -> Agent:
        agent = Agent("summarizer", capabilities=["summarize"], version="2", concurrency=concurrency)
        for handler in (self.summarize, self.count, self.hang, self.fail, self.crash, self.caller):
            agent.handles(handler.__name__)(handler)
        for stream in (self.words, self.endless, self.stumble):
            agent.streams(stream.__name__)(stream)
        return agent

    async def summarize(self, text: str, length: int = 3) -> Summary:
        return Summary(text=text[:length], length=length)

    async def count(self) -> int:
        self.served["count"] += 1
        return self.served["count"]

    async def hang(self) -> str:
        self.served["hang"] += 1
        self.started.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "released"

    async def fail(self) -> None:
        raise AgentError("out of ink", status=409, code="no-ink", cartridge="blue")

    async def caller(self) -> str | None:
        return current().caller

    async def crash(self) -> None:
        raise RuntimeError("password is hunter2")

    async def words(self, text: str) -> AsyncIterator[str]:
        for word in text.split():
            yield word

    async def endless(self) -> AsyncIterator[int]:
        try:
            for number in itertools.count():
                yield number
                await asyncio.sleep(0)
        finally:
            self.cancelled.set()

    async def stumble(self) -> AsyncIterator[int]:
        yield 1
        raise AgentError("out of paper", status=410)

    def chief(self) -> Agent:
        agent = Agent("chief", capabilities=["delegate", "summarize"])

        @agent.handles("introduce")
        async def introduce(mesh: Mesh) -> str:
            return await mesh.request("summarizer", "caller", result_type=str)

        @agent.handles("delegate")
        async def delegate(text: str, mesh: Mesh) -> str:
            summary = await mesh.request("summarizer", "summarize", text=text, result_type=Summary)
            return f"chief says {summary.text}"

        @agent.handles("call-nobody")
        async def call_nobody(mesh: Mesh) -> None:
            await mesh.request("nobody", "anything")

        @agent.handles("conversation")
        async def conversation() -> str | None:
            return current().conversation

        @agent.handles("relay")
        async def relay(mesh: Mesh) -> str | None:
            conversation: str | None = await mesh.request("chief", "conversation")
            return conversation

        return agent


@pytest.fixture
async def crew() -> Crew:
    return Crew()


@pytest.fixture
async def client(steady_factory: MeshFactory, crew: Crew) -> AsyncIterator[Mesh]:
    async with steady_factory({crew.summarizer(): 2, crew.chief(): 1}) as mesh:
        yield mesh.client


async def tools_of(client: Mesh) -> dict[str, str]:
    """The tools of the mesh with their descriptions, once those of all agents are there."""
    found: dict[str, str] = {}

    async def there() -> bool:
        found.update({each.name: each.description for each in await client.tools()})
        return {"summarize", "delegate"} <= found.keys()

    async with asyncio.timeout(60):
        await until(there)
    return found


async def busy_one(client: Mesh) -> Instance:
    """The summarizer that has a call in flight, as soon as the mesh knows."""
    found: list[Instance] = []

    async def known() -> bool:
        found[:] = [each for each in await client.discover("summarizer") if each.in_flight]
        return bool(found)

    await until(known)
    [busy] = found
    return busy


async def test_a_request_by_type_returns_the_result(client: Mesh) -> None:
    assert await client.request("summarizer", "summarize", text="hello") == {"text": "hel", "length": 3}


async def test_a_result_type_makes_the_result_typed(client: Mesh) -> None:
    result = await client.request("summarizer", "summarize", {"text": "hello"}, length=1, result_type=Summary)
    assert result == Summary(text="h", length=1)


async def test_a_result_that_is_not_of_the_expected_type_is_the_agents_failure(client: Mesh) -> None:
    with pytest.raises(AgentFailed, match="unexpected"):
        await client.request("summarizer", "count", result_type=TypeAdapter(list[str] | None))


async def test_a_request_by_capability_reaches_an_agent_that_has_it(client: Mesh) -> None:
    assert await client.request("delegate.cap", "delegate", text="hello") == "chief says hel"


async def test_a_request_can_go_to_a_discovered_instance(client: Mesh) -> None:
    [first, *_] = await client.discover("summarizer")
    assert (await client.request(first, "summarize", text="hello"))["text"] == "hel"


async def test_an_unknown_type_capability_or_instance_is_no_such_agent(client: Mesh) -> None:
    for nobody in ("nobody", "nothing.cap"):
        with pytest.raises(NoSuchAgent, match=nobody.partition(".")[0]):
            await client.request(nobody, "summarize", text="hello")


async def test_a_name_that_is_none_is_an_invalid_request(client: Mesh) -> None:
    for name in ("", "Big Letters", "a.b.c", "http://elsewhere/"):
        with pytest.raises(InvalidRequest):
            await client.request(name, "summarize", text="hello")


async def test_an_unknown_kind_is_not_found_and_the_known_kinds_are_named(client: Mesh) -> None:
    with pytest.raises(NotFound, match="summarize") as caught:
        await client.request("summarizer", "sing")
    assert not isinstance(caught.value, NoSuchAgent)


async def test_wrong_arguments_are_an_invalid_request_that_names_every_field(client: Mesh) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await client.request("summarizer", "summarize", length="many", tone="warm")
    for wrong in ("payload.text", "payload.length", "payload.tone"):
        assert wrong in caught.value.detail


async def test_an_agents_own_error_arrives_with_its_status_and_details(client: Mesh) -> None:
    with pytest.raises(AgentFailed, match="out of ink") as caught:
        await client.request("summarizer", "fail")
    assert caught.value.agent_status == 409
    assert caught.value.body["code"] == "no-ink"
    assert caught.value.body["cartridge"] == "blue"


async def test_a_bug_in_a_handler_is_a_failure_that_tells_nothing_of_its_inside(client: Mesh) -> None:
    with pytest.raises(AgentFailed) as caught:
        await client.request("summarizer", "crash")
    assert caught.value.agent_status == 500
    assert "hunter2" not in str(caught.value.body)


async def test_a_handlers_failed_call_is_the_handlers_failure_not_the_callers_mistake(client: Mesh) -> None:
    with pytest.raises(AgentFailed, match="nobody") as caught:
        await client.request("chief", "call-nobody")
    assert caught.value.body["cause"] == "no-such-agent"


async def test_calls_made_by_a_handler_belong_to_the_same_conversation(client: Mesh) -> None:
    assert await client.request("chief", "relay", headers={"X-Weft-Context": "c-1"}) == "c-1"
    assert await client.request("chief", "relay") is None


async def test_a_slow_answer_times_out_and_the_handler_is_cancelled(client: Mesh, crew: Crew) -> None:
    with pytest.raises(TimedOut):
        await client.request("summarizer", "hang", timeout=0.2)
    async with asyncio.timeout(60):
        await crew.cancelled.wait()


async def test_a_cancelled_request_cancels_its_handler(client: Mesh, crew: Crew) -> None:
    task = asyncio.create_task(client.request("summarizer", "hang"))
    async with asyncio.timeout(60):
        await crew.started.wait()
        task.cancel()
        await crew.cancelled.wait()


async def test_a_stream_yields_its_items_in_order(client: Mesh) -> None:
    words = [word async for word in client.stream("summarizer", "words", text="one two three", item_type=str)]
    assert words == ["one", "two", "three"]


async def test_a_stream_that_fails_midway_raises_after_its_items(client: Mesh) -> None:
    stream = client.stream("summarizer", "stumble", item_type=int)
    assert await anext(stream) == 1
    with pytest.raises(AgentFailed, match="out of paper") as caught:
        await anext(stream)
    assert caught.value.agent_status == 410


async def test_leaving_a_stream_ends_its_handler(client: Mesh, crew: Crew) -> None:
    async with aclosing(client.stream("summarizer", "endless", item_type=int)) as numbers:
        async for number in numbers:
            if number == 100:
                break
    async with asyncio.timeout(60):
        await crew.cancelled.wait()


async def test_a_request_for_a_stream_says_how_to_ask_for_it(client: Mesh) -> None:
    with pytest.raises(InvalidRequest, match="text/event-stream"):
        await client.request("summarizer", "words", text="one")


async def test_a_stream_of_a_plain_kind_is_refused_before_it_is_processed(client: Mesh, crew: Crew) -> None:
    with pytest.raises(InvalidRequest, match="one result"):
        await anext(client.stream("summarizer", "count"))
    assert crew.served["count"] == 0


async def test_an_agent_knows_for_certain_who_calls_it(factory: MeshFactory, crew: Crew) -> None:
    async with factory({crew.summarizer(): 1, crew.chief(): 1}) as mesh:
        forged = {"x-weft-caller": "spiffe://weft.local/agent/chief/chief-1"}
        outside = await mesh.client.request("summarizer", "caller", headers=forged, result_type=str)
        assert outside.startswith("spiffe://weft.local/operator/")
        inside = await mesh.client.request("chief", "introduce", result_type=str)
        assert inside.startswith("spiffe://weft.local/agent/chief/")


async def test_calls_go_round_all_instances(factory: MeshFactory) -> None:
    agent = Agent("worker", concurrency=1)
    both = asyncio.Barrier(2)

    @agent.handles("meet")
    async def meet() -> None:
        await both.wait()

    async with factory({agent: 2}) as mesh, asyncio.timeout(60):
        await asyncio.gather(*(mesh.client.request("worker", "meet") for _ in range(2)))


async def test_a_busy_instance_refuses_and_another_takes_the_call(factory: MeshFactory, crew: Crew) -> None:
    async with factory({crew.summarizer(concurrency=1): 2}) as mesh, asyncio.timeout(60):
        hanging = asyncio.create_task(mesh.client.request("summarizer", "hang"))
        await crew.started.wait()
        assert [await mesh.client.request("summarizer", "count") for _ in range(4)] == [1, 2, 3, 4]
        crew.release.set()
        assert await hanging == "released"


async def test_when_all_are_busy_the_call_is_refused(factory: MeshFactory, crew: Crew) -> None:
    async with factory({crew.summarizer(concurrency=1): 1}) as mesh, asyncio.timeout(60):
        hanging = asyncio.create_task(mesh.client.request("summarizer", "hang"))
        await crew.started.wait()
        with pytest.raises(Refused, match="busy"):
            await mesh.client.request("summarizer", "count")
        assert crew.served["count"] == 0
        crew.release.set()
        await hanging


async def test_a_draining_instance_finishes_its_call_and_gets_no_other(
    factory: MeshFactory, crew: Crew
) -> None:
    async with factory({crew.summarizer(): 1}) as mesh, asyncio.timeout(60):
        hanging = asyncio.create_task(mesh.client.request("summarizer", "hang"))
        await crew.started.wait()
        [instance] = await mesh.client.discover("summarizer")
        await mesh.drain(instance)
        with pytest.raises((NoHealthyAgent, Refused)):
            await mesh.client.request("summarizer", "count")
        crew.release.set()
        assert await hanging == "released"


async def test_without_a_healthy_agent_the_error_names_the_type(factory: MeshFactory, crew: Crew) -> None:
    async with factory({crew.summarizer(): 1}) as mesh:
        [instance] = await mesh.client.discover("summarizer")
        await mesh.drain(instance)
        [changed] = await mesh.client.discover("summarizer", status=None)
        assert changed.status is Status.DRAINING
        with pytest.raises(NoHealthyAgent, match="summarizer"):
            await mesh.client.request("summarizer", "count")


async def test_a_call_whose_agent_dies_midway_is_interrupted_and_not_repeated(
    factory: MeshFactory, crew: Crew
) -> None:
    async with factory({crew.summarizer(): 2}) as mesh, asyncio.timeout(60):
        [victim, _] = await mesh.client.discover("summarizer")
        call = asyncio.create_task(mesh.client.request(victim, "hang"))
        await crew.started.wait()
        await mesh.kill(victim)
        with pytest.raises(Interrupted):
            await call
        assert crew.served["hang"] == 1


async def test_with_an_idempotency_key_another_agent_takes_over(factory: MeshFactory, crew: Crew) -> None:
    async with factory({crew.summarizer(): 2}) as mesh, asyncio.timeout(60):
        call = asyncio.create_task(mesh.client.request("summarizer", "hang", idempotency_key="k-1"))
        await crew.started.wait()
        crew.started.clear()
        await mesh.kill(await busy_one(mesh.client))
        await crew.started.wait()
        crew.release.set()
        assert await call == "released"
        assert crew.served["hang"] == 2


async def test_the_same_idempotency_key_gets_the_same_answer(factory: MeshFactory, crew: Crew) -> None:
    async with factory({crew.summarizer(): 1}) as mesh:
        answers = [await mesh.client.request("summarizer", "count", idempotency_key="k-1") for _ in range(3)]
        assert answers == [1, 1, 1]
        assert await mesh.client.request("summarizer", "count", idempotency_key="k-2") == 2


async def test_discover_returns_instances_that_match_everything(client: Mesh) -> None:
    assert {each.type for each in await client.discover()} == {"summarizer", "chief"}
    assert len(await client.discover("summarizer")) == 2
    assert [each.type for each in await client.discover(capability=["delegate", "summarize"])] == ["chief"]
    assert await client.discover("summarizer", capability="delegate") == []
    assert len(await client.discover(version="2")) == 2
    assert await client.discover(labels={"zone": "moon"}) == []
    assert await client.discover(status=Status.DRAINING) == []


async def test_discover_stops_at_its_limit(client: Mesh) -> None:
    everyone = await client.discover()
    assert await client.discover(limit=2) == everyone[:2]
    assert await client.discover(limit=0) == []


async def test_a_watch_tells_who_is_there_and_who_leaves(factory: MeshFactory, crew: Crew) -> None:
    async with (
        factory({crew.summarizer(): 2}) as mesh,
        asyncio.timeout(60),
        aclosing(mesh.client.watch("summarizer")) as changes,
    ):
        first, second = await anext(changes), await anext(changes)
        assert {first.kind, second.kind} == {ChangeKind.ADDED}
        await mesh.kill(first.instance)
        gone = await anext(changes)
        assert (gone.kind, gone.instance.id) == (ChangeKind.REMOVED, first.instance.id)
        await mesh.drain(second.instance)
        no_longer_healthy = await anext(changes)
        assert (no_longer_healthy.kind, no_longer_healthy.instance.id) == (
            ChangeKind.REMOVED,
            second.instance.id,
        )


async def test_agents_are_found_by_the_skills_in_their_cards(client: Mesh) -> None:
    async def known() -> bool:
        return len(await client.cards()) == 2

    async with asyncio.timeout(60):
        await until(known)
    assert [each.type for each in await client.cards()] == ["chief", "summarizer"]
    assert [each.type for each in await client.cards(skill=["words", "summarize"])] == ["summarizer"]
    assert [each.type for each in await client.cards("NOBODY chief", tag="delegate")] == ["chief"]
    assert await client.cards("nobody", skill="words") == []
    found = await client.card("chief")
    assert (found.card["name"], found.instances, found.healthy) == ("chief", 1, 1)
    urls = [each["url"] for each in found.card["supportedInterfaces"]]
    assert urls
    assert all(each.startswith("http://chief.mesh/") for each in urls)
    with pytest.raises(NotFound, match="nobody"):
        await client.card("nobody")


async def test_handlers_are_tools(client: Mesh, crew: Crew) -> None:
    tools = await tools_of(client)
    assert {"summarize", "words", "introduce"} <= tools.keys()
    summary = await client.call_tool("summarize", text="abcdef", length=2)
    assert summary.structured == {"text": "ab", "length": 2}
    assert (await client.call_tool("chief_delegate", text="abcdef")).text == "chief says abc"
    with pytest.raises(AgentFailed, match="out of ink"):
        await client.call_tool("fail")
    with pytest.raises(AgentFailed, match="text"):
        await client.call_tool("summarize")
    with pytest.raises(NotFound, match="Unknown tool"):
        await client.call_tool("nothing")


async def test_an_agent_that_is_a_tool_knows_its_caller(client: Mesh) -> None:
    await tools_of(client)
    caller = (await client.call_tool("caller")).structured["result"]
    assert caller.startswith("spiffe://weft.local/operator/")
