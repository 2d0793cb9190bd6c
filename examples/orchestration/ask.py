"""A script that follows an orchestration as it goes on, has a task routed, and a question voted on.

weft run -- python examples/orchestration/ask.py "shall we rewrite it"
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing

from weft import Mesh, MeshError
from weft.orchestration import (
    Branch,
    BranchResult,
    Discovered,
    Option,
    Partial,
    coordinate,
    map_reduce,
    route,
    vote,
)


async def main(question: str) -> None:
    """Each way once."""
    async with Mesh() as mesh:
        run = coordinate.stream(question, ["optimist", "pessimist", Branch(queue="studies")], mesh=mesh)
        async with aclosing(run) as news:
            async for each in news:
                match each:
                    case Partial():
                        print(f"{each.branch.label} so far: {each.data}")
                    case BranchResult():
                        print(f"{each.branch.label}: {each.value or each.error}")

        words = await map_reduce(question.split(), len, reduce=sum, mesh=mesh)
        print(f"{words.value} letters")

        options = [
            Option(Branch(queue="studies"), when=lambda task: len(task.split()) > 10, name="study"),
            Option("optimist"),
        ]
        routed = await route(question, options, mesh=mesh)
        print(f"by {routed.option}: {routed.value}")

        everybody = Discovered(capability="opinion", each="type")
        verdict = await vote(question, everybody, mesh=mesh, kind="ballot", choices=["yes", "no"], tie=min)
        print(f"verdict: {verdict.value}, tied: {sorted(verdict.tied)}")


if __name__ == "__main__":
    try:
        asyncio.run(main(" ".join(sys.argv[1:]) or "shall we rewrite it"))
    except MeshError as error:
        sys.exit(f"{error.title()}: {error.detail}")
