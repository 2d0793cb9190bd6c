"""Weft, an agent mesh: the names that programs in the mesh use.

They are loaded when first asked for: the mesh's own processes import `weft.errors` and need neither the
client nor the server that agents need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what __getattr__ does, in the form that type checkers read
    from weft.contexts.conversation import ConversationStore
    from weft.contexts.limits import ContextLimits
    from weft.errors import (
        AgentFailed,
        Conflict,
        Denied,
        Interrupted,
        InvalidRequest,
        LoopDetected,
        MeshError,
        NoHealthyAgent,
        NoSuchAgent,
        NotFound,
        QueueFull,
        RateLimited,
        Refused,
        TimedOut,
        TooMany,
        Unauthenticated,
        Unavailable,
    )
    from weft.events.subscriber import ReceivedEvent
    from weft.model.agent import Instance, Status
    from weft.model.cloud_event import CloudEvent
    from weft.model.task import Task, TaskState
    from weft.sdk.agent import Agent
    from weft.sdk.context import Context, current
    from weft.sdk.conversation import Conversation, InputRequired, Said
    from weft.sdk.directory import Change, ChangeKind
    from weft.sdk.failure import AgentError
    from weft.sdk.limits import limits
    from weft.sdk.mesh import Mesh
    from weft.sdk.task_handle import TaskHandle
    from weft.tasks.attempt import TaskRun

__all__ = [
    "Agent",
    "AgentError",
    "AgentFailed",
    "Change",
    "ChangeKind",
    "CloudEvent",
    "Conflict",
    "Context",
    "ContextLimits",
    "Conversation",
    "ConversationStore",
    "Denied",
    "InputRequired",
    "Instance",
    "Interrupted",
    "InvalidRequest",
    "LoopDetected",
    "Mesh",
    "MeshError",
    "NoHealthyAgent",
    "NoSuchAgent",
    "NotFound",
    "QueueFull",
    "RateLimited",
    "ReceivedEvent",
    "Refused",
    "Said",
    "Status",
    "Task",
    "TaskHandle",
    "TaskRun",
    "TaskState",
    "TimedOut",
    "TooMany",
    "Unauthenticated",
    "Unavailable",
    "current",
    "limits",
]

_HOMES = {
    "Agent": "weft.sdk.agent",
    "AgentError": "weft.sdk.failure",
    "Change": "weft.sdk.directory",
    "ChangeKind": "weft.sdk.directory",
    "CloudEvent": "weft.model.cloud_event",
    "Context": "weft.sdk.context",
    "ContextLimits": "weft.contexts.limits",
    "Conversation": "weft.sdk.conversation",
    "ConversationStore": "weft.contexts.conversation",
    "InputRequired": "weft.sdk.conversation",
    "Instance": "weft.model.agent",
    "Mesh": "weft.sdk.mesh",
    "ReceivedEvent": "weft.events.subscriber",
    "Said": "weft.sdk.conversation",
    "Status": "weft.model.agent",
    "Task": "weft.model.task",
    "TaskHandle": "weft.sdk.task_handle",
    "TaskRun": "weft.tasks.attempt",
    "TaskState": "weft.model.task",
    "current": "weft.sdk.context",
    "limits": "weft.sdk.limits",
}
"""The modules of the names that are not errors."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'weft' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "weft.errors")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
