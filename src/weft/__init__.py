"""Weft, an agent mesh: the names that programs in the mesh use.

They are loaded when first asked for: the mesh's own processes import `weft.errors` and need neither the
client nor the server that agents need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what __getattr__ does, in the form that type checkers read
    from weft.errors import (
        AgentFailed,
        Conflict,
        Denied,
        Interrupted,
        InvalidRequest,
        MeshError,
        NoHealthyAgent,
        NoSuchAgent,
        NotFound,
        Refused,
        TimedOut,
        Unauthenticated,
        Unavailable,
    )
    from weft.model.agent import Instance, Status
    from weft.sdk.agent import Agent
    from weft.sdk.context import Context, current
    from weft.sdk.directory import Change, ChangeKind
    from weft.sdk.failure import AgentError
    from weft.sdk.mesh import Mesh

__all__ = [
    "Agent",
    "AgentError",
    "AgentFailed",
    "Change",
    "ChangeKind",
    "Conflict",
    "Context",
    "Denied",
    "Instance",
    "Interrupted",
    "InvalidRequest",
    "Mesh",
    "MeshError",
    "NoHealthyAgent",
    "NoSuchAgent",
    "NotFound",
    "Refused",
    "Status",
    "TimedOut",
    "Unauthenticated",
    "Unavailable",
    "current",
]

_HOMES = {
    "Agent": "weft.sdk.agent",
    "AgentError": "weft.sdk.failure",
    "Change": "weft.sdk.directory",
    "ChangeKind": "weft.sdk.directory",
    "Context": "weft.sdk.context",
    "Instance": "weft.model.agent",
    "Mesh": "weft.sdk.mesh",
    "Status": "weft.model.agent",
    "current": "weft.sdk.context",
}
"""The modules of the names that are not errors."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'weft' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "weft.errors")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
