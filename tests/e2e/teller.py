"""An agent made with the SDK: its handlers are tools of the mesh, and it calls those of others."""

from __future__ import annotations

from typing import Any

from weft import Agent, Mesh, current

agent = Agent("teller")


@agent.handles("tell")
async def tell(what: str, mesh: Mesh) -> dict[str, Any]:
    """Tell something, by way of a tool of another server."""
    told = await mesh.call_tool("modern_echo", text=what)
    seen = await mesh.call_tool("modern_headers")
    return {"told": told.text, "caller": current().caller, "passed_on": seen.structured["traceparent"]}


@agent.handles("trace")
async def trace() -> str | None:
    """The trace of the call."""
    return current().traceparent


if __name__ == "__main__":
    agent.run()
