"""The virtual MCP server `tools.mesh`: what it lists, to whom."""
