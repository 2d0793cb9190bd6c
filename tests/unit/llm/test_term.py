"""A term of scheduling: what a leader knows, by an in-memory store and a clock that is set by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry
from tests.unit.llm.scheduling import ended

from weft.aio.cancellation import end
from weft.aio.poll import until
from weft.controlplane.llm.call import Admission, Call, Ended, Reason, Refusal, Usage
from weft.controlplane.llm.declared import Declared
from weft.controlplane.llm.kept_records import Superseded
from weft.controlplane.llm.metrics import LlmMetrics
from weft.controlplane.llm.state_records import StateBuckets
from weft.controlplane.llm.steady import steady_clock
from weft.controlplane.llm.term import LOST_AFTER, Lapsed, Term
from weft.model.budget import BudgetSpec
from weft.model.model_pool import ModelPool, ModelPoolSpec
from weft.model.service_class import ServiceClass
from weft.store.memory import MemoryStore

LIMIT = 30.0


class Clock:
    """Seconds since 1970."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def declared() -> Declared:
    provider = {"name": "p1", "url": "http://127.0.0.1:9/v1", "limits": {"concurrency": 1}}
    scheduling = {"maxWait": "1h"}
    parsed = ModelPoolSpec.model_validate({"providers": [provider], "scheduling": scheduling})
    return Declared({"one": ModelPool("one", parsed)})


def call(name: str, clock: Clock) -> Call:
    return Call(name, "one", "one", "writer", ServiceClass.STANDARD, 10, 10, clock.now)


async def begin(
    buckets: StateBuckets, clock: Clock, name: str = "first", ended: Iterable[Ended] = ()
) -> Term:
    return await Term.begin(
        buckets,
        name,
        declared(),
        LlmMetrics(CollectorRegistry()),
        leads=lambda: True,
        lease=lambda _: None,
        clock=clock,
        ended=ended,
    )


async def succeed(buckets: StateBuckets, clock: Clock) -> Term:
    """Another's term, which begins as soon as the one before does not write at the same moment."""
    while True:
        with suppress(Superseded):
            return await begin(buckets, clock, "second")


@asynccontextmanager
async def running(term: Term) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(term.run())
    try:
        yield task
    finally:
        term.close()
        await end([task])


@pytest.fixture
async def buckets() -> StateBuckets:
    return await StateBuckets.open(MemoryStore())


def test_the_time_of_a_term_does_not_jump(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    clock = steady_clock()
    monkeypatch.setattr(time, "time", lambda: now + 86_400)
    assert now - 1 < clock() < now + 3600


async def test_a_call_of_which_nobody_tells_any_more_makes_room(buckets: StateBuckets) -> None:
    clock = Clock()
    term = await begin(buckets, clock)
    async with running(term), asyncio.timeout(LIMIT):
        assert isinstance(await term.ask(call("lost", clock)), Admission)
        waiting = term.ask(call("next", clock))
        for _ in range(3):
            clock.now += LOST_AFTER * 0.9
            term.still_runs("lost")
            term.grant()  # wakes it
            await asyncio.sleep(0.01)
        assert not waiting.done()
        clock.now += LOST_AFTER * 1.1
        term.grant()
        assert isinstance(await waiting, Admission)


async def test_calls_of_a_pool_that_is_deleted_meanwhile_are_charged_what_they_used(
    buckets: StateBuckets,
) -> None:
    clock = Clock()
    budget = ("all", BudgetSpec(tokens=1000))
    term = await begin(buckets, clock)
    term.reconfigure(Declared(declared().pools, (budget,)))
    async with running(term), asyncio.timeout(LIMIT):
        assert isinstance(await term.ask(call("runs", clock)), Admission)
        waiting = term.ask(call("waits", clock))
        term.reconfigure(Declared({}, (budget,)))
        refusal = await waiting
        assert isinstance(refusal, Refusal)
        assert refusal.reason is Reason.UNKNOWN_MODEL
        assert term.ended(replace(ended("runs", clock.now, "p1", usage=Usage(3, 4)), pool="one"))
        [spent] = term.ledger.figures(clock.now)
        assert (spent.spent_tokens, spent.set_aside_tokens) == (7, 0)


async def test_the_end_of_a_call_that_was_told_but_not_written_is_known_in_the_next_term(
    buckets: StateBuckets,
) -> None:
    clock = Clock()
    term = await begin(buckets, clock)
    async with running(term), asyncio.timeout(LIMIT):
        assert isinstance(await term.ask(call("over", clock)), Admission)
    told = replace(ended("over", clock.now, "p1"), pool="one")
    term = await begin(buckets, clock, "next", [told])
    async with running(term), asyncio.timeout(LIMIT):
        assert isinstance(await term.ask(call("next", clock)), Admission)


async def test_a_call_is_told_only_what_is_written_and_a_successor_reads_it(buckets: StateBuckets) -> None:
    clock = Clock()
    term = await begin(buckets, clock)
    async with running(term) as task, asyncio.timeout(LIMIT):
        assert isinstance(await term.ask(call("a", clock)), Admission)
        waiting = term.ask(call("b", clock))
        successor = await succeed(buckets, clock)
        # The old leader does not know that it is none; what it would write now fails.
        clock.now += 1.0
        term.sidecar_gone("")
        with pytest.raises(Superseded):
            await task
        term.close()
        with pytest.raises(Lapsed):
            await waiting
        async with running(successor):
            held = successor.ask(call("b", clock))
            await until(lambda: _waits(successor))
            assert not held.done()
            # That it is under way already makes no second call of it.
            assert isinstance(await successor.ask(call("a", clock)), Admission)


async def _waits(term: Term) -> bool:
    return [each.id for each in term.waiting] == ["b"]
