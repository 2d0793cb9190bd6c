"""A conversation with an agent by A2A, as its handlers see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from weft.sdk.failure import AgentError


@dataclass(frozen=True, slots=True)
class Said:
    """One message of a conversation."""

    role: str
    """`user` or `agent`."""
    text: str = ""
    """Its texts, one below the other."""
    data: tuple[Any, ...] = ()
    """Its data parts, as JSON types."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What has been said in the task that is being worked on, oldest first.

    A handler's parameter annotated `Conversation` gets it. In a call that came otherwise than by A2A it is
    empty.
    """

    messages: tuple[Said, ...] = ()
    id: str = ""
    """A2A's `contextId`: shared by tasks that belong together. Empty where there is none."""
    task: str = ""
    """A2A's id of the task. Empty where there is none."""


NOTHING_SAID = Conversation()
"""What a handler gets that was not called by A2A."""


class InputRequired(AgentError):
    """Raise this in a handler to ask the caller something.

    By A2A the task is then `input-required`, with the question as its message; what the caller answers, with
    the task's id, has the handler called again: with what it was given before, with the answer, and with the
    whole `Conversation` if it asks for that. To callers by other ways it is an AgentError with the code
    `input-required`.
    """

    def __init__(self, question: str) -> None:
        super().__init__(question, status=422, code="input-required")
