"""One after another, each with what the one before it made."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from weft.errors import InvalidRequest
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
from weft.orchestration.fan_out import alone
from weft.orchestration.orchestration import Orchestration, terms_of
from weft.sdk.mesh import Mesh


@Orchestration
async def pipeline(
    task: Any,
    stages: Sequence[Step],
    *,
    mesh: Mesh,
    kind: str = DEFAULT_KIND,
    branch_timeout: float = DEFAULT_TIMEOUT,
    timeout: float | None = None,
    budget: str = "",
    idempotency_key: str | None = None,
) -> AsyncGenerator[News | Outcome, None]:
    """Give `task` to the first of `stages`, its answer to the second, and so on; the last one's is the value.

    What a stage gets is what `coordinate` gives its branches; the rest of the arguments is as there. A stage
    that fails, and has no fallback or a failing one, ends it with its error.
    """
    began = time.monotonic()
    if isinstance(stages, str) or not stages:
        raise InvalidRequest("a pipeline needs a list of stages")
    terms = terms_of(kind, branch_timeout, timeout, budget)
    value, results = task, []
    for index, stage in enumerate(stages):
        job = Job(branch_to(stage), index, value, key_of(idempotency_key, index))
        async with aclosing(alone(mesh, job, terms)) as news:
            async for each in news:
                if isinstance(each, BranchResult):
                    value = each.value
                    results.append(each)
                yield each
    yield Outcome(value=value, results=tuple(results), seconds=time.monotonic() - began)
