"""Whether a provider is to be sent something: what it asks itself, and how it fared."""

from __future__ import annotations

from typing import Final

from weft.controlplane.llm.pool_state import ProviderRecord

CONSECUTIVE: Final = 5
"""Failures in a row that break a circuit."""

RATIO: Final = 0.5
"""Part of the recent calls whose failure breaks a circuit."""

ENOUGH: Final = 20
"""Recent calls without which no ratio is judged."""

_RECENT: Final = 100
"""Calls after which older ones count half."""

_FIRST_OPEN: Final = 5.0
_LONGEST_OPEN: Final = 60.0
"""Seconds that nothing is sent to a provider whose circuit broke; doubles from probe to probe."""

_WHOLE: Final = 64
"""Calls at once that a returning provider may have when it counts as whole."""

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
"""Seconds that a provider is spared that answered 429 without saying for how long; doubles."""

_LONGEST_COOLING: Final = 3600.0
"""Seconds that a provider is spared at most, whatever it says."""


class Cooling:
    """What a provider that answers 429 gets: a pause, as long as it says, or longer from time to time."""

    __slots__ = ("pushbacks", "until")

    def __init__(self, record: ProviderRecord | None = None) -> None:
        """Go on from what is kept of it."""
        self.until = record.cooling_until if record else 0.0
        """Nothing is to be sent before."""
        self.pushbacks = record.pushbacks if record else 0

    def spare(self, now: float, seconds: float) -> None:
        """Send nothing for so long."""
        self.until = max(self.until, now + min(max(seconds, 0.0), _LONGEST_COOLING))

    def back_off(self, now: float) -> None:
        """Send nothing for a while, and for longer if the last while was too short."""
        if now < self.until:
            return  # One of those that were under way when the first was refused.
        self.spare(now, min(_FIRST_PAUSE * 2.0 ** min(self.pushbacks, 16), _LONGEST_PAUSE))
        self.pushbacks += 1

    def answered(self, started: float) -> None:
        """A call that began at `started` was not refused."""
        if started >= self.until:
            self.pushbacks = 0


class Circuit:
    """Breaks after failures; then one call probes, and what succeeds brings more.

    `allowed` is None while it is whole: as many calls as limits allow.
    """

    __slots__ = (
        "_failures",
        "_in_a_row",
        "_successes",
        "allowed",
        "generation",
        "openings",
        "trials",
        "until",
    )

    def __init__(self, record: ProviderRecord | None = None) -> None:
        """Go on from what is kept of it."""
        self.until = record.open_until if record else 0.0
        """Nothing is to be sent before."""
        self.openings = record.openings if record else 0
        """How often in a row it broke; 0: it is whole."""
        self.allowed: int | None = 1 if self.openings else None
        """Calls that may be under way since it broke."""
        self.trials = 0
        """Calls that are under way since it broke."""
        self.generation = 0
        """Grows whenever it breaks: what was sent before says nothing about how the provider is now."""
        self._in_a_row = 0
        self._failures = 0.0
        self._successes = 0.0

    def permits(self, now: float) -> bool:
        """Whether a call may be sent."""
        return self.allowed is None or (now >= self.until and self.trials < self.allowed)

    def sent(self) -> int:
        """A call is sent. Returns the generation, to be handed back when it is over."""
        if self.allowed is not None:
            self.trials += 1
        return self.generation

    def over(self, generation: int) -> None:
        """A call is over, however."""
        if self.allowed is not None and generation == self.generation:
            self.trials = max(0, self.trials - 1)

    def succeeded(self, generation: int, calls: int = 1) -> None:
        """Calls were answered."""
        self._in_a_row = 0
        self._count(0.0, float(min(calls, _RECENT)))
        if self.allowed is not None and generation == self.generation:
            self.allowed *= 2
            if self.allowed >= _WHOLE:
                self.allowed, self.openings, self.trials = None, 0, 0

    def failed(self, now: float) -> None:
        """A call failed for a reason that is the provider's."""
        self._in_a_row += 1
        self._count(1.0, 0.0)
        if now < self.until:
            return
        returning = self.allowed is not None
        if returning or self._in_a_row >= CONSECUTIVE or self._mostly_fails():
            self._break(now)

    def _count(self, failures: float, successes: float) -> None:
        self._failures += failures
        self._successes += successes
        if self._failures + self._successes > _RECENT:
            self._failures /= 2
            self._successes /= 2

    def _mostly_fails(self) -> bool:
        together = self._failures + self._successes
        return together >= ENOUGH and self._failures >= RATIO * together

    def _break(self, now: float) -> None:
        self.until = now + min(_FIRST_OPEN * 2.0 ** min(self.openings, 16), _LONGEST_OPEN)
        self.openings += 1
        self.generation += 1
        self.allowed, self.trials = 1, 0
        self._in_a_row, self._failures, self._successes = 0, 0.0, 0.0
