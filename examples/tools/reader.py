"""A client of MCP as its author wrote it: under a sidecar, `tools.mesh` is all the servers of the mesh."""

import asyncio

from mcp import Client


async def main() -> None:
    """List the tools, and use two of them."""
    async with Client("http://tools.mesh/mcp") as client:
        for tool in (await client.list_tools()).tools:
            print(f"{tool.name}: {tool.description}", flush=True)
        print(await client.call_tool("now"), flush=True)
        print(await client.call_tool("read_note", {"name": "todo"}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
