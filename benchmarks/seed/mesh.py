"""The mesh of the seed's case: gateways, two queues, and agents of three types."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import module_command
from benchmarks.seed.llm import CONCURRENCY

DIRECT = "direct"
"""Type of the one agent that is called."""

FIXED = "fixed"
"""Type of the agents of which there is always the same number, and name of their queue."""

SCALED = "scaled"
"""Type of the agents whose number follows the work, and name of their queue."""

GATEWAY = "gateway"
GATEWAYS = 3

_API = "weft.dev/v1alpha1"


@dataclass(frozen=True, slots=True)
class Cast:
    """What is declared."""

    clock: Path
    """The file that says when the simulated time began."""
    gateway_port: int
    deadline: float
    """Real seconds that a task may take until it is finished."""

    def manifest(self, replicas: Mapping[str, int]) -> str:
        """Everything, with so many agents of each type."""
        documents = [
            *(_document("Queue", queue, self._queue()) for queue in (FIXED, SCALED)),
            _document("Gateway", GATEWAY, {"port": self.gateway_port, "replicas": GATEWAYS}),
            *(self._agent(name, count) for name, count in replicas.items()),
        ]
        return _text(documents)

    def agents(self, name: str, count: int) -> str:
        """So many agents of one type."""
        return _text([self._agent(name, count)])

    def _queue(self) -> dict[str, Any]:
        return {"concurrency": CONCURRENCY, "deadline": f"{self.deadline:g}s"}

    def _agent(self, name: str, count: int) -> dict[str, Any]:
        queue = () if name == DIRECT else (name,)
        run = {
            "command": module_command("benchmarks.seed.agent", name, *queue),
            "replicas": count,
            "environment": {"SEED_CLOCK": str(self.clock), "PYTHONDONTWRITEBYTECODE": ""},
        }
        return _document("Agent", name, {"run": run})


def _document(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": _API, "kind": kind, "metadata": {"name": name}, "spec": spec}


def _text(documents: list[dict[str, Any]]) -> str:
    return "\n---\n".join(map(json.dumps, documents))
