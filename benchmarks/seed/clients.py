"""The callers of the seed's case: each request is sent at its time, whatever became of those before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import aiohttp
from benchmarks.seed.mesh import DIRECT, FIXED

from weft.aio.poll import until
from weft.local.messaging_control import MessagingApi

_MANY_CONNECTIONS = 0
"""How aiohttp writes that there is no limit."""

_LIMIT = 30.0
_ENOUGH = 20
"""Answers in a row, by which every gateway has been met."""

_ENDED = {"succeeded", "failed", "cancelled"}


@dataclass(frozen=True, slots=True)
class Clock:
    """Simulated time."""

    began: float
    """In seconds since 1970."""
    scale: float
    """How many times as fast as ours it runs."""

    def now(self) -> float:
        """Simulated seconds since it began."""
        return (time.time() - self.began) * self.scale

    async def at(self, moment: float) -> None:
        """Return at that time."""
        await asyncio.sleep(max(0.0, (moment - self.now()) / self.scale))


@dataclass(frozen=True, slots=True)
class Response:
    """What became of one request; simulated seconds."""

    sent: float
    took: float | None
    """Until it was answered; None if it never was, or too late."""


Send = Callable[[int], Awaitable[float | None]]
"""Sends the request of that number; tells the simulated time at which it was answered."""


async def open_loop(clock: Clock, times: Sequence[float], send: Send) -> list[Response]:
    """Send a request at each of `times`. Raises the first error of any."""
    sending = []
    try:
        async with asyncio.TaskGroup() as group:
            for number, moment in enumerate(times):
                await clock.at(moment)
                sending.append(group.create_task(_sent(clock, send, number)))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [each.result() for each in sending]


async def _sent(clock: Clock, send: Send, number: int) -> Response:
    sent = clock.now()
    answered = await send(number)
    return Response(sent, None if answered is None else answered - sent)


async def called_directly(proxy: str, clock: Clock, times: Sequence[float], limit: float) -> list[Response]:
    """Call the one agent, and hang up after `limit` simulated seconds."""
    connector = aiohttp.TCPConnector(limit=_MANY_CONNECTIONS)
    timeout = aiohttp.ClientTimeout(total=limit / clock.scale)
    headers = {"x-weft-to": DIRECT}
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as client:

        async def call(number: int) -> float | None:
            try:
                body = {"kind": "think", "payload": {"number": number}}
                async with client.post(f"{proxy}/rpc", json=body) as response:
                    await response.read()
                    return clock.now() if response.status == 200 else None
            except (TimeoutError, aiohttp.ClientError):
                return None

        return await open_loop(clock, times, call)


async def taken(gateway: str, key: str) -> None:
    """Return when every gateway knows the key. Raises RuntimeError after _LIMIT."""
    in_a_row = 0

    async def known() -> bool:
        # A connection for each request: so all of the gateways are met.
        nonlocal in_a_row
        async with (
            aiohttp.ClientSession(headers={"x-api-key": key}) as client,
            client.get(f"{gateway}/v1/tasks", params={"queue": FIXED}) as response,
        ):
            in_a_row = in_a_row + 1 if response.status == 200 else 0
        return in_a_row >= _ENOUGH

    try:
        async with asyncio.timeout(_LIMIT):
            await until(known, longest=0.1)
    except TimeoutError:
        raise RuntimeError(f"the gateways do not take an API key after {_LIMIT:g} s") from None


async def through_queue(
    gateway: str, key: str, api: MessagingApi, queue: str, clock: Clock, times: Sequence[float]
) -> list[Response]:
    """Submit a task at the gateway for each request, and see when it was finished."""
    headers = {"x-api-key": key}
    ids: dict[int, str] = {}
    async with aiohttp.ClientSession(headers=headers) as client:

        async def send(number: int) -> None:
            body = {"queue": queue, "payload": {"number": number}}
            async with client.post(f"{gateway}/v1/tasks", json=body) as response:
                if response.status != 202:
                    raise RuntimeError(f"a task was not taken: {await response.text()}")
                ids[number] = (await response.json())["id"]

        sent = await open_loop(clock, times, send)
    finished = await _finished(api, queue, len(times), clock)
    return [
        Response(each.sent, finished[ids[number]] - each.sent if ids[number] in finished else None)
        for number, each in enumerate(sent)
    ]


async def _finished(api: MessagingApi, queue: str, count: int, clock: Clock) -> dict[str, float]:
    """When each task was finished that succeeded, by id; waits until all have ended."""
    tasks: list[dict[str, str]] = []

    async def ended() -> bool:
        nonlocal tasks
        tasks = await api.tasks(queue, state=None, limit=count + 1)
        return all(each["state"] in _ENDED for each in tasks)

    await until(ended, first=0.5)
    return {
        each["id"]: (datetime.fromisoformat(each["finishedAt"]).timestamp() - clock.began) * clock.scale
        for each in tasks
        if each["state"] == "succeeded"
    }
