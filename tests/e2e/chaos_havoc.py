"""Who kills: at random, by a seed, so that what went wrong can be tried again."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from tests.e2e.chaos_stage import Post, Server

from weft.aio.poll import until

FROZEN = 3.0
"""Seconds for which a worker is frozen: longer than it may be silent."""

LONGEST_OUTAGE = 1.0
"""Seconds that a server is away at most, beside those that it takes to start."""


class Havoc:
    """Kills workers, gateways and servers."""

    def __init__(
        self, seed: int, workers: Sequence[Post], gateways: Sequence[Post], servers: Sequence[Server]
    ) -> None:
        self._random = random.Random(seed)
        self._workers = workers
        self._gateways = gateways
        self._servers = servers
        self.done: Counter[str] = Counter()
        """How often each thing was done."""

    async def wreak(self, times: int, total: int, progress: Callable[[], int]) -> None:
        """Do something so many times, spread over the progress up to `total`; each thing at least once."""
        deeds = self._deeds(times)
        moments = sorted(self._random.sample(range(total), len(deeds)))
        async with asyncio.TaskGroup() as thawing:
            for moment, (name, deed) in zip(moments, deeds, strict=True):

                async def reached(moment: int = moment) -> bool:
                    return progress() >= moment

                await until(reached, longest=0.1)
                self.done[name] += 1
                if name == "worker frozen":
                    thawing.create_task(_awaited(deed))
                else:
                    await deed()

    def _deeds(self, times: int) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        deeds: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        for server in self._servers:
            deeds += [(f"{type(server).__name__} killed", self._outage(server))] * max(1, times // 15)
        kinds: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("worker killed", self._kill_worker),
            ("worker frozen", self._freeze_worker),
            ("gateway killed", self._kill_gateway),
        ]
        deeds += kinds
        deeds += self._random.choices(kinds, weights=(6, 2, 2), k=max(0, times - len(deeds)))
        self._random.shuffle(deeds)
        return deeds

    def _outage(self, server: Server) -> Callable[[], Awaitable[None]]:
        async def outage() -> None:
            await server.kill()
            await asyncio.sleep(self._random.uniform(0, LONGEST_OUTAGE))
            await server.start()

        return outage

    async def _kill_worker(self) -> None:
        self._random.choice(self._workers).send(signal.SIGKILL)

    async def _kill_gateway(self) -> None:
        self._random.choice(self._gateways).send(signal.SIGKILL)

    async def _freeze_worker(self) -> None:
        await self._random.choice(self._workers).freeze(FROZEN)


async def _awaited(deed: Callable[[], Awaitable[None]]) -> None:
    await deed()
