"""What is asked and answered, as spans keep it: GenAI messages, without secrets, and of limited length."""

from __future__ import annotations

import json
from typing import Any, Final

from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

from weft.tracing.redaction import redacted, redacted_value

MAX_BYTES: Final = 16 * 1024
"""Of the messages of one direction, as JSON."""

_NOTE: Final = "… [cut: {} characters in all]"


def messages_of(role: str, content: Any) -> str:
    """`content` as the one message of a `role`, as JSON."""
    text = content if isinstance(content, str) else _text(content)
    return _fitting(role, redacted(text) if isinstance(content, str) else text)


def _text(content: Any) -> str:
    try:
        # Field by field first: the names of fields tell secrets that do not look like any.
        return redacted(to_json(redacted_value(to_jsonable_python(content, by_alias=True))).decode())
    except (PydanticSerializationError, ValueError):
        return f"[{type(content).__name__}, which has no JSON]"


def _fitting(role: str, text: str) -> str:
    """The message with as much of `text` as fits."""
    whole = _message(role, text)
    if len(whole) <= MAX_BYTES:
        return whole
    note = _NOTE.format(len(text))
    low, high = 0, min(len(text), MAX_BYTES)
    while low < high:  # escapes take room of their own
        middle = (low + high + 1) // 2
        if len(_message(role, text[:middle] + note)) <= MAX_BYTES:
            low = middle
        else:
            high = middle - 1
    return _message(role, text[:low] + note)


def _message(role: str, text: str) -> str:
    # ASCII: half a surrogate pair can be told, too, and characters are bytes.
    return json.dumps([{"role": role, "parts": [{"type": "text", "content": text}]}], separators=(",", ":"))
