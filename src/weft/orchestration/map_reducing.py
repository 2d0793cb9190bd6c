"""The same for many items, a few at a time, and one result of all."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from weft.orchestration.asking import Job
from weft.orchestration.branch import (
    DEFAULT_KIND,
    DEFAULT_TIMEOUT,
    BranchResult,
    News,
    Outcome,
    Step,
    branch_to,
)
from weft.orchestration.coordination import key_of
from weft.orchestration.fan_out import Gathering, OnFailure, alone
from weft.orchestration.orchestration import Orchestration, terms_of
from weft.orchestration.synthesis import is_model
from weft.sdk.mesh import Mesh

DEFAULT_CONCURRENCY = 8
"""Items at work at once."""

REDUCTION_KIND = "reduce"
"""The kind of request by which an agent is asked to make one result of many."""


@Orchestration
async def map_reduce(
    items: Iterable[Any],
    mapper: Step,
    *,
    mesh: Mesh,
    reduce: Step | None = None,
    kind: str = DEFAULT_KIND,
    quorum: int | float | None = None,
    on_failure: OnFailure = "fail",
    branch_timeout: float = DEFAULT_TIMEOUT,
    timeout: float | None = None,
    budget: str = "",
    concurrency: int = DEFAULT_CONCURRENCY,
    idempotency_key: str | None = None,
) -> AsyncGenerator[News | Outcome, None]:
    """Give each of `items` to `mapper`, `concurrency` at a time, and all answers together to `reduce`.

    `mapper` gets an item as the branches of `coordinate` get their task. `reduce` gets the list of answers,
    in the order of the items: as its one argument if it is a function, as the argument `values` of a request
    of the kind `reduce` if it is an agent, as JSON if it is a model. Without it the value is that list.

    An item that fails ends it with its error; with `on_failure="continue"` it is left out. The rest is as
    with `coordinate`, a `quorum` too. No items are an empty list.
    """
    began = time.monotonic()
    terms = terms_of(kind, branch_timeout, timeout, budget)
    branch = branch_to(mapper)
    jobs = [Job(branch, index, item, key_of(idempotency_key, index)) for index, item in enumerate(items)]
    gathering = Gathering(
        mesh, jobs, terms, quorum=quorum if jobs else None, on_failure=on_failure, concurrency=concurrency
    )
    async with aclosing(gathering.news()) as news:
        async for each in news:
            yield each
    values = [each.value for each in gathering.results if each.ok]
    made: BranchResult | None = None
    if reduce is not None:
        async with aclosing(alone(mesh, _reduction(reduce, values, len(jobs)), terms)) as news:
            async for each in news:
                if isinstance(each, BranchResult):
                    made = each
                else:
                    yield each
    yield Outcome(
        value=values if made is None else made.value,
        results=gathering.results,
        unneeded=gathering.unneeded,
        synthesis=made,
        seconds=time.monotonic() - began,
    )


def _reduction(step: Step, values: list[Any], index: int) -> Job:
    branch = branch_to(step)
    if callable(branch.to) or is_model(branch):
        return Job(branch, index, values)
    return Job(replace(branch, kind=branch.kind or REDUCTION_KIND), index, {"values": values})
