"""How a turn of an A2A task ends: what the worker leaves as its result, and what the task then is. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from weft.model.task import Task, TaskState
from weft.sdk.a2a.wire import Json, State, agent_message, status


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a handler's work ended."""

    state: State
    """Completed, failed, or input required."""
    parts: Sequence[Json] = field(default_factory=list)
    """The result, if it was not told in pieces."""
    text: str = ""
    """What it asks for, or why it failed."""

    def result(self) -> Json:
        """The same as a task's result."""
        return {"state": self.state.value, "parts": list(self.parts), "text": self.text}


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of the caller's, and the work on it."""

    number: int
    """Counted from 1."""
    task: str
    """The id of the task, in the agent's inbox, that is this work."""
    key: str
    """By which it was submitted: whoever submits it again makes no second one."""
    message: Json
    at: float
    """Seconds since 1970."""
    answer: Json | None = None
    """What the agent said at its end, once the next turn has begun."""

    @property
    def artifact_id(self) -> str:
        """Of what its handler returns."""
        return f"result-{self.number}"


@dataclass(frozen=True, slots=True)
class Ending:
    """What a task in the inbox that has ended makes of the A2A task."""

    status: Json
    artifact: Json | None = None
    """The update that goes before it."""


def outcome_of(task: Task) -> Outcome:
    """How the work on a turn ended, by the record of its task."""
    match task.state:
        case TaskState.SUCCEEDED:
            result: Any = task.result
            return Outcome(State(result["state"]), result["parts"], result["text"])
        case TaskState.CANCELLED:
            return Outcome(State.CANCELED)
        case _:
            detail = task.error.detail if task.error is not None else "it could not be done"
            return Outcome(State.FAILED, text=detail)


def ending_of(turn: Turn, task: Task, task_id: str, context_id: str) -> Ending:
    """The same as A2A tells it."""
    outcome = outcome_of(task)
    message = (
        agent_message(outcome.text, message_id=f"{turn.task}-answer", task_id=task_id, context_id=context_id)
        if outcome.text
        else None
    )
    artifact = (
        {"artifact": {"artifactId": turn.artifact_id, "parts": list(outcome.parts)}, "lastChunk": True}
        if outcome.parts
        else None
    )
    return Ending(status(outcome.state, task.finished_at or turn.at, message), artifact)
