"""An MCP server as its author wrote it, with the MCP SDK and nothing of Weft."""

import os

from mcp.server.mcpserver import MCPServer

server = MCPServer("weather")


@server.tool()
def forecast(city: str) -> str:
    """Tomorrow's weather in a city."""
    print(f"a forecast for {city}", flush=True)
    return f"{city}: sunny"


server.run("streamable-http", port=int(os.environ["PORT"]))
