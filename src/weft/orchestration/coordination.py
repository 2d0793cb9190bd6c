"""One task to several at once, and one answer made of theirs."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from weft.errors import NoHealthyAgent
from weft.orchestration.asking import Job
from weft.orchestration.branch import (
    DEFAULT_KIND,
    DEFAULT_TIMEOUT,
    Agents,
    Branch,
    BranchResult,
    News,
    Outcome,
    Step,
    branches_to,
)
from weft.orchestration.fan_out import Gathering, OnFailure, alone
from weft.orchestration.orchestration import Orchestration, terms_of
from weft.orchestration.synthesis import synthesis_of
from weft.sdk.mesh import Mesh


@Orchestration
async def coordinate(
    task: Any,
    agents: Agents,
    *,
    mesh: Mesh,
    kind: str = DEFAULT_KIND,
    synthesis: Step | None = None,
    quorum: int | float | None = None,
    on_failure: OnFailure = "continue",
    branch_timeout: float = DEFAULT_TIMEOUT,
    timeout: float | None = None,
    budget: str = "",
    concurrency: int | None = None,
    idempotency_key: str | None = None,
) -> AsyncGenerator[News | Outcome, None]:
    """Give `task` to all `agents` at once, and make one answer of theirs.

    `agents` are names (types, capabilities, instances), Branches, functions, or Discovered. A task that is a
    mapping, or a Pydantic model, is the arguments of a request of `kind`; all else is its argument `task`.

    `synthesis` makes the answer: a function of the BranchResults that succeeded, an agent (by a request of
    the kind `synthesize`, with `task` and `answers`) or a model. Without it the value is the list of answers.

    With a `quorum` (so many branches, or as a float so large a part of them) it goes on as soon as so many
    have succeeded, and cancels the others; without it all are waited for, and one is enough.
    `on_failure="fail"` ends it with the first error.

    A branch has `branch_timeout` seconds, unless it says otherwise; all of it together `timeout` seconds, and
    no more than the call being handled has left. `budget` is what all of it may spend on models: `5000
    tokens`. `concurrency` is how many branches are at work at once (None: all). With an `idempotency_key`,
    begun again it makes the same calls and the same tasks.

    Raises NoQuorum if too few succeed; TimedOut; InvalidRequest; NoHealthyAgent if nobody is discovered; and
    what the synthesis raises.
    """
    began = time.monotonic()
    terms = terms_of(kind, branch_timeout, timeout, budget)
    branches = await branches_to(agents, mesh)
    if not branches:
        raise NoHealthyAgent("there is nobody whom the task could be given to")
    gathering = Gathering(
        mesh,
        jobs_of(branches, task, idempotency_key),
        terms,
        quorum=quorum,
        on_failure=on_failure,
        concurrency=concurrency,
    )
    async with aclosing(gathering.news()) as news:
        async for each in news:
            yield each
    answers = [each for each in gathering.results if each.ok]
    made: BranchResult | None = None
    if synthesis is not None:
        job = synthesis_of(synthesis, task, answers, len(branches))
        async with aclosing(alone(mesh, job, terms)) as news:
            async for each in news:
                if isinstance(each, BranchResult):
                    made = each
                else:
                    yield each
    yield Outcome(
        value=[each.value for each in answers] if made is None else made.value,
        results=gathering.results,
        unneeded=gathering.unneeded,
        synthesis=made,
        seconds=time.monotonic() - began,
    )


def jobs_of(branches: Sequence[Branch], task: Any, idempotency_key: str | None) -> list[Job]:
    """The same task for every branch."""
    return [Job(branch, index, task, key_of(idempotency_key, index)) for index, branch in enumerate(branches)]


def key_of(idempotency_key: str | None, index: int) -> str | None:
    """A branch's key."""
    return None if idempotency_key is None else f"{idempotency_key}/{index}"
