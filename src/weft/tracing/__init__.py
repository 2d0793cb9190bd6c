"""Spans of Weft's own processes and of agents, their way out as OTLP, and the logs that go with them."""
