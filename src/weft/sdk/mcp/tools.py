"""Handlers as tools, as clients of MCP read of them. Nothing here needs the library of MCP."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import PydanticSerializationError, to_jsonable_python

from weft.sdk.handler import Handler

logger = logging.getLogger("weft.agent")


def tools_of(handlers: Mapping[str, Handler]) -> list[dict[str, Any]]:
    """The tools that an agent's handlers are, in their order, as JSON types."""
    return [_tool(each) for each in handlers.values()]


def _tool(handler: Handler) -> dict[str, Any]:
    description = inspect.getdoc(handler.function)
    described = {"description": description} if description else {}
    return {"name": handler.kind, **described, "inputSchema": _schema(handler)}


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
