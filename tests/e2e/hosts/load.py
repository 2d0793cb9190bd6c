"""Callers that go on for as long as they are wanted, and what became of each of their calls."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from weft import Mesh, MeshError

PAUSE = 0.1
"""Seconds between two calls of one caller."""
CALL_LIMIT = 90.0
"""Seconds that a call may take: longer than it takes to notice that a host is gone."""


@dataclass
class Calls:
    """All calls that are over, by name: who answered each, or what went wrong."""

    answered: dict[str, str] = field(default_factory=dict)
    failed: dict[str, MeshError] = field(default_factory=dict)

    def by(self, instance: str) -> int:
        """How many calls an instance has answered."""
        return sum(each == instance for each in self.answered.values())


@asynccontextmanager
async def calling(mesh: Mesh, agent_type: str, *, callers: int, repeatable: bool) -> AsyncIterator[Calls]:
    """Within the context, that many callers; when it is left the calls under way are waited for.

    `repeatable` calls have a key, by which the mesh may send them again.
    """
    calls = Calls()
    over = asyncio.Event()
    numbers = itertools.count()

    async def caller() -> None:
        while not over.is_set():
            name = f"{'key' if repeatable else 'plain'}-{next(numbers)}"
            key = name if repeatable else None
            try:
                calls.answered[name] = await mesh.request(
                    agent_type, "work", name=name, result_type=str, timeout=CALL_LIMIT, idempotency_key=key
                )
            except MeshError as error:
                calls.failed[name] = error
            await asyncio.sleep(PAUSE)

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
        try:
            yield calls
        finally:
            over.set()


def written(journal: Path, what: str) -> set[str]:
    """The second words of all lines of a journal that begin with `what`."""
    lines = journal.read_text().splitlines() if journal.exists() else []
    return {words[1] for each in lines if (words := each.split())[0] == what}
