"""The way of a call tree through the mesh, as the header `x-weft-hops` says it: `planner, coder`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from weft.errors import LoopDetected

HOPS_HEADER: Final = "x-weft-hops"

MAX_HOPS: Final = 16
"""Agents that a call tree may pass, by default; a call that would pass one more is answered with 508."""


def parse_hops(text: str) -> tuple[str, ...]:
    """The agent types in the header, oldest first."""
    return tuple(each for part in text.split(",") if (each := part.strip()))


def with_hop(hops: Sequence[str], own: str, most: int = MAX_HOPS) -> str:
    """The header of what an agent of type `own` sends on. Raises LoopDetected beyond `most` others."""
    if len(hops) >= most:
        raise LoopDetected(loop_detail([*hops, own], most))
    return ", ".join([*hops, own])


def loop_detail(hops: Sequence[str], most: int) -> str:
    """What is said of a call tree that has passed too many agents."""
    path = " -> ".join(hops)
    cycle = cycle_of(hops)
    circle = f"it goes round and round: {' -> '.join([*cycle, cycle[0]])}; " if cycle else ""
    return f"the call tree has passed {most} agents, and may pass no more; {circle}its way was {path}"


def cycle_of(hops: Sequence[str]) -> Sequence[str]:
    """The agents that the end of the way goes round and round, empty if it does not.

    The shortest circle that it has gone through twice; else that by which it came back to its last agent.
    """
    for length in range(1, len(hops) // 2 + 1):
        if hops[-length:] == hops[-2 * length : -length]:
            return hops[-length:]
    for length in range(1, len(hops)):
        if hops[-1 - length] == hops[-1]:
            return hops[-length:]
    return ()
