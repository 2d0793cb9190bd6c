"""How a sidecar posts events to its agent."""

from __future__ import annotations

from enum import StrEnum


class EventFormat(StrEnum):
    """How events are posted."""

    BINARY = "binary"
    STRUCTURED = "structured"
    MESH = "mesh"
    """`{"topic": ..., "event": ...}`, for programs that know nothing of CloudEvents."""
