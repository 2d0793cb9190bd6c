"""FastMCP's proxy before an MCP server. Runs in the peers' environment: `tool_proxy.py PORT URL`."""

import sys

from fastmcp.server import create_proxy

create_proxy(sys.argv[2], name="peer").run(
    transport="http", host="127.0.0.1", port=int(sys.argv[1]), show_banner=False
)
