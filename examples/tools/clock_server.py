"""An MCP server as its author wrote it: it knows nothing of Weft, and listens where PORT says."""

import os
from datetime import UTC, datetime

from mcp.server.mcpserver import MCPServer

server = MCPServer("clock")


@server.tool()
def now() -> str:
    """The time in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


if __name__ == "__main__":
    server.run("streamable-http", host="127.0.0.1", port=int(os.environ["PORT"]))
