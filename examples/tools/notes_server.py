"""An MCP server for one user on a terminal; `protocol: mcp-stdio` makes it one for a mesh."""

from mcp.server.mcpserver import MCPServer

server = MCPServer("notes")
notes = {"todo": "Nothing."}


@server.tool()
def read(name: str) -> str:
    """Read a note."""
    return notes.get(name, "")


@server.tool()
def write(name: str, text: str) -> str:
    """Write a note."""
    notes[name] = text
    return "written"


@server.tool()
def erase_all() -> str:
    """Forget all notes."""
    notes.clear()
    return "forgotten"


if __name__ == "__main__":
    server.run("stdio")
