"""A2A 1.0 for agents made with the SDK: its server, and tasks that survive the instance that works on them.

`a2a-sdk` knows the wire: JSON-RPC, HTTP+JSON, version 0.3. It is imported with the first request (`door`): an
agent that nobody calls by A2A does without. What a task *is* does not come from it: see `tasks`.
"""
