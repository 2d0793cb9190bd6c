"""The queue through which an agent type gets the messages of A2A, as tasks."""

from __future__ import annotations

import hashlib

from weft.model.names import MAX_NAME_LENGTH
from weft.model.queue import QueueSpec

PREFIX = "a2a-"
"""Begins the names of these queues."""

A2A_TASKS_BUCKET = "a2a-tasks"
"""What is kept of A2A tasks beside the tasks that do their turns: keys `<type>.<token>`."""

INBOX = QueueSpec(
    description="What agents of one type are sent by A2A.",
    visibility_timeout=15.0,
    max_deliveries=3,
    result_ttl=7 * 86400.0,
)
"""How such a queue is declared. A task whose handler fails is done: deliveries count instances that die."""

_DIGEST_LENGTH = 8


def is_inbox(queue: str) -> bool:
    """Whether a queue is an inbox, whoever declared it: agents of its type believe what is in it."""
    return queue.startswith(PREFIX)


def inbox_queue(agent_type: str) -> str:
    """The name of the queue of a type: `a2a-<type>`, or for a long type its beginning and a digest."""
    name = f"{PREFIX}{agent_type}"
    if len(name) <= MAX_NAME_LENGTH:
        return name
    digest = hashlib.sha256(agent_type.encode()).hexdigest()[:_DIGEST_LENGTH]
    return f"{name[: MAX_NAME_LENGTH - _DIGEST_LENGTH - 1].rstrip('-')}-{digest}"
