"""The next step from the replicas there are to the replicas there should be. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica of an agent."""

    index: int
    """Counted from 1; part of its instance's name."""
    current: bool
    """Whether it runs what is declared now."""
    healthy: bool
    stopping: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """Start a replica of what is declared now."""

    index: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Drain and stop a replica."""

    index: int


def next_step(replicas: Sequence[Replica], wanted: int, *, surge: bool) -> Start | Stop | None:
    """What to do next; None: nothing, or nothing before something changes.

    An outdated replica goes once a current one can take its place. With `surge` one more than `wanted` may
    run meanwhile, so that there are never fewer healthy ones than before; without, one goes first.
    """
    running = [each for each in replicas if not each.stopping]
    current = [each for each in running if each.current]
    outdated = [each for each in running if not each.current]
    if not outdated and len(current) > wanted:
        return Stop(max(each.index for each in current))
    if dispensable := _dispensable(current, outdated, wanted, surge=surge):
        return Stop(dispensable.index)
    room = wanted + 1 if surge and outdated else wanted
    # Without surge a replica that is still stopping holds what the next one needs: its port.
    occupied = len(running if surge else replicas)
    return Start(_free_index(replicas)) if len(current) < wanted and occupied < room else None


def _dispensable(
    current: Sequence[Replica], outdated: Sequence[Replica], wanted: int, *, surge: bool
) -> Replica | None:
    """The outdated replica that can go now, if any: one that serves nobody goes first, and at once."""
    for each in outdated:
        if not each.healthy:
            return each
    in_service = sum(each.healthy for each in current) + len(outdated)
    if in_service > wanted:
        return min(outdated, key=lambda each: each.index)
    everything_well = all(each.healthy for each in current)
    if not surge and everything_well and in_service == wanted:
        return min(outdated, key=lambda each: each.index)
    return None


def _free_index(replicas: Sequence[Replica]) -> int:
    taken = {each.index for each in replicas}
    return next(index for index in range(1, len(taken) + 2) if index not in taken)
