"""An agent whose answer comes piece by piece.

weft run --type chatter --capability chat -- python examples/stream_agent.py
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from weft import Agent

agent = Agent("chatter", capabilities=["chat"])


@agent.streams("chat")
async def chat(prompt: str) -> AsyncIterator[str]:
    """The prompt, word by word. When the caller goes away, this stops."""
    for word in prompt.split():
        yield word
        await asyncio.sleep(0.05)


if __name__ == "__main__":
    agent.run()
