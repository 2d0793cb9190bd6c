"""What the methods of A2A look like on the wire: in JSON-RPC, in HTTP+JSON and in gRPC."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

# Any ASCII but a slash: a smaller program for RE2 than `[^/]`, of which Envoy bounds the size.
_ID = "[!-.0-~]+"
_TASK = f"/tasks/{_ID}"
_ACTION = f".*/tasks/{_ID}:(cancel|subscribe)/?"
_CONFIGURATIONS = f"{_TASK}/pushNotificationConfigs"


@dataclass(frozen=True, slots=True)
class HttpForm:
    """Requests of the binding HTTP+JSON. Where an agent puts it is its own matter, so ends of paths count."""

    methods: tuple[str, ...]
    pattern: str
    """A regular expression (RE2) that must match the whole path."""
    unless: str = ""
    """One that must not."""

    def matches(self, method: str, path: str, *, ignore_case: bool) -> bool:
        """Whether a request is of this form."""
        flags = re.IGNORECASE if ignore_case else re.NOFLAG
        return (
            (method.upper() if ignore_case else method) in self.methods
            and re.fullmatch(self.pattern, path, flags) is not None
            and not (self.unless and re.fullmatch(self.unless, path, flags))
        )


@dataclass(frozen=True, slots=True)
class A2aMethod:
    """One method of A2A 1.0, with the names that it had before."""

    rpc_names: tuple[str, ...]
    http: tuple[HttpForm, ...]


def _method(name: str, former: str, verbs: tuple[str, ...], path: str, unless: str = "") -> A2aMethod:
    grpc = HttpForm(("POST",), rf"/(lf\.)?a2a\.v1\.A2AService/{name}")
    names = (name, former) if former else (name,)
    return A2aMethod(names, (HttpForm(verbs, f".*{path}/?", unless), grpc))


_GET, _POST, _DELETE = ("GET", "HEAD"), ("POST",), ("DELETE",)

A2A_METHODS: Final[Mapping[str, A2aMethod]] = {
    "SendMessage": _method("SendMessage", "message/send", _POST, "/message:send"),
    "SendStreamingMessage": _method("SendStreamingMessage", "message/stream", _POST, "/message:stream"),
    "GetTask": _method("GetTask", "tasks/get", _GET, _TASK, _ACTION),
    "ListTasks": _method("ListTasks", "tasks/list", _GET, "/tasks"),
    "CancelTask": _method("CancelTask", "tasks/cancel", _POST, f"{_TASK}:cancel"),
    "SubscribeToTask": _method("SubscribeToTask", "tasks/resubscribe", (*_GET, *_POST), f"{_TASK}:subscribe"),
    "CreateTaskPushNotificationConfig": _method(
        "CreateTaskPushNotificationConfig", "tasks/pushNotificationConfig/set", _POST, _CONFIGURATIONS
    ),
    "GetTaskPushNotificationConfig": _method(
        "GetTaskPushNotificationConfig",
        "tasks/pushNotificationConfig/get",
        _GET,
        f"{_CONFIGURATIONS}/{_ID}",
    ),
    "ListTaskPushNotificationConfigs": _method(
        "ListTaskPushNotificationConfigs", "tasks/pushNotificationConfig/list", _GET, _CONFIGURATIONS
    ),
    "DeleteTaskPushNotificationConfig": _method(
        "DeleteTaskPushNotificationConfig",
        "tasks/pushNotificationConfig/delete",
        _DELETE,
        f"{_CONFIGURATIONS}/{_ID}",
    ),
    "GetExtendedAgentCard": _method(
        "GetExtendedAgentCard", "agent/getAuthenticatedExtendedCard", _GET, "/(extendedAgentCard|card)"
    ),
}
"""The methods by their names in A2A 1.0."""
