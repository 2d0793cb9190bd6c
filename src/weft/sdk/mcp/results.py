"""What comes of calling a handler, as results of tools."""

from __future__ import annotations

from typing import Any, Final

from mcp_types import CallToolResult, TextContent
from pydantic_core import to_json

MAX_ITEMS_BYTES: Final = 16 * 1024 * 1024
"""Of all items of a stream: a tool's result has them all at once."""


def result_of(value: Any) -> CallToolResult:
    """A handler's result, given as JSON types."""
    structured = value if isinstance(value, dict) else {"result": value}
    return CallToolResult(content=[_text(value)], structured_content=structured)


def result_of_items(items: list[Any]) -> CallToolResult:
    """The items of a handler that streams, as JSON types: pieces of a text, or one thing after another."""
    text = "".join(items) if all(isinstance(each, str) for each in items) else "\n".join(map(_written, items))
    return CallToolResult(content=[_plain(text)], structured_content={"items": items})


def failure(detail: str) -> CallToolResult:
    """That a call has failed, in words that a model can go by."""
    return CallToolResult(content=[_plain(detail)], is_error=True)


def _text(value: Any) -> TextContent:
    return _plain(_written(value))


def _written(value: Any) -> str:
    return value if isinstance(value, str) else to_json(value).decode()


def _plain(text: str) -> TextContent:
    return TextContent(type="text", text=text)
