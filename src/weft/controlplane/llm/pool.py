"""One pool's scheduler: a state machine without I/O and without a clock of its own.

Whoever drives it tells it what happens, with the time, and asks for `decisions` afterwards.
"""

from __future__ import annotations

from weft.controlplane.llm.call import Attempt, Budgets, Call, Decision, Ended
from weft.controlplane.llm.figures import PoolFigures
from weft.controlplane.llm.pool_state import PoolState
from weft.model.llm_lease import Grant
from weft.model.model_pool import ModelPool


class PoolScheduler:
    """Says when each call to one pool starts, and where."""

    def __init__(
        self, pool: ModelPool, budgets: Budgets, state: PoolState | None = None, *, now: float
    ) -> None:
        """Go on from `state`, or with nothing under way."""
        raise NotImplementedError

    def reconfigure(self, pool: ModelPool, now: float) -> None:
        """Go on with `pool`, under the same name; what waits and what is under way stays so."""
        raise NotImplementedError

    def submit(self, call: Call, now: float) -> None:
        """A call asks to be admitted. One that is under way is admitted again, to the same provider."""
        raise NotImplementedError

    def retry(self, call_id: str, call: Call | None, provider: str, now: float) -> None:
        """A call that failed elsewhere asks for room at `provider`, before all others; on a lease: `call`."""
        raise NotImplementedError

    def withdraw(self, call_id: str, now: float) -> None:
        """The caller left before it was told a decision."""
        raise NotImplementedError

    def ended(self, end: Ended, now: float) -> None:
        """A call is over."""
        raise NotImplementedError

    def attempt_failed(self, attempt: Attempt, now: float) -> None:
        """A provider failed; each failed attempt is told once, the last one of a call, too."""
        raise NotImplementedError

    def decisions(self, now: float) -> list[Decision]:
        """Admissions and refusals that are due, each once."""
        raise NotImplementedError

    def wakes_at(self) -> float | None:
        """When `decisions` may have something new though nothing happens."""
        raise NotImplementedError

    def contended(self) -> bool:
        """Whether calls wait, or did a moment ago."""
        raise NotImplementedError

    def demand(self, holder: str, requests: int, tokens: int, now: float) -> None:
        """A sidecar sent so much on its lease, or asked for it."""
        raise NotImplementedError

    def grants(self, now: float) -> dict[str, Grant]:
        """Leases for the next second, by holder; every one is new, and replaces what its holder had."""
        raise NotImplementedError

    def sidecar_gone(self, sidecar: str, now: float) -> None:
        """All its calls have ended."""
        raise NotImplementedError

    def state(self) -> PoolState:
        """All that a successor needs."""
        raise NotImplementedError

    def figures(self, now: float) -> PoolFigures:
        """What can be seen of it."""
        raise NotImplementedError
