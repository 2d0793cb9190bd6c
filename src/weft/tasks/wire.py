"""A task on its way: the message that carries it through its queue.

| part | what |
|---|---|
| id | the task's id; of a further message for the same task with `~` and a random token behind |
| header `weft-task` | the record as it was submitted, so that a worker can claim it without reading it |
| header `weft-revision` | the revision at which that record was written |
| header `content-type` | of the payload |
| other headers | the submitter's: trace, conversation, deadline, ... |
| body | the payload, sealed if the queue is encrypted |
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from weft.errors import InvalidRequest
from weft.messaging.message import Message
from weft.model.task import Task, TaskState
from weft.tasks.json_value import json_bytes
from weft.tasks.records import parse_task, record_fields

TASK_HEADER = "weft-task"
REVISION_HEADER = "weft-revision"
CONTENT_TYPE_HEADER = "content-type"

RESERVED_PREFIX = "weft-"
"""Headers whose names begin so are Weft's own; submissions that bring them are refused."""

JSON_TYPE = "application/json"
BYTES_TYPE = "application/octet-stream"

_AGAIN = "~"
_MAX_REVISION_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Submission:
    """What a message says."""

    task: Task
    """As it was submitted."""
    revision: int
    """At which its record stood then."""
    content_type: str
    headers: Mapping[str, str]
    """The submitter's."""
    body: bytes
    """The payload, as it was sent."""
    message_id: str


def payload_bytes(payload: Any) -> tuple[bytes, str]:
    """The bytes and the content type of what was submitted: bytes as they are, all else as JSON.

    Raises InvalidRequest for what has no JSON.
    """
    if isinstance(payload, bytes):
        return payload, BYTES_TYPE
    return json_bytes(payload, "the payload"), JSON_TYPE


def another_message_id(task_id: str) -> str:
    """An id for a further message that carries the task."""
    return f"{task_id}{_AGAIN}{secrets.token_hex(6)}"


def task_of(message_id: str) -> str:
    """The id of the task that a message of that id carries."""
    return message_id.partition(_AGAIN)[0]


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise InvalidRequest if the submitter's headers bring one that is Weft's own."""
    for name in headers:
        if name.startswith(RESERVED_PREFIX) or name == CONTENT_TYPE_HEADER:
            raise InvalidRequest(f"the header {name[:64]!r} of a task is Weft's own: leave it out")


def message_for(submission: Submission) -> Message:
    """The message that carries a task. Raises InvalidRequest if it is too large."""
    return Message(
        submission.message_id,
        submission.body,
        {
            **submission.headers,
            CONTENT_TYPE_HEADER: submission.content_type,
            REVISION_HEADER: str(submission.revision),
            TASK_HEADER: to_json(
                record_fields(submission.task), ensure_ascii=True, inf_nan_mode="null"
            ).decode(),
        },
    )


def submission_in(message: Message, queue: str) -> Submission:
    """What a message in that queue says. Raises InvalidRequest, saying why, if it carries no task of it."""
    try:
        task = parse_task(message.headers[TASK_HEADER])
        revision = _revision(message.headers[REVISION_HEADER])
    except (KeyError, ValueError):
        raise InvalidRequest(
            f"message {message.id} in queue {queue!r} carries no task: put tasks in by submitting them"
        ) from None
    if task.id != task_of(message.id) or task.queue != queue or task.state is not TaskState.QUEUED:
        raise InvalidRequest(f"message {message.id} in queue {queue!r} carries a task that is not its own")
    own = {TASK_HEADER, REVISION_HEADER, CONTENT_TYPE_HEADER}
    headers = {name: value for name, value in message.headers.items() if name not in own}
    content_type = message.headers.get(CONTENT_TYPE_HEADER, BYTES_TYPE)
    return Submission(task, revision, content_type, headers, message.body, message.id)


def _revision(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_REVISION_DIGITS):
        raise ValueError("no revision")
    return int(text)
