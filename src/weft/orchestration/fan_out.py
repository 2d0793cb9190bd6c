"""Many branches at once: their news in the order in which they come, until enough is known."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

from weft.aio.cancellation import end
from weft.errors import InvalidRequest, LoopDetected, MeshError, TimedOut
from weft.orchestration.asking import Job, Terms, ask
from weft.orchestration.branch import Branch, BranchResult, News, Partial
from weft.orchestration.errors import NoQuorum
from weft.orchestration.quorum import Quorum
from weft.sdk.mesh import Mesh

OnFailure = Literal["continue", "fail"]
"""What the failure of a branch means: that the others go on, or that it is all over."""

_UNREAD = 64
"""News that wait for their reader before the branches are held up."""

_SHOWN = 5
"""How many failures an error names."""


@dataclass(frozen=True, slots=True)
class _Broken:
    """A bug in a function of the program's own."""

    error: BaseException


class _Idle:
    """A worker that finds nothing more to do."""


async def news_of(
    mesh: Mesh, jobs: Sequence[Job], terms: Terms, concurrency: int | None = None
) -> AsyncGenerator[News, None]:
    """Do all `jobs`, so many at once (None: all), and yield what comes of them as it comes.

    Closing it cancels what is left, and waits until it has ended. Raises TimedOut at the deadline of `terms`.
    """
    if concurrency is not None and concurrency < 1:
        raise InvalidRequest(f"{concurrency} at once get nothing done: 1 or more")
    queue: asyncio.Queue[News | _Broken | _Idle] = asyncio.Queue(_UNREAD)
    todo = iter(jobs)
    count = len(jobs) if concurrency is None else min(concurrency, len(jobs))
    workers = [
        asyncio.create_task(_work(mesh, todo, terms, queue), name=f"branches {number}")
        for number in range(count)
    ]
    try:
        while count:
            each = await _next(queue, terms)
            if isinstance(each, _Idle):
                count -= 1
            elif isinstance(each, _Broken):
                raise each.error
            else:
                yield each
    finally:
        await end(workers)


async def _next(queue: asyncio.Queue[Any], terms: Terms) -> Any:
    deadline = terms.scope.deadline
    if deadline is None:
        return await queue.get()
    try:
        async with asyncio.timeout(deadline - time.time()):
            each = await queue.get()
    except TimeoutError:
        each = None
    # Branches end at this moment, too: it does not depend on chance which of the two is heard of.
    if each is None or time.time() >= deadline:
        raise TimedOut("the orchestration was not done at its deadline")
    return each


async def _work(mesh: Mesh, todo: Iterator[Job], terms: Terms, queue: asyncio.Queue[Any]) -> None:
    try:
        for job in todo:

            async def emit(data: Any, job: Job = job) -> None:
                await queue.put(Partial(job.branch, job.index, data))

            await queue.put(await ask(mesh, job, terms, emit))
    except Exception as error:  # noqa: BLE001 -- raised where the news are read
        await queue.put(_Broken(error))
    else:
        await queue.put(_Idle())


class Gathering:
    """Branches of which enough have to succeed."""

    def __init__(
        self,
        mesh: Mesh,
        jobs: Sequence[Job],
        terms: Terms,
        *,
        quorum: int | float | None = None,
        on_failure: OnFailure = "continue",
        concurrency: int | None = None,
        ends_early: bool = True,
    ) -> None:
        """`ends_early` says whether a quorum that is reached ends it.

        Raises InvalidRequest for a quorum that cannot be, or an `on_failure` that is none.
        """
        if on_failure not in {"continue", "fail"}:
            raise InvalidRequest(f"on_failure is 'continue' or 'fail', not {on_failure!r}")
        self._mesh = mesh
        self._jobs = jobs
        self._terms = terms
        self._quorum = Quorum.of(quorum, len(jobs))
        self._quorum.early &= ends_early
        self._on_failure = on_failure
        self._concurrency = concurrency
        self._ended: dict[int, BranchResult] = {}
        self._enough = False

    @property
    def results(self) -> tuple[BranchResult, ...]:
        """How those ended that have, in the order of the jobs."""
        return tuple(self._ended[index] for index in sorted(self._ended))

    @property
    def unneeded(self) -> tuple[Branch, ...]:
        """Those that have not, once it is over."""
        return tuple(job.branch for job in self._jobs if job.index not in self._ended)

    @property
    def reached(self) -> bool:
        """Whether enough have succeeded."""
        return self._quorum.reached

    def stop(self) -> None:
        """Enough is known: after the news that are being read there are none."""
        self._enough = True

    async def news(self) -> AsyncGenerator[News, None]:
        """What comes of the branches, as it comes; ends when enough have succeeded, or all have ended.

        Raises NoQuorum once too many have failed (LoopDetected if it is that in all of them); with
        `on_failure="fail"` what the first one raised that fails; TimedOut at the deadline.
        """
        async with aclosing(news_of(self._mesh, self._jobs, self._terms, self._concurrency)) as running:
            async for each in running:
                if isinstance(each, BranchResult):
                    self._ended[each.index] = each
                    self._quorum.note(ok=each.ok)
                yield each
                if isinstance(each, BranchResult):
                    self._check(each)
                if self._enough or self._quorum.over:
                    break
        if not self._quorum.reached and not self._enough:
            raise self._too_few()

    def _check(self, result: BranchResult) -> None:
        if result.error is not None and self._on_failure == "fail":
            result.error.add_note(f"branch {result.branch.label!r} failed, and no branch was to fail")
            raise result.error

    def _too_few(self) -> MeshError:
        failed = [each for each in self.results if each.error is not None]
        loops = [each.error for each in failed if isinstance(each.error, LoopDetected)]
        if loops and len(loops) == len(failed):
            return loops[
                0
            ]  # agents that call each other in a circle are to be told of it as they are elsewhere
        named = "; ".join(f"{each.branch.label}: {each.error}" for each in failed[:_SHOWN])
        more = f"; and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else ""
        return NoQuorum(
            f"{self._quorum.needed} of {self._quorum.total} branches had to succeed, and {len(failed)} "
            f"failed ({named}{more})",
            self.results,
        )


async def alone(mesh: Mesh, job: Job, terms: Terms) -> AsyncGenerator[News, None]:
    """The news of one job, its result last. Raises its error, and TimedOut at the deadline."""
    async with aclosing(news_of(mesh, [job], terms)) as running:
        async for each in running:
            if isinstance(each, BranchResult) and each.error is not None:
                each.error.add_note(f"{each.branch.label!r} failed, on which the rest depends")
                raise each.error
            yield each
