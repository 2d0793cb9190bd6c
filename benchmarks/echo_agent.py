"""The agent that the SDK's figures are taken with."""

from __future__ import annotations

from weft import Agent

agent = Agent("echo", concurrency=64)


@agent.handles("echo")
async def echo(text: str) -> str:
    """Answer what was asked."""
    return text


if __name__ == "__main__":
    agent.run()
