"""What is kept of an A2A task beside the tasks, in the agent's inbox, that do its turns."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic_core import from_json, to_json

from weft.errors import InvalidRequest
from weft.sdk.a2a.outcome import Turn
from weft.sdk.a2a.wire import Json

MAX_MESSAGES_BYTES = 800 * 1024
"""All messages of one task, as JSON: they go along with each turn."""

MAX_PUSHES = 10
"""Addresses that may be told of one task."""

LIFETIME = 37 * 86400.0
"""Seconds that a record is kept after it was written last: a turn may wait long, and then has a result."""


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """An A2A task: whose it is, and what its turns are."""

    id: str
    """That of the first turn's task."""
    context_id: str
    owner: str
    skill: str
    turns: tuple[Turn, ...]
    pushes: tuple[Json, ...] = ()
    """TaskPushNotificationConfigs, as A2A writes them."""
    cancelled_at: float | None = None
    """When it was cancelled while nobody worked on it, in seconds since 1970."""

    @property
    def last(self) -> Turn:
        """The turn that counts."""
        return self.turns[-1]

    def messages(self, until: int | None = None) -> list[Json]:
        """All that was said, up to the message that began the turn of that number (None: the last)."""
        found: list[Json] = []
        for each in self.turns[: until or len(self.turns)]:
            if found and (answer := self.turns[each.number - 2].answer) is not None:
                found.append(answer)
            found.append(each.message)
        return found

    def followed_by(self, turn: Turn, answer: Json | None) -> TaskRecord:
        """With one turn more, the last having ended with that answer. Raises InvalidRequest if it is full."""
        ended = replace(self.last, answer=answer)
        return checked(replace(self, turns=(*self.turns[:-1], ended, turn)))


def checked(record: TaskRecord) -> TaskRecord:
    """`record`, unless more was said in it than is kept: then raises InvalidRequest."""
    size = len(to_json(record.messages()))
    if size > MAX_MESSAGES_BYTES:
        raise InvalidRequest(
            f"the messages of a task have {MAX_MESSAGES_BYTES} bytes at most, not {size}: put what is large "
            "elsewhere and give its address, or begin another task in the same context"
        )
    return record


class TaskRecordCodec:
    """Records as JSON."""

    def encode(self, value: TaskRecord) -> bytes:
        """Return the JSON of `value`."""
        return to_json(asdict(value))

    def decode(self, data: bytes) -> TaskRecord:
        """Return the record in `data`; raise ValueError if it holds none."""
        try:
            fields: dict[str, Any] = from_json(data)
            turns = tuple(Turn(**each) for each in fields.pop("turns"))
            return TaskRecord(**{**fields, "turns": turns, "pushes": tuple(fields["pushes"])})
        except (TypeError, KeyError) as error:
            raise ValueError(f"not the record of an A2A task: {error!r}") from error
