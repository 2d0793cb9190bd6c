"""Envoys that are watched: when each of them learns of an endpoint, and when it forgets it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Set
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from weft.aio.tasks import TaskOwner

POLL = 0.01
"""Seconds between looks at each Envoy: how exact the times are."""

LIMIT = 60.0
"""Seconds after which a change that does not arrive is given up."""


class Observers:
    """A watch over the endpoints that several Envoys have. Use `observing()`."""

    def __init__(self, count: int) -> None:
        self._known: list[dict[str, float]] = [{} for _ in range(count)]
        self._forgotten: list[dict[str, float]] = [{} for _ in range(count)]
        self._news = asyncio.Condition()

    async def all_know(self, endpoint: str) -> float:
        """Wait until every Envoy has `endpoint` (host:port); return when the last one got it.

        Times are of the monotonic clock, in seconds. Raises RuntimeError after LIMIT.
        """
        return await self._all(self._known, endpoint)

    async def all_forgot(self, endpoint: str) -> float:
        """Wait until no Envoy has `endpoint`, which all had; return when the last one lost it.

        As `all_know`.
        """
        return await self._all(self._forgotten, endpoint)

    async def saw(self, observer: int, endpoints: Set[str]) -> None:
        """Note what an Envoy has now."""
        now = time.monotonic()
        known, forgotten = self._known[observer], self._forgotten[observer]
        gone, new = known.keys() - endpoints, endpoints - known.keys()
        for each in gone:
            del known[each]
            forgotten[each] = now
        for each in new:
            forgotten.pop(each, None)
            known[each] = now
        if gone or new:
            async with self._news:
                self._news.notify_all()

    async def _all(self, times: list[dict[str, float]], endpoint: str) -> float:
        try:
            async with asyncio.timeout(LIMIT), self._news:
                await self._news.wait_for(lambda: all(endpoint in each for each in times))
        except TimeoutError:
            missing = sum(endpoint not in each for each in times)
            raise RuntimeError(f"{missing} sidecars did not hear of {endpoint} in {LIMIT:g} s") from None
        return max(each[endpoint] for each in times)


@asynccontextmanager
async def observing(sockets: Collection[Path], cluster: str) -> AsyncIterator[Observers]:
    """Watch the endpoints of `cluster` in the Envoys that have their admin interfaces at `sockets`."""
    observers = Observers(len(sockets))
    async with TaskOwner("observers") as tasks:
        for number, socket in enumerate(sockets):
            tasks.start(_watch(observers, number, socket, cluster), name=str(socket), endless=True)
        yield observers


async def _watch(observers: Observers, number: int, socket: Path, cluster: str) -> None:
    connector = aiohttp.UnixConnector(str(socket))
    async with aiohttp.ClientSession(connector=connector) as client:
        while True:
            async with client.get("http://admin/clusters") as response:
                await observers.saw(number, _endpoints(await response.text(), cluster))
            await asyncio.sleep(POLL)


def _endpoints(clusters: str, cluster: str) -> set[str]:
    """The endpoints in Envoy's answer, whose lines are `cluster::host:port::name::value`."""
    prefix = f"{cluster}::"
    lines = (line.split("::") for line in clusters.splitlines() if line.startswith(prefix))
    return {parts[1] for parts in lines if len(parts) == 4}
