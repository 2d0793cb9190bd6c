"""What the script for `tools.mesh` has to know of the catalogue.

Every Envoy holds it, so it is small: what is as usual is not in it. Its keys:

| key | value |
|---|---|
| `s:<type>` | a server: `path`; `old` if it speaks only 2025-11-25 |
| `t:<name>`, `p:<name>` | a tool, a prompt: `server`, `original`, `idempotent`, `timeout` (milliseconds), `request` and `result` (most bytes), `header.<name>` (the parameter that becomes one); or, for an alias, `alias`: the name it stands for |
| `r:<uri>` | a resource, or a template as such: `server` |
| `b:<beginning>` | what resources of a template begin with: `server` |

It goes with the script, as text: the context that Envoy's filter has for such things is copied for every request.
"""  # noqa: E501 - a table

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from weft.model.mcp_catalogue import McpCatalogue, PublishedPrompt, PublishedTool
from weft.model.offer import JsonObject, McpGeneration
from weft.model.tool import MAX_ARGUMENTS_BYTES, MAX_RESULT_BYTES

_SLACK = 4 * 1024 * 1024
"""A request that is larger than it may be by less than this is told so with its id."""


Fields = dict[str, str]


def tool_context(catalogue: McpCatalogue) -> dict[str, Fields]:
    """The context."""
    context: dict[str, Fields] = {}
    for server in catalogue.servers:
        old = {"old": "1"} if server.generation is McpGeneration.SESSIONS else {}
        context[f"s:{server.type}"] = {"path": server.path, **old}
    context.update(_named("t:", catalogue.tools))
    context.update(_named("p:", catalogue.prompts))
    for each in reversed(catalogue.templates):
        # The first has it, of those that begin alike.
        context[f"b:{each.prefix}"] = context[f"r:{each.template}"] = {"server": each.server.type}
    context.update({f"r:{each.uri}": {"server": each.server.type} for each in catalogue.resources})
    return context


def context_text(context: Mapping[str, Fields]) -> str:
    """As `mcp_context.lua` reads it: a line for each key, of which the fields are set apart by tabs."""
    return "\n".join(
        "\t".join([_plain(key), *(f"{name}={_plain(value)}" for name, value in fields.items())])
        for key, fields in context.items()
    )


def _plain(text: str) -> str:
    """`text` without control characters, for which there are others."""
    return re.sub(r"[%\x00-\x1f]", lambda found: f"%{ord(found[0]):02x}", text)


def largest_request(catalogue: McpCatalogue) -> int:
    """How many bytes of a request, or of an answer, Envoy keeps: more than any of the tools takes."""
    limits = [limit for each in catalogue.tools for limit in (each.max_arguments, each.max_result)]
    return max([MAX_ARGUMENTS_BYTES, MAX_RESULT_BYTES, *limits]) + _SLACK


def _named(prefix: str, published: Iterable[PublishedTool | PublishedPrompt]) -> Iterator[tuple[str, Fields]]:
    """Aliases first: should one be another's name, that one has it."""
    published = tuple(published)
    for each in published:
        yield from ((prefix + alias, {"alias": each.name}) for alias in each.aliases)
    for each in published:
        yield prefix + each.name, _entry(each)


def _entry(each: PublishedTool | PublishedPrompt) -> Fields:
    entry = {"server": each.server.type}
    if each.original != each.name:
        entry["original"] = each.original
    if isinstance(each, PublishedTool):
        entry.update(_limits(each))
    return entry


def _limits(tool: PublishedTool) -> Iterator[tuple[str, str]]:
    if tool.idempotent:
        yield "idempotent", "1"
    if tool.timeout is not None:
        yield "timeout", str(max(1, round(tool.timeout * 1000)))
    if tool.max_arguments != MAX_ARGUMENTS_BYTES:
        yield "request", str(tool.max_arguments)
    if tool.max_result != MAX_RESULT_BYTES:
        yield "result", str(tool.max_result)
    for header, parameter in _parameters(tool.definition):
        yield f"header.{header}", parameter


def _parameters(definition: JsonObject) -> Iterator[tuple[str, str]]:
    """Which headers carry which parameters (`x-mcp-header` in the schema of the tool's input)."""
    schema = definition.get("inputSchema")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    for name, each in properties.items() if isinstance(properties, dict) else ():
        header = each.get("x-mcp-header") if isinstance(each, dict) else None
        if isinstance(header, str) and header.replace("-", "").isalnum() and header.isascii():
            yield header.lower(), name
