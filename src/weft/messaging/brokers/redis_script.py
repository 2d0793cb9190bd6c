"""The scripts that Redis runs: each does one thing as a whole, or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_DIRECTORY = Path(__file__).with_name("redis_lua")

_GENERAL = ("prelude",)
_TOPICS = ("prelude", "topic_prelude")


@dataclass(frozen=True, slots=True)
class Script:
    """A script, known to Redis by its SHA-1 once it has run there."""

    name: str
    text: bytes
    sha: str


def _script(name: str, parts: Sequence[str] = _GENERAL, *, frees: bool = True) -> Script:
    # What lets go of messages, or hands them out, must work when Redis has no memory left.
    flags = b"#!lua flags=allow-oom\n" if frees else b"#!lua\n"
    text = flags + b"\n".join((_DIRECTORY / f"{each}.lua").read_bytes() for each in (*parts, name))
    return Script(name, text, hashlib.sha1(text, usedforsecurity=False).hexdigest())


LEAVE = _script("leave")
NACK = _script("nack")
EXTEND = _script("extend")
REMOVE = _script("remove")

QUEUE_DECLARE = _script("queue_declare", frees=False)
QUEUE_ENQUEUE = _script("queue_enqueue", frees=False)
QUEUE_PULL = _script("queue_pull")
QUEUE_ACK = _script("queue_ack")
QUEUE_DEAD_LETTER = _script("queue_dead_letter")
QUEUE_REDRIVE = _script("queue_redrive", frees=False)
QUEUE_PURGE = _script("queue_purge")
QUEUE_PURGE_DEAD = _script("queue_purge_dead")
QUEUE_STATS = _script("queue_stats")
QUEUE_PEEK_DELAYED = _script("queue_peek_delayed")

TOPIC_DECLARE = _script("topic_declare", _TOPICS, frees=False)
TOPIC_REMOVE = _script("topic_remove", _TOPICS)
TOPIC_PUBLISH = _script("topic_publish", _TOPICS, frees=False)
TOPIC_PULL = _script("topic_pull", _TOPICS)
TOPIC_ACK = _script("topic_ack", _TOPICS)
TOPIC_STATS = _script("topic_stats", _TOPICS)
GROUP_DECLARE = _script("topic_group_declare", _TOPICS, frees=False)
GROUP_REMOVE = _script("topic_group_remove", _TOPICS)
GROUP_CHECK = _script("topic_has_group", _TOPICS)
