"""MCP for agents made with the SDK: each handler is a tool.

The library of MCP is imported with the first request (`door`): an agent that nobody calls so does without.
"""
