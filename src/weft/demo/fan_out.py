"""Every file to every kind of agent, a few calls at a time: kinds side by side, and files in each."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

from weft.demo.crew import CALL_TIMEOUT, REVIEW
from weft.demo.findings import Review, printable
from weft.errors import AgentFailed, InvalidRequest, MeshError
from weft.orchestration import Branch, coordinate, map_reduce
from weft.sdk.calls import pauses
from weft.sdk.mesh import Mesh

CALLS_AT_ONCE = 3
"""Calls in flight to each kind of agent: more than it has instances, so that each always has work."""

ATTEMPTS = 5
"""How often the coordinator itself makes a call; within each, the mesh tries more than one instance."""

REVIEW_TIMEOUT = 86400.0
"""Seconds that the whole review may take."""

_FINAL = (AgentFailed, InvalidRequest)
"""Errors that would only come again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One agent's review of one file."""

    file: str
    kind: str
    review: Review
    seconds: float
    """From the call to the answer, repetitions included."""
    repeats: int
    """How often the coordinator made the call again."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that nobody answered."""

    file: str
    kind: str
    reason: str
    repeats: int


class FanOut:
    """Asks each kind of agent about each file."""

    def __init__(
        self,
        mesh: Mesh,
        files: Sequence[str],
        kinds: Sequence[str],
        on_answer: Callable[[Answer | Failure], None],
    ) -> None:
        """`kinds` are agent types; `on_answer` hears of every call that is over."""
        self._mesh = mesh
        self._files = files
        self._kinds = kinds
        self._on_answer = on_answer
        # Part of every Idempotency-Key, so that an earlier review's answers are not taken for this one's.
        self._run = uuid4().hex
        self.answers: list[Answer] = []
        self.failures: list[Failure] = []
        self.half_way = asyncio.Event()
        """Set once half of the calls are over."""

    @property
    def expected(self) -> int:
        """How many answers make the review complete."""
        return len(self._files) * len(self._kinds)

    @property
    def busiest_kind(self) -> str:
        """The kind of agent with the most files still to review."""
        answered = Counter(each.kind for each in self.answers)
        return min(self._kinds, key=lambda kind: answered[kind])

    def answered_by(self, instance: str) -> int:
        """How many answers `instance` has given."""
        return sum(each.review.instance == instance for each in self.answers)

    async def run(self) -> None:
        """Make all calls; those that nobody answers are in `failures` then."""
        reviewers = [Branch(partial(self._review, kind), name=kind) for kind in self._kinds]
        await coordinate(
            self._files, reviewers, mesh=self._mesh, on_failure="fail", branch_timeout=REVIEW_TIMEOUT
        )

    async def _review(self, kind: str, files: Sequence[str]) -> None:
        """Have the agents of one kind review all files, a few at a time."""
        ask = partial(self._ask_about, kind)
        await map_reduce(
            enumerate(files),
            Branch(ask, name=kind),
            mesh=self._mesh,
            concurrency=CALLS_AT_ONCE,
            branch_timeout=REVIEW_TIMEOUT,
        )

    async def _ask_about(self, kind: str, numbered: tuple[int, str]) -> None:
        index, file = numbered
        self._note(await self._ask(kind, file, key=f"{self._run}-{kind}-{index}"))

    async def _ask(self, kind: str, file: str, *, key: str) -> Answer | Failure:
        started = time.monotonic()
        delays = pauses(first=0.2, longest=2.0)
        for repeats in range(ATTEMPTS):
            try:
                review = await self._mesh.request(
                    kind, REVIEW, file=file, result_type=Review, timeout=CALL_TIMEOUT, idempotency_key=key
                )
                return Answer(file, kind, review, time.monotonic() - started, repeats)
            except MeshError as error:
                if isinstance(error, _FINAL) or repeats + 1 == ATTEMPTS:
                    return Failure(file, kind, printable(error.detail), repeats)
            await asyncio.sleep(next(delays))
        raise AssertionError("the last attempt returns")

    def _note(self, outcome: Answer | Failure) -> None:
        if isinstance(outcome, Answer):
            self.answers.append(outcome)
        else:
            self.failures.append(outcome)
        if 2 * (len(self.answers) + len(self.failures)) >= self.expected:
            self.half_way.set()
        self._on_answer(outcome)
