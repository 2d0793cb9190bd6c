"""What can go wrong with an orchestration, beside what can with the calls it makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from weft.errors import MeshError

if TYPE_CHECKING:
    from weft.orchestration.branch import BranchResult


class NoQuorum(MeshError):
    """Fewer branches succeeded than had to. `results` is how they ended, as far as they have."""

    code = "no-quorum"
    status = 502

    def __init__(self, detail: str, results: Sequence[BranchResult] = ()) -> None:
        super().__init__(detail)
        self.results = tuple(results)


class Undecided(MeshError):
    """A vote came to nothing: a tie, or no choice with enough votes. `results` is who said what."""

    code = "undecided"
    status = 502

    def __init__(self, detail: str, results: Sequence[BranchResult] = ()) -> None:
        super().__init__(detail)
        self.results = tuple(results)
