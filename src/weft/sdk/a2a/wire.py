"""What A2A's messages and tasks look like as JSON. Pure, and without a2a-sdk: workers need only this."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pydantic_core import to_jsonable_python

Json = dict[str, Any]

PATH = "/a2a"
"""Where an agent takes JSON-RPC, and below which it takes HTTP+JSON."""

CARD_PATHS = ("/.well-known/agent-card.json", "/.well-known/agent.json")
"""Where the card is; at the second it was before version 0.3.0."""

USER = "ROLE_USER"
AGENT = "ROLE_AGENT"


class State(StrEnum):
    """Where an A2A task stands."""

    SUBMITTED = "TASK_STATE_SUBMITTED"
    WORKING = "TASK_STATE_WORKING"
    INPUT_REQUIRED = "TASK_STATE_INPUT_REQUIRED"
    COMPLETED = "TASK_STATE_COMPLETED"
    FAILED = "TASK_STATE_FAILED"
    CANCELED = "TASK_STATE_CANCELED"

    @property
    def terminal(self) -> bool:
        """Whether a task that got there changes no more."""
        return self in _TERMINAL

    @property
    def at_rest(self) -> bool:
        """Whether nobody works on it, nor will, unless its caller goes on."""
        return self.terminal or self is State.INPUT_REQUIRED


_TERMINAL = frozenset({State.COMPLETED, State.FAILED, State.CANCELED})


def parts_of(value: Any) -> list[Json]:
    """A handler's result as parts: a text as text, anything else as data, nothing as none.

    Raises ValueError for what has no JSON.
    """
    if value is None:
        return []
    if isinstance(value, str):
        return [{"text": value}]
    return [{"data": to_jsonable_python(value, by_alias=True, inf_nan_mode="null")}]


def text_of(message: Mapping[str, Any]) -> str:
    """The texts of a message, one below the other."""
    return "\n".join(each["text"] for each in message.get("parts", ()) if "text" in each)


def data_of(message: Mapping[str, Any]) -> list[Any]:
    """The data parts of a message."""
    return [each["data"] for each in message.get("parts", ()) if "data" in each]


def agent_message(text: str, *, message_id: str, task_id: str, context_id: str) -> Json:
    """Something that an agent says."""
    return {
        "messageId": message_id,
        "contextId": context_id,
        "taskId": task_id,
        "role": AGENT,
        "parts": [{"text": text}],
    }


def status(state: State, at: float, message: Json | None = None) -> Json:
    """A task's status since `at` (seconds since 1970)."""
    found: Json = {"state": state.value, "timestamp": timestamp(at)}
    if message is not None:
        found["message"] = message
    return found


def timestamp(at: float) -> str:
    """A time as A2A writes it."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def state_of(task: Mapping[str, Any]) -> State:
    """Where a task stands."""
    return State(task["status"]["state"])


def with_artifact(artifacts: Iterable[Json], update: Mapping[str, Any]) -> list[Json]:
    """The artifacts of a task after an update: it appends to one that is there, or takes its place."""
    artifact: Json = update["artifact"]
    found = list(artifacts)
    for number, each in enumerate(found):
        if each["artifactId"] == artifact["artifactId"]:
            if update.get("append"):
                artifact = {**each, "parts": [*each["parts"], *artifact["parts"]]}
            found[number] = artifact
            return found
    return [*found, artifact]
