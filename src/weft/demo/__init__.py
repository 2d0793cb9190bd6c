"""The demo: a crew of agents that reviews source code, and loses a member half-way."""
