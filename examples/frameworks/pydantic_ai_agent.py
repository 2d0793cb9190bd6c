"""PydanticAI: its model is the mesh's, its tools are those of all of the mesh's MCP servers."""

from door import count_words, serve
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset

agent = Agent(
    "openai-chat:gpt-4o-mini",
    instructions="Be brief.",
    toolsets=[MCPToolset("http://tools.mesh/mcp")],
    tools=[count_words],
)


async def answer(text: str) -> str:
    async with agent:
        return (await agent.run(text)).output


serve(answer)
