"""Microsoft's Agent Framework: its model is the mesh's, its tools are those of all the mesh's MCP servers."""

from agent_framework import Agent, MCPStreamableHTTPTool
from agent_framework.openai import OpenAIChatCompletionClient
from door import count_words, serve


async def answer(text: str) -> str:
    async with MCPStreamableHTTPTool(name="mesh", url="http://tools.mesh/mcp") as tools:
        client = OpenAIChatCompletionClient(model="gpt-4o-mini")
        return str(await Agent(client, "Be brief.", tools=[tools, count_words]).run(text))


serve(answer)
