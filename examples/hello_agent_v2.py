"""The next version of hello_agent.py: it keeps the last word too.

weft run --type summarizer --capability summarize --version 2 -- python examples/hello_agent_v2.py
"""

from __future__ import annotations

from weft import Agent, AgentError

agent = Agent("summarizer", capabilities=["summarize"], version="2")


@agent.handles("summarize")
async def summarize(text: str, length: int = 5) -> str:
    """The first words of a text, and its last."""
    words = text.split()
    if not words:
        raise AgentError("there is nothing to summarize", status=422, code="empty-text")
    return " ".join(words[:length]) + (f" ... {words[-1]}" if len(words) > length else "")


if __name__ == "__main__":
    agent.run()
