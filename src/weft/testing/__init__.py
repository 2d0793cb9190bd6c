"""What users test their agents with."""

from __future__ import annotations

from weft.model.queue import QueueSpec
from weft.model.topic import TopicSpec
from weft.testing.mesh import InMemoryMesh
from weft.testing.simulated_llm import SimulatedLLM

__all__ = ["InMemoryMesh", "QueueSpec", "SimulatedLLM", "TopicSpec"]
