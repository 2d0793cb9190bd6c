"""A steady load of calls in the background of a test, of which every outcome is kept."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from weft import Interrupted, Mesh, MeshError

WORK = 0.02
"""Seconds that a call keeps its agent busy: some are under way whenever a fault strikes."""

CALLERS = 3
"""Calls in flight, of each kind."""

PATIENCE = 40.0
"""Seconds within which what a test waits for has happened, or it fails."""


class Journal:
    """What the agents executed (see worker.py)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def executions(self) -> dict[str, list[str]]:
        """The instances that executed a call, by call."""
        result: defaultdict[str, list[str]] = defaultdict(list)
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else ():
            call, instance, _ = line.split()
            result[call].append(instance)
        return dict(result)


@dataclass
class Outcomes:
    """How the calls of one kind ended."""

    answers: dict[str, str] = field(default_factory=dict)
    """The instance that answered, by call."""
    failures: dict[str, MeshError] = field(default_factory=dict)
    failed_at: dict[str, float] = field(default_factory=dict)
    """Seconds since 1970, by call: to be compared with logs."""

    def by_class(self) -> Counter[type[MeshError]]:
        """How often which error occurred."""
        return Counter(type(each) for each in self.failures.values())


class Load:
    """Calls that carry an Idempotency-Key, and calls that don't, a few of each at any time."""

    def __init__(self, client: Mesh, to: str, timeout: float) -> None:
        self.keyed = Outcomes()
        self.plain = Outcomes()
        self._client = client
        self._to = to
        self._timeout = timeout
        self._changed = asyncio.Event()
        self._stopping = False
        self._numbers = itertools.count()
        self._began = time.time()
        self._run = uuid.uuid4().hex[:8]

    async def goes_on(self, calls: int = 40) -> None:
        """Wait until `calls` more of each kind have been answered."""
        keyed, plain = len(self.keyed.answers) + calls, len(self.plain.answers) + calls
        await self.until(lambda: len(self.keyed.answers) >= keyed and len(self.plain.answers) >= plain)

    async def reaches(self, *instances: str) -> None:
        """Wait until each of `instances` has answered anew."""
        start = len(self.keyed.answers)
        await self.until(lambda: {*instances} <= {*list(self.keyed.answers.values())[start:]})

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds, which is asked whenever a call has ended."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"it never happened; failures so far:\n{self.reasons()}") from None

    def reasons(self) -> str:
        """Every failure in words, and when: after the first call, at `_began`."""
        return "\n".join(
            f"{outcomes.failed_at[call] - self._began:.3f} s: {kind} {type(error).__name__}: {error}"
            for kind, outcomes in (("keyed", self.keyed), ("plain", self.plain))
            for call, error in outcomes.failures.items()
        )

    async def call_on(self, outcomes: Outcomes, *, keyed: bool) -> None:
        """Call one time after the other, until `stop`."""
        while not self._stopping:
            call = f"{self._run}-{next(self._numbers)}"
            try:
                outcomes.answers[call] = await self._client.request(
                    self._to,
                    "work",
                    call=call,
                    seconds=WORK,
                    timeout=self._timeout,
                    idempotency_key=call if keyed else None,
                    result_type=str,
                )
            except MeshError as error:
                outcomes.failures[call] = error
                outcomes.failed_at[call] = time.time()
            self._changed.set()

    def stop(self) -> None:
        """Let the calls in flight be the last."""
        self._stopping = True


@asynccontextmanager
async def load(client: Mesh, to: str = "worker", *, timeout: float = 30.0) -> AsyncIterator[Load]:
    """A load on `to`; it ends, with its last calls answered, when the block does."""
    running = Load(client, to, timeout)
    async with asyncio.TaskGroup() as tasks:
        for number in range(CALLERS):
            tasks.create_task(running.call_on(running.keyed, keyed=True), name=f"keyed calls {number}")
            tasks.create_task(running.call_on(running.plain, keyed=False), name=f"plain calls {number}")
        try:
            await running.goes_on()
            yield running
        finally:
            running.stop()


def check(calls: Load, journal: Journal, *, may_break: bool = True) -> None:
    """The rule: no keyed call fails; others only by Interrupted; none of them was executed twice."""
    assert calls.keyed.failures == {}, calls.reasons()
    explained: set[type[MeshError]] = {Interrupted} if may_break else set()
    assert set(calls.plain.by_class()) <= explained, calls.reasons()
    executions = journal.executions()
    for call, instance in calls.plain.answers.items():
        assert executions[call] == [instance]
    for call in calls.plain.failures:
        assert len(executions.get(call, [])) <= 1
    for call, instance in calls.keyed.answers.items():
        assert instance in executions[call]
