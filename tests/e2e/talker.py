"""An agent on the SDK that keeps what is said to it in the context of the conversation, and tells of it."""

from __future__ import annotations

import os
from typing import Any

from weft import Agent, Mesh, NotFound, current

agent = Agent(os.environ["WEFT_TYPE"])


@agent.handles("say")
async def say(text: str, mesh: Mesh) -> dict[str, Any]:
    """Remember it; which process does, of which conversation, and what it knows of it."""
    conversation = mesh.context()
    appended = await conversation.append("user", text)
    state = await conversation.update(lambda known: (known or 0) + 1)
    await conversation.put_artifact("last.txt", text.encode() * 100_000, "text/plain")
    return {
        "pid": os.getpid(),
        "instance": os.environ["WEFT_INSTANCE"],
        "context": conversation.id,
        "named": current().conversation,
        "number": appended.number,
        "heard": [each.content for each in await conversation.messages()],
        "said": state.value,
    }


@agent.handles("peek")
async def peek(context: str, mesh: Mesh) -> bool:
    """Whether it can get at that context by its id."""
    try:
        return bool(await mesh.context(context).messages())
    except NotFound:
        return False


if __name__ == "__main__":
    agent.run()
