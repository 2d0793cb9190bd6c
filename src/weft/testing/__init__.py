"""What users test their agents with."""

from __future__ import annotations

from weft.testing.mesh import InMemoryMesh

__all__ = ["InMemoryMesh"]
