"""What the script for `tools.mesh` has to know of the catalogue: the filter's context.

Every Envoy holds it, so it is small: what is as usual is not in it. Its keys, each looked up by itself:

| key | value |
|---|---|
| `s:<type>` | a server: `path`; `old` if it speaks only 2025-11-25 |
| `t:<name>`, `p:<name>` | a tool, a prompt: `server`, `original`, `idempotent`, `timeout` (milliseconds), `request` and `result` (most bytes), `headers` (parameters that become headers); or, for an alias, the name it stands for |
| `r:<uri>` | a resource, or a template as such: `server` |
| `templates` | a list of `prefix` and `server` |
"""  # noqa: E501 - a table

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from weft.model.mcp_catalogue import McpCatalogue, PublishedPrompt, PublishedTool
from weft.model.offer import JsonObject
from weft.model.tool import MAX_ARGUMENTS_BYTES, MAX_RESULT_BYTES

_SLACK = 4 * 1024 * 1024
"""A request that is larger than it may be by less than this is told so with its id."""


def tool_context(catalogue: McpCatalogue) -> dict[str, Any]:
    """The context, JSON types only."""
    context: dict[str, Any] = {}
    for server in catalogue.servers:
        old = {} if server.generation.value >= "2026" else {"old": True}
        context[f"s:{server.type}"] = {"path": server.path, **old}
    context.update(_named("t:", catalogue.tools))
    context.update(_named("p:", catalogue.prompts))
    templates = catalogue.templates
    context.update({f"r:{each.template}": {"server": each.server.type} for each in templates})
    context.update({f"r:{each.uri}": {"server": each.server.type} for each in catalogue.resources})
    if templates:
        context["templates"] = [
            {"prefix": each.prefix, "server": each.server.type} for each in templates if each.prefix
        ]
    return context


def largest_request(catalogue: McpCatalogue) -> int:
    """How many bytes of a request, or of an answer, Envoy keeps: more than any of the tools takes."""
    limits = [limit for each in catalogue.tools for limit in (each.max_arguments, each.max_result)]
    return max([MAX_ARGUMENTS_BYTES, MAX_RESULT_BYTES, *limits]) + _SLACK


def _named(prefix: str, published: Iterable[PublishedTool | PublishedPrompt]) -> Iterator[tuple[str, object]]:
    """Aliases first: should one be another's name, that one has it."""
    published = tuple(published)
    for each in published:
        yield from ((prefix + alias, each.name) for alias in each.aliases)
    for each in published:
        yield prefix + each.name, _entry(each)


def _entry(each: PublishedTool | PublishedPrompt) -> dict[str, object]:
    entry: dict[str, object] = {"server": each.server.type}
    if each.original != each.name:
        entry["original"] = each.original
    if isinstance(each, PublishedTool):
        entry.update(_limits(each))
    return entry


def _limits(tool: PublishedTool) -> Iterator[tuple[str, object]]:
    if tool.idempotent:
        yield "idempotent", True
    if tool.timeout is not None:
        yield "timeout", max(1, round(tool.timeout * 1000))
    if tool.max_arguments != MAX_ARGUMENTS_BYTES:
        yield "request", tool.max_arguments
    if tool.max_result != MAX_RESULT_BYTES:
        yield "result", tool.max_result
    if headers := dict(_parameters(tool.definition)):
        yield "headers", headers


def _parameters(definition: JsonObject) -> Iterator[tuple[str, str]]:
    """Which headers carry which parameters (`x-mcp-header` in the schema of the tool's input)."""
    schema = definition.get("inputSchema")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    for name, each in properties.items() if isinstance(properties, dict) else ():
        header = each.get("x-mcp-header") if isinstance(each, dict) else None
        if isinstance(header, str) and header.replace("-", "").isalnum() and header.isascii():
            yield header.lower(), name
