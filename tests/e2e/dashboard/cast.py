"""The agents of the dashboard's tests: `python cast.py`, which is whoever WEFT_TYPE says.

`planner` calls `summarizer`, a tool and a model, and keeps the conversation. `summarizer` fails at texts with
"break" in them. `clerk` works on the queue `orders`, failing at those that say so, and takes the topic
`news`. `vault` may not be called by `planner`.
"""

from __future__ import annotations

import os
from typing import Any

from openai import AsyncOpenAI

from weft import Agent, InvalidRequest, Mesh, ReceivedEvent

EVIL = '<img src=x onerror="alert(1)">'
"""What must stay text wherever it is shown."""

TYPE = os.environ["WEFT_TYPE"]

agent = Agent(TYPE)


async def plan(text: str, mesh: Mesh, ask: bool = False, tool: bool = False) -> str:
    """Have a text summarised; ask a model and a tool if wanted, and keep the conversation."""
    conversation = mesh.context()
    await conversation.append("user", text)
    summary = await mesh.request("summarizer", "summarize", text=text)
    if tool:
        await mesh.call_tool("now")
    if ask:
        async with AsyncOpenAI() as models:
            message: Any = {"role": "user", "content": text}
            await models.chat.completions.create(model="gpt-4o-mini", messages=[message], max_tokens=5)
    await conversation.append("assistant", str(summary))
    return str(summary)


async def peek(mesh: Mesh) -> None:
    """Call whom one may not call."""
    await mesh.request("vault", "open")


async def summarize(text: str) -> str:
    """The first words."""
    if "break" in text:
        raise InvalidRequest(f"this breaks it: {EVIL}")
    return f"{EVIL} {text[:40]}"


async def unlock() -> str:
    """Never reached."""
    return "opened"


async def order(number: int, dead: bool = False, extra: dict[str, str] | None = None) -> dict[str, Any]:
    """Do a task, or fail at it."""
    if dead:
        raise InvalidRequest(f"order {number} cannot be done: {EVIL}")
    return {"number": number, "note": EVIL, **(extra or {})}


async def news(event: ReceivedEvent) -> None:
    """Take an event."""


match TYPE:
    case "planner":
        agent.handles("plan")(plan)
        agent.handles("peek")(peek)
    case "summarizer":
        agent.handles("summarize")(summarize)
    case "vault":
        agent.handles("open")(unlock)
    case "clerk":
        agent.task("orders")(order)
        agent.on("news")(news)

if __name__ == "__main__":
    agent.run()
