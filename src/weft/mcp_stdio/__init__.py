"""A program that speaks MCP on its standard input and output, served by streamable HTTP."""
