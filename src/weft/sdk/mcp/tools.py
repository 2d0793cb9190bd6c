"""Handlers as tools: their descriptions, and what comes of calling them as results."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

from mcp_types import CallToolResult, TextContent, Tool
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

from weft.sdk.handler import Handler

logger = logging.getLogger("weft.agent")

MAX_ITEMS_BYTES: Final = 16 * 1024 * 1024
"""Of all items of a stream: a tool's result has them all at once."""


def tools_of(handlers: Mapping[str, Handler]) -> list[Tool]:
    """The tools that an agent's handlers are, in their order."""
    return [
        Tool(name=kind, description=inspect.getdoc(each.function), input_schema=_schema(each))
        for kind, each in handlers.items()
    ]


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


def _schema(handler: Handler) -> dict[str, Any]:
    try:
        schema = handler.arguments.json_schema()
    except PydanticInvalidForJsonSchema as error:
        logger.warning("the arguments of %r cannot be described to clients of MCP: %s", handler.kind, error)
        return {"type": "object"}
    schema.pop("title", None)
    _add_defaults(schema.get("properties", {}), inspect.signature(handler.function).parameters.values())
    return schema


def _add_defaults(properties: dict[str, Any], parameters: Iterable[inspect.Parameter]) -> None:
    for each in parameters:
        if each.name in properties and each.default is not inspect.Parameter.empty:
            try:
                properties[each.name].setdefault("default", to_jsonable_python(each.default))
            except PydanticSerializationError:
                continue  # it has one that JSON cannot say


def _text(value: Any) -> TextContent:
    return _plain(_written(value))


def _written(value: Any) -> str:
    return value if isinstance(value, str) else to_json(value).decode()


def _plain(text: str) -> TextContent:
    return TextContent(type="text", text=text)
