"""The crew: which kinds of agents review the code, and the manifest that puts them into a mesh."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from weft.demo.checks import complexity, dead_code, lint, security
from weft.demo.checks.check import Check
from weft.demo.tool import tool_version
from weft.demo.tree import SourceTree

REVIEW = "review"
"""The capability by which the coordinator finds the crew, and the kind of request it makes."""

ABOUT = "about"
"""The kind of request by which an agent says what it is."""

INSTANCES = 2
"""Instances of each kind of agent."""

CALL_TIMEOUT = 120.0
"""Seconds one answer may take: the first one about dead code waits for a look at the whole tree."""

_API_VERSION = "weft.dev/v1alpha1"


class Role(NamedTuple):
    """One kind of agent."""

    tool: str
    """What it works with: the name of a Python package."""
    make_check: Callable[[SourceTree], Check]


ROLES: Mapping[str, Role] = MappingProxyType(
    {
        "lint": Role(lint.TOOL, lambda _: lint.Lint()),
        "security": Role(security.TOOL, lambda _: security.Security()),
        "complexity": Role(complexity.TOOL, lambda _: complexity.Complexity()),
        "dead-code": Role(dead_code.TOOL, dead_code.DeadCode),
    }
)
"""By agent type, which is also the capability that only this kind offers."""


def manifest(root: Path) -> str:
    """The resources of a mesh with the whole crew in it, which reviews the tree at `root`."""
    documents = [_policy(), *(_agent(kind, root) for kind in ROLES)]
    return "\n---\n".join(json.dumps(document, indent=2) for document in documents) + "\n"


def _agent(kind: str, root: Path) -> dict[str, Any]:
    # -P: a module of the directory it starts in must not be imported in place of a real one.
    command = [sys.executable, "-P", "-m", "weft.demo.agents", kind, str(root)]
    return _resource(
        "Agent",
        kind,
        {
            "capabilities": [REVIEW, kind],
            "version": tool_version(ROLES[kind].tool),
            "run": {"command": command, "replicas": INSTANCES},
        },
    )


def _policy() -> dict[str, Any]:
    return _resource(
        "TrafficPolicy",
        "crew",
        {"timeout": f"{CALL_TIMEOUT:g}s", "loadBalancing": {"policy": "leastConnections"}},
    )


def _resource(kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": _API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
