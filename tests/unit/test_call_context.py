"""What calls pass on of the call that is handled: its trace, its limits, its way through the mesh."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest

import weft
from weft import Agent, AgentFailed, InvalidRequest, LoopDetected, Mesh, ReceivedEvent, TimedOut, Unavailable
from weft.model.call_budget import BudgetLimit, narrowed, parse_budget
from weft.model.hops import cycle_of, with_hop
from weft.sdk.call_budget import BudgetLeft, CallBudget, call_budget
from weft.sdk.context import Context, handling, read_context
from weft.sdk.inheritance import inherited_headers, inherited_time
from weft.testing import InMemoryMesh

TRACE = f"00-{'a' * 32}-{'b' * 16}-01"
PASSED_ON = {
    "x-weft-context": "chat-1",
    "x-weft-budget": "5000 tokens, 1000 tokens;id=b1",
    "x-weft-hops": "editor, planner",
    "traceparent": TRACE,
    "tracestate": "vendor=1",
    "baggage": "tenant=acme",
}


def noted() -> dict[str, str]:
    """What the handler that calls this was sent, of what is passed on."""
    headers = weft.current().headers
    return {name: headers[name] for name in (*PASSED_ON, "x-weft-deadline") if name in headers}


@pytest.fixture
async def mesh() -> AsyncIterator[InMemoryMesh]:
    async with InMemoryMesh() as mesh:
        yield mesh


def witness() -> Agent:
    agent = Agent("witness")

    @agent.handles("note")
    async def note() -> dict[str, str]:
        return noted()

    @agent.streams("watch")
    async def watch() -> AsyncGenerator[dict[str, str], None]:
        yield noted()

    return agent


def middleman() -> Agent:
    agent = Agent("middleman")

    @agent.handles("ask")
    async def ask(mesh: Mesh) -> dict[str, str]:
        found: dict[str, str] = await mesh.request("witness", "note")
        return found

    @agent.handles("narrow")
    async def narrow(mesh: Mesh, timeout: float | None = None, budget: str | None = None) -> list[Any]:
        async def branch() -> Any:
            with weft.limits(timeout=timeout, budget=budget):
                return await mesh.request("witness", "note")

        return list(await asyncio.gather(branch(), branch(), mesh.request("witness", "note")))

    return agent


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("5000 tokens", [BudgetLimit(tokens=5000)]),
        ("0.25 usd, 7tokens", [BudgetLimit(tokens=7, usd=0.25)]),
        ("9 tokens, 5 tokens;id=b-1, 3 usd ; id = b-1", [BudgetLimit(tokens=9), BudgetLimit("b-1", 5, 3.0)]),
        ("1 usd;id=out, 2 usd;id=in", [BudgetLimit("out", usd=1.0), BudgetLimit("in", usd=2.0)]),
    ],
)
def test_a_budget_is_that_of_the_tree_and_of_branches_the_least_that_is_said(
    text: str, limits: list[BudgetLimit]
) -> None:
    assert list(parse_budget(text)) == limits
    assert parse_budget(narrowed(limits, limits[-1])) == tuple(limits)


def test_what_a_part_may_spend_is_the_least_that_was_said_of_it() -> None:
    outer = parse_budget("9 tokens, 0.000000001 usd;id=one")
    assert narrowed(outer, BudgetLimit("one", 5, 2.0)) == "9 tokens, 5 tokens;id=one, 0.000000001 usd;id=one"
    assert narrowed(outer, BudgetLimit(tokens=20)) == "9 tokens, 0.000000001 usd;id=one"
    with pytest.raises(InvalidRequest, match="at most 17"):
        narrowed([BudgetLimit(f"b{number}", 1) for number in range(17)], BudgetLimit("more", 1))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "much",
            "5",
            "-1 tokens",
            "1.5 tokens",
            "5 tokens;",
            "5 tokens;id=",
            "5 tokens;id=a b",
            *("1e3 usd", "9 tokens, 5 tokens", "1 usd;id=a, 2 tokens;id=a, 3 usd;id=a"),
        ),
        f"5 tokens;id={'b' * 33}",
        ",".join(f"1 tokens;id=b{number}" for number in range(18)),
        ",".join(["1 tokens"] * 200),
    ],
)
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="x-weft-budget must be as '5000 tokens'"):
        parse_budget(text)


@pytest.mark.parametrize(
    ("way", "cycle"),
    [
        ("a b c", ""),
        ("a b c b c", "b c"),
        ("a a", "a"),
        ("x a b c a b c", "a b c"),
        ("a b c d b", "c d b"),
    ],
)
def test_a_loop_is_told_by_the_agents_that_it_goes_through(way: str, cycle: str) -> None:
    assert list(cycle_of(way.split())) == cycle.split()


def test_a_tree_that_has_passed_as_many_agents_as_it_may_is_told_its_circle() -> None:
    assert with_hop(["a", "b"], "c", 3) == "a, b, c"
    with pytest.raises(LoopDetected, match="round: a -> b -> a; its way was a -> b -> a -> b"):
        with_hop(["a", "b", "a"], "b", 3)


async def test_what_a_call_brought_goes_along_with_the_calls_that_its_handler_makes(
    mesh: InMemoryMesh,
) -> None:
    mesh.add(witness())
    mesh.add(middleman())
    deadline = str(int((time.time() + 60) * 1000))
    sent = {**PASSED_ON, "x-weft-deadline": deadline}
    passed = {**sent, "x-weft-hops": "editor, planner, middleman"}
    assert await mesh.client.request("middleman", "ask", headers=sent) == passed


async def test_a_call_outside_of_any_handler_begins_a_trace_and_a_block_of_limits_is_one(
    mesh: InMemoryMesh,
) -> None:
    mesh.add(witness())
    one, other = [await mesh.client.request("witness", "note") for _ in range(2)]
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", one["traceparent"])
    assert one["traceparent"] != other["traceparent"]
    with weft.limits(timeout=60, budget="3 usd", branch=""):
        one, other = [await mesh.client.request("witness", "note") for _ in range(2)]
        [streamed] = [each async for each in mesh.client.stream("witness", "watch")]
    assert one == other == streamed
    assert one["x-weft-budget"] == "3 usd"
    assert 0 < int(one["x-weft-deadline"]) / 1000 - time.time() < 60
    assert inherited_time() is None


async def test_a_call_that_brings_no_trace_or_nonsense_begins_one_where_it_is_handled(
    mesh: InMemoryMesh,
) -> None:
    for sent in ({}, {"traceparent": "00-1-2-01"}, {"traceparent": f"00-{'0' * 32}-{'b' * 16}-01"}):
        context = read_context("any", sent)
        with handling(context):
            assert inherited_headers() == {"traceparent": context.traceparent}
        assert re.fullmatch("[0-9a-f]{32}", context.trace or "")


async def test_branches_have_limits_of_their_own_within_those_of_the_tree(mesh: InMemoryMesh) -> None:
    mesh.add(witness())
    mesh.add(middleman())
    deadline = str(int((time.time() + 60) * 1000))
    sent = {"x-weft-budget": "9 usd", "x-weft-deadline": deadline}
    one, other, plain = await mesh.client.request(
        "middleman", "narrow", timeout=300, headers=sent, budget="5 tokens"
    )
    [tree, own] = parse_budget(one["x-weft-budget"])
    [_, others] = parse_budget(other["x-weft-budget"])
    assert (tree, own.tokens, others.tokens) == (BudgetLimit(usd=9.0), 5, 5)
    assert own.branch != others.branch
    assert plain["x-weft-budget"] == "9 usd"
    assert {each["x-weft-deadline"] for each in (one, other, plain)} == {deadline}
    one, _, plain = await mesh.client.request("middleman", "narrow", {"timeout": 5}, headers=sent)
    assert int(one["x-weft-deadline"]) < int(plain["x-weft-deadline"]) == int(deadline)


async def test_a_stream_ends_with_the_deadline_of_the_tree(mesh: InMemoryMesh) -> None:
    agent = Agent("slow")

    @agent.streams("sleep")
    async def sleep() -> AsyncGenerator[int, None]:
        yield 1
        await asyncio.Event().wait()

    mesh.add(agent)
    with weft.limits(timeout=0.2), pytest.raises(TimedOut, match="deadline has passed"):
        async for _ in mesh.client.stream("slow", "sleep"):
            pass


async def test_what_fails_for_want_of_time_is_told_so_through_all_hops(mesh: InMemoryMesh) -> None:
    slow, asks = Agent("slow"), Agent("asks")

    @slow.handles("sleep")
    async def sleep() -> None:
        await asyncio.Event().wait()

    @asks.handles("ask")
    async def ask(mesh: Mesh, timeout: float) -> None:
        await mesh.request("slow", "sleep", timeout=timeout)

    mesh.add(slow)
    mesh.add(asks)
    deadline = {"x-weft-deadline": str(int((time.time() + 0.3) * 1000))}
    with pytest.raises(TimedOut):
        await mesh.client.request("asks", "ask", {"timeout": 30}, headers=deadline)
    with pytest.raises(
        AgentFailed, match=r"'ask' failed, because a call it made did: slow\.mesh did not answer"
    ):
        await mesh.client.request("asks", "ask", {"timeout": 0.1})


async def test_tasks_and_events_take_along_the_tree_and_the_way_but_not_the_deadline(
    mesh: InMemoryMesh,
) -> None:
    seen: dict[str, dict[str, str]] = {}
    called = asyncio.Event()
    worker = Agent("worker")

    @worker.task("jobs")
    async def job(mesh: Mesh) -> None:
        seen["task"] = noted()
        await mesh.publish("news", 1)

    @worker.on("news")
    async def news(event: ReceivedEvent, mesh: Mesh) -> None:
        seen["event"] = noted()
        seen["call"] = await mesh.request("witness", "note")
        called.set()

    mesh.add(worker)
    mesh.add(witness())
    sender = Agent("sender")

    @sender.handles("send")
    async def send(mesh: Mesh) -> None:
        await (await mesh.submit("jobs")).result()

    mesh.add(sender)
    deadline = str(int((time.time() + 60) * 1000))
    await mesh.client.request("sender", "send", headers={**PASSED_ON, "x-weft-deadline": deadline})
    async with asyncio.timeout(30):
        await called.wait()
    assert seen["task"] == {**PASSED_ON, "x-weft-hops": "editor, planner, sender"}
    way = "editor, planner, sender, worker"
    assert seen["event"] == {**PASSED_ON, "x-weft-hops": way}
    assert seen["call"] == {**PASSED_ON, "x-weft-hops": f"{way}, worker"}


async def test_the_calls_of_a_task_have_its_deadline(mesh: InMemoryMesh) -> None:
    worker = Agent("worker")

    @worker.task("jobs")
    async def job(mesh: Mesh) -> float:
        told = await mesh.request("witness", "note")
        return int(told["x-weft-deadline"]) / 1000

    mesh.add(worker)
    mesh.add(witness())
    deadline = time.time() + 60
    task = await mesh.client.submit("jobs", deadline=60)
    assert abs(await task.result(30) - deadline) < 10


async def test_tasks_that_beget_each_other_for_ever_are_stopped(mesh: InMemoryMesh) -> None:
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    worker = Agent("worker")

    @worker.task("jobs")
    async def job(mesh: Mesh) -> None:
        try:
            await mesh.submit("jobs")
        except LoopDetected as error:
            ended.set_result(error.detail)

    mesh.add(worker)
    await mesh.client.submit("jobs")
    async with asyncio.timeout(30):
        detail = await ended
    assert "passed 16 agents, and may pass no more; it goes round and round: worker -> worker;" in detail


async def test_a_loop_is_told_to_the_beginner_of_the_tree_as_it_was_found(mesh: InMemoryMesh) -> None:
    hen, egg = Agent("hen"), Agent("egg")

    @hen.handles("lay")
    async def lay(mesh: Mesh) -> None:
        await mesh.request("egg", "hatch")

    @egg.handles("hatch")
    async def hatch(mesh: Mesh) -> None:
        await mesh.request("hen", "lay")

    mesh.add(hen, 2)
    mesh.add(egg, 2)
    with pytest.raises(
        LoopDetected, match=r"^the call tree has passed 16 .* round: egg -> hen -> egg; its way"
    ):
        await mesh.client.request("hen", "lay")


async def test_a_budget_that_is_none_is_400(mesh: InMemoryMesh) -> None:
    mesh.add(witness())
    with pytest.raises(InvalidRequest, match="x-weft-budget"):
        await mesh.client.request("witness", "note", headers={"x-weft-budget": "plenty"})
    with pytest.raises(InvalidRequest, match="branch="), weft.limits(budget="5 tokens;id=a"):
        pass


def test_the_context_tells_what_came_with_the_call() -> None:
    headers = {**PASSED_ON, "baggage": "a=1, b=%20x;secret, nothing, =2"}
    context = read_context("any", headers)
    assert (context.hops, context.trace) == (("editor", "planner"), "a" * 32)
    assert context.baggage == {"a": "1", "b": " x"}
    assert context.budget == PASSED_ON["x-weft-budget"]
    nothing = Context("any", {})
    assert (nothing.hops, nothing.trace, nothing.baggage, nothing.budget) == ((), None, {}, None)


def test_what_is_left_is_the_least_of_what_the_call_and_its_tree_are_given() -> None:
    answer = {
        "items": [
            {"branch": "", "limitTokens": 1000, "spentTokens": 300, "setAsideTokens": 100, "spentUsd": 0.5},
            {"branch": "one", "limitTokens": 900, "limitUsd": 2.0, "spentTokens": 10, "spentUsd": 0.5},
            {"branch": "other", "limitTokens": 1, "spentTokens": 1},
        ]
    }
    found = call_budget(parse_budget("500 tokens;id=one, 7 usd;id=new"), json.dumps(answer).encode())
    assert found.parts == (
        BudgetLeft("", 600, None, 300, 0.5),
        BudgetLeft("one", 490, 1.5, 10, 0.5),
        BudgetLeft("new", None, 7.0),
    )
    assert (found.tokens, found.usd) == (490, 1.5)
    assert call_budget(parse_budget("5 tokens"), b'{"items": []}').tokens == 5
    with pytest.raises(Unavailable, match="makes no sense"):
        call_budget((), b'{"items": 5}')


async def test_what_is_left_can_be_asked_for_where_nothing_was_spent(mesh: InMemoryMesh) -> None:
    assert await mesh.client.budget() == CallBudget()
    with weft.limits(budget="9 tokens", branch=""), weft.limits(budget="3 usd", branch="one"):
        assert (await mesh.client.budget()).parts == (BudgetLeft("", 9, None), BudgetLeft("one", None, 3.0))
