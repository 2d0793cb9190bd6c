"""An autoscaler of the plainest kind: as many agents as the control plane says that a queue needs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benchmarks.seed.clients import Clock
from benchmarks.seed.mesh import SCALED, Cast

from weft.aio.poll import until
from weft.local.mesh import LocalMesh
from weft.local.messaging_control import MessagingApi

FEWEST = 3
MOST = 20

_INTERVAL = 1.0
"""Real seconds between two decisions."""
_START_LIMIT = 120.0
"""Real seconds in which agents must have started."""
_PATIENCE = 10.0
"""Real seconds for which the figure must have been lower before there are fewer, as is usual."""


@dataclass(slots=True)
class Scaler:
    """Keeps the number of agents at what is wanted; have `run` run."""

    mesh: LocalMesh
    cast: Cast
    declared: int = FEWEST
    _wanted: deque[tuple[float, int]] = field(default_factory=deque)

    async def run(self) -> None:
        """Decide again and again, for ever."""
        api = MessagingApi(self.mesh.api)
        clock = asyncio.get_running_loop().time
        while True:
            figure = (await api.queue(SCALED)).get("desiredWorkers") or 0
            number = self._number(clock(), min(max(figure, FEWEST), MOST))
            if number != self.declared:
                self.declared = number
                await self.mesh.api.apply(self.cast.agents(SCALED, number), "scaled.yaml")
            await asyncio.sleep(_INTERVAL)

    def _number(self, now: float, wanted: int) -> int:
        """The most that was wanted lately."""
        self._wanted.append((now, wanted))
        while self._wanted[0][0] < now - _PATIENCE:
            self._wanted.popleft()
        return max(each for _, each in self._wanted)


async def watch_agents(mesh: LocalMesh, clock: Clock, note: Callable[[float, int], None]) -> None:
    """Note how many agents are at work whose number follows the work, again and again, for ever."""
    while True:
        note(clock.now(), _at_work(mesh, SCALED))
        await asyncio.sleep(_INTERVAL / 4)


async def at_work(mesh: LocalMesh, wanted: Mapping[str, int]) -> None:
    """Return when so many agents of each type are at work. Raises RuntimeError after _START_LIMIT."""

    async def there() -> bool:
        return all(_at_work(mesh, agent_type) == count for agent_type, count in wanted.items())

    try:
        async with asyncio.timeout(_START_LIMIT):
            await until(there)
    except TimeoutError:
        raise RuntimeError(f"after {_START_LIMIT:g} s there are not {dict(wanted)} agents") from None


def _at_work(mesh: LocalMesh, agent_type: str) -> int:
    return sum(
        child.phase == "ready" and name.rpartition("-")[0] == agent_type
        for name, child in mesh.children.items()
    )
