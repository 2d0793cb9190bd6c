"""What all orchestrations have in common: called, they return their outcome; by `stream`, they tell all."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import update_wrapper
from typing import Generic, ParamSpec, TypeVar

from weft.errors import InvalidRequest
from weft.orchestration.asking import Terms
from weft.orchestration.branch import News, Outcome, check_budget
from weft.orchestration.scope import opened
from weft.orchestration.spans import traced
from weft.sdk.mesh import Mesh

P = ParamSpec("P")
OutcomeT = TypeVar("OutcomeT", bound=Outcome)


class Orchestration(Generic[P, OutcomeT]):
    """An async generator function that ends with an outcome, as a function that returns it."""

    def __init__(self, function: Callable[P, AsyncGenerator[News | OutcomeT, None]]) -> None:
        self._function = function
        update_wrapper(self, function)

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> OutcomeT:
        """Its outcome. When this is cancelled, so is all that it has begun."""
        async with aclosing(self.stream(*args, **kwargs)) as news:
            async for each in news:
                if isinstance(each, Outcome):
                    return each
        raise AssertionError("an orchestration ends with an outcome or an error")

    def stream(self, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[News | OutcomeT, None]:
        """What comes of it, as it comes: Partials, BranchResults, and at last the outcome.

        To stop before the end, wrap it in `contextlib.aclosing`: what it has begun is cancelled then.
        """
        mesh = kwargs.get("mesh")
        news = self._function(*args, **kwargs)
        return traced(self._function.__name__, news, mesh.tracer) if isinstance(mesh, Mesh) else news


def terms_of(kind: str, branch_timeout: float, timeout: float | None, budget: str) -> Terms:
    """What holds for the branches of an orchestration that begins now. Raises InvalidRequest."""
    for seconds in (timeout, branch_timeout):
        if seconds is not None and not 0 < seconds < math.inf:
            raise InvalidRequest(f"a timeout is more than 0 seconds, not {seconds:g}")
    return Terms(opened(timeout, check_budget(budget)), kind, branch_timeout)
