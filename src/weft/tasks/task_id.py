"""Ids of tasks: `<queue>.<token>`, which is also the key of the task's record."""

from __future__ import annotations

import base64
import hashlib
import os
import re

from weft.errors import InvalidRequest, NotFound
from weft.model.names import check_name

MAX_KEY_LENGTH = 256
"""Characters of an idempotency key."""

_ID = re.compile(r"([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)\.[0-9a-v]{26}")


def new_id(queue: str, now: float) -> str:
    """An id that nobody has, behind those made at times before `now` (seconds since 1970)."""
    milliseconds = int(now * 1000).to_bytes(6, "big")
    return f"{queue}.{_token(milliseconds + os.urandom(10))}"


def derived_id(queue: str, submitter: str, key: str) -> str:
    """The id of what that submitter submits with that idempotency key. Raises InvalidRequest for no key."""
    if not 1 <= len(key) <= MAX_KEY_LENGTH or not key.isprintable():
        raise InvalidRequest(f"an idempotency key is 1 to {MAX_KEY_LENGTH} printable characters")
    parts = (queue.encode(), submitter.encode(), key.encode())
    framed = b"".join(len(each).to_bytes(4, "big") + each for each in parts)
    return f"{queue}.{_token(hashlib.sha256(framed).digest()[:16])}"


def is_id(text: str) -> bool:
    """Whether `text` has the form of a task's id."""
    return _ID.fullmatch(text) is not None


def check_id(text: str) -> str:
    """Return `text` if it has the form of a task's id; else raise NotFound."""
    if not is_id(text):
        raise NotFound(f"there is no task {text[:100]!r}: ids are `<queue>.<26 letters and digits>`")
    return text


def check_queue(name: str) -> str:
    """Return `name` if a queue may be called so; else raise InvalidRequest."""
    return check_name(name, "queue")


def _token(sixteen_bytes: bytes) -> str:
    return base64.b32hexencode(sixteen_bytes).rstrip(b"=").decode().lower()
