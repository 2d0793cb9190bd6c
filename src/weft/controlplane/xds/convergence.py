"""How long it takes until every connected sidecar has taken over a change. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from weft.controlplane.xds.status import Observer
from weft.model.node import Node

MAX_ROUNDS: Final = 16
"""Changes that are waited for at a time; further ones count with the last of them."""


@dataclass(slots=True)
class _Round:
    """A change, and who has not taken it over yet."""

    generation: int
    changed_at: float
    missing: set[str]


class Convergence:
    """An observer of sidecars that measures, and tells another observer everything.

    Who leaves is not waited for, nor who refuses: that is told of elsewhere.
    """

    def __init__(
        self, observer: Observer, converged: Callable[[float], None], clock: Callable[[], float]
    ) -> None:
        """`converged` hears of the seconds from each change until nobody was missing."""
        self._observer = observer
        self._converged = converged
        self._clock = clock
        self._rounds: deque[_Round] = deque()

    def changed(self, generation: int, changed_at: float, nodes: Iterable[Node]) -> None:
        """`nodes` are to know `generation`, whose first change came at `changed_at`."""
        missing = {each.key for each in nodes}
        if not missing:
            return
        if len(self._rounds) < MAX_ROUNDS:
            self._rounds.append(_Round(generation, changed_at, missing))
        else:
            last = self._rounds[-1]
            last.generation, last.missing = generation, missing

    def connected(self, node: Node, peer: str = "") -> None:
        """Pass it on: whoever comes is told everything at once."""
        self._observer.connected(node, peer)

    def synced(self, node: Node, generation: int) -> None:
        """`node` has all that `generation` holds for it."""
        self._forget(node.key, generation)
        self._observer.synced(node, generation)

    def rejected(self, node: Node, type_url: str, reason: str, names: tuple[str, ...]) -> None:
        """`node` will not have it."""
        self._forget(node.key, None)
        self._observer.rejected(node, type_url, reason, names)

    def disconnected(self, node: Node) -> None:
        """`node` is gone."""
        self._forget(node.key, None)
        self._observer.disconnected(node)

    def _forget(self, key: str, generation: int | None) -> None:
        """`key` is missing no more: of changes up to `generation`, if given."""
        for each in self._rounds:
            if generation is None or each.generation <= generation:
                each.missing.discard(key)
        while self._rounds and not self._rounds[0].missing:
            self._converged(self._clock() - self._rounds.popleft().changed_at)
