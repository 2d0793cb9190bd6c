"""The answers that an agent remembers by Idempotency-Key."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from weft.sdk.deduplication import AnswerCache
from weft.sdk.problem import Rejection


class Work:
    """Counts how often it is done; can be held up."""

    def __init__(self) -> None:
        self.done = 0
        self.cancelled = 0
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self) -> bytes:
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.done += 1
        return b"answer %d" % self.done


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def _yield() -> None:
    """Let every task that is ready have its turn."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_same_call_is_computed_once() -> None:
    cache, work = AnswerCache(), Work()
    assert [await cache.answer("k", b"body", work) for _ in range(3)] == [b"answer 1"] * 3


async def test_copies_that_arrive_meanwhile_wait_for_the_first() -> None:
    cache, work = AnswerCache(), Work()
    work.go.clear()
    calls = [asyncio.create_task(cache.answer("k", b"body", work)) for _ in range(3)]
    await _yield()
    work.go.set()
    assert await asyncio.gather(*calls) == [b"answer 1"] * 3


async def test_another_body_under_the_same_key_is_rejected_running_or_done() -> None:
    cache, work = AnswerCache(), Work()
    work.go.clear()
    first = asyncio.create_task(cache.answer("k", b"body", work))
    await _yield()
    with pytest.raises(Rejection, match="'k'"):
        await cache.answer("k", b"other", work)
    work.go.set()
    await first
    with pytest.raises(Rejection, match="'k'"):
        await cache.answer("k", b"other", work)


async def test_a_failure_is_shared_by_those_who_wait_and_then_forgotten() -> None:
    cache, work = AnswerCache(), Work()
    started = asyncio.Event()

    async def fail() -> bytes:
        await started.wait()
        raise RuntimeError("no")

    calls = [asyncio.create_task(cache.answer("k", b"body", fail)) for _ in range(2)]
    await _yield()
    started.set()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["no", "no"]
    assert await cache.answer("k", b"body", work) == b"answer 1"


async def test_one_waiter_leaving_does_not_harm_the_others() -> None:
    cache, work = AnswerCache(), Work()
    work.go.clear()
    first = asyncio.create_task(cache.answer("k", b"body", work))
    second = asyncio.create_task(cache.answer("k", b"body", work))
    await _yield()
    first.cancel()
    await _yield()
    work.go.set()
    assert await second == b"answer 1"
    assert first.cancelled()


async def test_when_the_last_waiter_leaves_the_work_is_cancelled_and_may_begin_anew() -> None:
    cache, work = AnswerCache(), Work()
    work.go.clear()
    call = asyncio.create_task(cache.answer("k", b"body", work))
    await _yield()
    call.cancel()
    await _yield()
    assert work.cancelled == 1
    work.go.set()
    assert await cache.answer("k", b"body", work) == b"answer 1"


Forget = Callable[[AnswerCache, Work, Clock], Awaitable[object]]


async def _by_time(cache: AnswerCache, work: Work, clock: Clock) -> None:
    clock.now = 10.0


async def _by_number(cache: AnswerCache, work: Work, clock: Clock) -> None:
    for number in range(3):
        await cache.answer(f"other {number}", b"", work)


async def _by_size(cache: AnswerCache, work: Work, clock: Clock) -> None:
    async def large() -> bytes:
        return b"x" * 95

    await cache.answer("large", b"", large)


@pytest.mark.parametrize("forget", [_by_time, _by_number, _by_size])
async def test_answers_are_forgotten_by_time_number_and_size(forget: Forget) -> None:
    clock, work = Clock(), Work()
    cache = AnswerCache(max_answers=3, max_bytes=100, ttl=10.0, clock=clock)
    await cache.answer("k", b"body", work)
    clock.now = 9.9
    assert await cache.answer("k", b"body", work) == b"answer 1"
    await forget(cache, work, clock)
    before = work.done
    await cache.answer("k", b"body", work)
    assert work.done == before + 1
