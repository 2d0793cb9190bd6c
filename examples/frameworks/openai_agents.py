"""The OpenAI Agents SDK: its model is the mesh's, its tools are those of all of the mesh's MCP servers."""

from agents import Agent, Runner, function_tool, set_default_openai_api, set_tracing_disabled
from agents.mcp import MCPServerStreamableHttp
from door import count_words, serve

set_tracing_disabled(disabled=True)  # it would report to OpenAI
set_default_openai_api("chat_completions")


async def answer(text: str) -> str:
    async with MCPServerStreamableHttp(params={"url": "http://tools.mesh/mcp"}, name="mesh") as tools:
        agent = Agent(
            name="assistant",
            instructions="Be brief.",
            model="gpt-4o-mini",
            tools=[function_tool(count_words)],
            mcp_servers=[tools],
        )
        return str((await Runner.run(agent, text)).final_output)


serve(answer)
