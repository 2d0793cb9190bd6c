"""An agent with two kinds of requests.

weft run --type summarizer --capability summarize -- python examples/hello_agent.py
"""

from __future__ import annotations

from weft import Agent, AgentError, Mesh

agent = Agent("summarizer", capabilities=["summarize"], version="1")


@agent.handles("summarize")
async def summarize(text: str, length: int = 5) -> str:
    """The first words of a text."""
    words = text.split()
    if not words:
        raise AgentError("there is nothing to summarize", status=422, code="empty-text")
    return " ".join(words[:length]) + (" ..." if len(words) > length else "")


@agent.handles("summarize-all")
async def summarize_all(texts: list[str], mesh: Mesh) -> list[str]:
    """Any number of texts, each by whichever agent can: the parameter `mesh` is filled in."""
    return [await mesh.request("summarize.cap", "summarize", text=text, result_type=str) for text in texts]


if __name__ == "__main__":
    agent.run()
