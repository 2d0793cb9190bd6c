"""Calls over a transport: their time limits, their size limits, and which of them may be sent again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, aclosing
from typing import TypeVar

from weft.errors import AgentFailed, Interrupted, TimedOut, Unavailable
from weft.sdk.problem import read_error
from weft.sdk.sse import Event, EventDecoder
from weft.sdk.transport import Answer, Call, Transport
from weft.sdk.wire import EVENT_STREAM, MAX_ANSWER_BYTES

T = TypeVar("T")

UNREACHABLE_LIMIT = 10.0
"""Seconds for which a sidecar that takes no connections is tried: one that restarts is back by then."""


def pauses(first: float = 0.05, longest: float = 1.0) -> Iterator[float]:
    """Yield seconds to wait between attempts, without end: random, at most `first`, doubling to `longest`."""
    ceiling = first
    while True:
        yield random.uniform(0, ceiling)  # noqa: S311 - spreads load, hides nothing
        ceiling = min(ceiling * 2, longest)


async def fetch(transport: Transport, call: Call, timeout: float, *, repeatable: bool = False) -> bytes:
    """Make `call` and return the body of its answer, all within `timeout` seconds.

    A `repeatable` call is sent again after it broke midway, others only if they certainly were not sent.
    Raises the MeshError that a failure or an answer with an error status stands for.
    """

    async def attempt() -> tuple[Answer, bytes]:
        async with transport.exchange(call) as answer:
            return answer, await _body(call, answer)

    try:
        async with asyncio.timeout(timeout):
            answer, body = await _persist(attempt, timeout, repeatable=repeatable)
    except TimeoutError:
        raise TimedOut(
            f"{call.host} did not answer within {timeout:g} seconds; it may still be at work"
        ) from None
    if answer.status >= 400:
        raise read_error(call.host, answer.status, answer.headers, body)
    return body


async def events_of(
    transport: Transport, call: Call, idle_timeout: float, time_left: float | None = None
) -> AsyncGenerator[Event, None]:
    """Make `call` and yield the events of its answer until the connection ends.

    Raises TimedOut when nothing, not even a heartbeat, comes for `idle_timeout` seconds, or when `time_left`
    seconds are over, and what `fetch` raises.
    """
    end = None if time_left is None else asyncio.get_running_loop().time() + time_left
    async with AsyncExitStack() as stack:
        opening = _open_stream(stack, transport, call, idle_timeout)
        answer = await _within(idle_timeout, end, call, opening)
        decoder = EventDecoder()
        chunks = await stack.enter_async_context(aclosing(answer.chunks()))
        while chunk := await _within(idle_timeout, end, call, anext(chunks, b"")):
            try:
                events = decoder.feed(chunk)
            except ValueError as error:
                raise AgentFailed(f"the stream of {call.host} makes no sense: {error}") from error
            for event in events:
                yield event


async def _open_stream(
    stack: AsyncExitStack, transport: Transport, call: Call, idle_timeout: float
) -> Answer:
    answer = await _persist(
        lambda: stack.enter_async_context(transport.exchange(call)), idle_timeout, repeatable=False
    )
    if answer.status >= 400:
        raise read_error(call.host, answer.status, answer.headers, await _body(call, answer))
    if not answer.headers.get("content-type", "").startswith(EVENT_STREAM):
        raise AgentFailed(f"{call.host} did not answer with a stream of events", agent_status=answer.status)
    return answer


async def _within(seconds: float, end: float | None, call: Call, step: Awaitable[T]) -> T:
    silent_until = asyncio.get_running_loop().time() + seconds
    try:
        async with asyncio.timeout_at(silent_until if end is None else min(silent_until, end)):
            return await step
    except TimeoutError:
        if end is not None and end <= silent_until:
            raise TimedOut(f"the deadline has passed before the stream of {call.host} ended") from None
        raise TimedOut(f"the stream of {call.host} was silent for {seconds:g} seconds") from None


async def _persist(attempt: Callable[[], Awaitable[T]], timeout: float, *, repeatable: bool) -> T:
    """Repeat `attempt` while it may be repeated and there is time; then raise what the last one raised."""
    now = asyncio.get_running_loop().time
    deadline = now() + timeout
    unreachable_until = now() + min(timeout, UNREACHABLE_LIMIT)
    for pause in pauses():
        try:
            return await attempt()
        except Unavailable:
            if now() + pause > unreachable_until:
                raise
        except Interrupted:
            if not repeatable or now() + pause > deadline:
                raise
        await asyncio.sleep(pause)
    raise AssertionError("pauses() never ends")


async def _body(call: Call, answer: Answer) -> bytes:
    parts = []
    size = 0
    async with aclosing(answer.chunks()) as chunks:
        async for chunk in chunks:
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                raise AgentFailed(
                    f"the answer of {call.host} is larger than {MAX_ANSWER_BYTES} bytes",
                    agent_status=answer.status,
                )
            parts.append(chunk)
    return b"".join(parts)
