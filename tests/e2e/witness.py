"""An agent that tells what it is shown: `python witness.py TYPE`."""

from __future__ import annotations

import sys

import weft
from weft import Agent, Mesh

agent = Agent(sys.argv[1], concurrency=64)


@agent.handles("headers")
async def headers() -> dict[str, str]:
    """The headers of this very request."""
    return dict(weft.current().headers)


@agent.handles("relay")
async def relay(to: str, mesh: Mesh) -> str:
    """Call another agent in this one's name: whom that one takes it for."""
    seen: dict[str, str] = await mesh.request(to, "headers")
    return seen["x-weft-caller"]


if __name__ == "__main__":
    agent.run()
