"""`python -m weft.demo.agents KIND ROOT`: one agent of the crew, which reviews files of the tree at ROOT."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from weft.demo.crew import ABOUT, REVIEW, ROLES
from weft.demo.findings import About, FileName, Review, bounded, printable
from weft.demo.tool import tool_version
from weft.demo.tree import OutsideTree, SourceTree, Unreadable
from weft.errors import MeshError
from weft.sdk.agent import Agent
from weft.sdk.context import current
from weft.sdk.failure import AgentError

INSTANCE_VARIABLE = "WEFT_INSTANCE"
"""Environment variable in which the sidecar tells an agent its name."""

ATTEMPT_HEADER = "x-envoy-attempt-count"
"""In which the mesh says how often it has sent a call."""

_MAX_ATTEMPT_DIGITS = 4


def make_agent(kind: str, tree: SourceTree, instance: str) -> Agent:
    """The agent of `kind` (a key of ROLES) for `tree`, which signs its answers with `instance`."""
    role = ROLES[kind]
    check = role.make_check(tree)
    agent = Agent(kind, capabilities=[REVIEW, kind], version=tool_version(role.tool))

    @agent.handles(REVIEW)
    async def review(file: FileName) -> Review:
        try:
            result = bounded(await check.findings(tree.locate(file)))
        except OutsideTree as error:
            raise AgentError(str(error), status=403, code="outside-tree") from error
        except Unreadable as error:
            result = Review(not_checked=printable(str(error)))
        return result.model_copy(update={"instance": instance, "attempt": _attempt()})

    @agent.handles(ABOUT)
    async def about() -> About:
        return About(instance=instance, pid=os.getpid())

    return agent


def _attempt() -> int | None:
    text = current().headers.get(ATTEMPT_HEADER, "")
    return int(text) if text.isdecimal() and len(text) <= _MAX_ATTEMPT_DIGITS else None


def main(arguments: list[str]) -> None:
    """Serve until told to stop. Ends with a message if the arguments make no sense."""
    if len(arguments) != 2 or arguments[0] not in ROLES:
        sys.exit(f"usage: python -m weft.demo.agents {{{','.join(ROLES)}}} ROOT")
    kind, root = arguments
    try:
        make_agent(kind, SourceTree(Path(root)), os.environ.get(INSTANCE_VARIABLE, f"{kind}-0")).run()
    except MeshError as error:
        sys.exit(f"{kind} agent: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
