"""The MCP server that tools' figures are taken with, as its author wrote it: with the MCP SDK alone."""

from __future__ import annotations

import os

from mcp.server.mcpserver import MCPServer

TOOLS = 1000
"""How many it has."""


def echo(text: str) -> str:
    """Answer what was asked."""
    return text


def main() -> None:
    """Serve."""
    server = MCPServer("bench")
    for number in range(TOOLS):
        server.add_tool(
            echo, name=f"echo_{number}", description="Answers what was asked, as it was said. " * 4
        )
    server.run("streamable-http", port=int(os.environ["PORT"]))


if __name__ == "__main__":
    main()
