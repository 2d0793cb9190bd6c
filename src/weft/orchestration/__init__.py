"""Several agents at one task: fan-out, pipelines, map-reduce, routing and votes, in plain async Python.

async with Mesh() as mesh:
    outcome = await coordinate("Review this change: ...", ["lint", "security.cap"], mesh=mesh)
"""

from __future__ import annotations

from weft.orchestration.branch import Branch, BranchResult, Discovered, Outcome, Partial, Step
from weft.orchestration.coordination import coordinate
from weft.orchestration.errors import NoQuorum, Undecided
from weft.orchestration.map_reducing import map_reduce
from weft.orchestration.pipelines import pipeline
from weft.orchestration.routing import Option, Routed, route
from weft.orchestration.tally import Count
from weft.orchestration.voting import Verdict, vote

__all__ = [
    "Branch",
    "BranchResult",
    "Count",
    "Discovered",
    "NoQuorum",
    "Option",
    "Outcome",
    "Partial",
    "Routed",
    "Step",
    "Undecided",
    "Verdict",
    "coordinate",
    "map_reduce",
    "pipeline",
    "route",
    "vote",
]
