"""How many branches have to succeed, and whether they have, or cannot any more."""

from __future__ import annotations

import math
from dataclasses import dataclass

from weft.errors import InvalidRequest

_ROUNDING = 1e-9
"""So that 0.1 of 30 are 3, though 0.1 * 30 is a little more."""


@dataclass(slots=True)
class Quorum:
    """Counts ends of `total` branches, of which `needed` have to succeed."""

    total: int
    needed: int
    early: bool
    """Whether it is over once they have."""
    succeeded: int = 0
    failed: int = 0

    @classmethod
    def of(cls, asked: int | float | None, total: int) -> Quorum:
        """What `asked` means of `total` branches: an int so many, a float so large a part of them.

        None means that all are waited for, and one is enough. Raises InvalidRequest.
        """
        if asked is None:
            return cls(total, min(1, total), early=False)
        if isinstance(asked, float):
            if not 0 < asked <= 1:
                raise InvalidRequest(
                    f"a quorum is a number of branches, or a part of them up to 1.0, not {asked}"
                )
            return cls(total, math.ceil(asked * total - _ROUNDING), early=True)
        if not 1 <= asked <= total:
            raise InvalidRequest(f"a quorum of {asked} cannot be had of {total} branches")
        return cls(total, asked, early=True)

    def note(self, *, ok: bool) -> None:
        """One more has ended."""
        if ok:
            self.succeeded += 1
        else:
            self.failed += 1

    @property
    def reached(self) -> bool:
        """Whether enough have succeeded."""
        return self.succeeded >= self.needed

    @property
    def out_of_reach(self) -> bool:
        """Whether not enough can succeed any more."""
        return self.total - self.failed < self.needed

    @property
    def over(self) -> bool:
        """Whether nobody else has to be waited for."""
        return (self.early and self.reached) or self.out_of_reach
