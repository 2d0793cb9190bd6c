"""One entry of an MCP server's lists as others see it: what the schema of MCP knows, clean and within limits.

The schema: https://modelcontextprotocol.io/specification/2025-11-25/schema. Each function takes an entry as
the server wrote it, and says in `notes` what of it was cut. All raise Unusable where nothing can be shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from weft.controlplane.mcp.cleaning import Unusable, clean_json, clean_text, is_clean, size
from weft.model.offer import JsonObject

MAX_DESCRIPTION: Final = 16 * 1024
"""Characters of a description; what is more is cut."""

MAX_SCHEMA_BYTES: Final = 64 * 1024
"""Size of a schema; a tool with a larger one for its arguments is left out."""

MAX_TITLE: Final = 256
"""Characters of a title; what is more is cut."""

MAX_EXTRA_BYTES: Final = 16 * 1024
"""Size of an entry's icons, and of its `_meta`; larger ones are left out."""

MAX_URI: Final = 2048
"""Characters."""

MAX_PROMPT_ARGUMENTS: Final = 100

Notes = list[str]

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")
_HINTS = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")
_ROLES = ("user", "assistant")


def tool_definition(entry: JsonObject, notes: Notes) -> dict[str, Any]:
    """A tool, without its name."""
    shown = {"inputSchema": _input_schema(entry.get("inputSchema")), **_described(entry, notes)}
    output = entry.get("outputSchema")
    if output is not None:
        try:
            shown["outputSchema"] = _schema(output, "outputSchema")
        except Unusable as error:
            notes.append(f"shown without its outputSchema: {error}")
    annotations = entry.get("annotations")
    if isinstance(annotations, Mapping):
        hints = {each: annotations[each] for each in _HINTS if isinstance(annotations.get(each), bool)}
        shown["annotations"] = {**hints, **_texts(annotations, title=MAX_TITLE)}
    return shown


def prompt_definition(entry: JsonObject, notes: Notes) -> dict[str, Any]:
    """A prompt, without its name."""
    shown = _described(entry, notes)
    arguments = entry.get("arguments")
    if arguments is not None:
        if not isinstance(arguments, list | tuple) or len(arguments) > MAX_PROMPT_ARGUMENTS:
            raise Unusable(f"its arguments are no list of at most {MAX_PROMPT_ARGUMENTS}")
        shown["arguments"] = [_argument(each) for each in arguments]
    return shown


def resource_definition(entry: JsonObject, notes: Notes) -> dict[str, Any]:
    """A resource."""
    uri = _uri(entry.get("uri"), _URI, "uri")
    length = entry.get("size")
    sized = isinstance(length, int) and not isinstance(length, bool) and length >= 0
    return {"uri": uri, **_of_resource(entry, uri, notes), **({"size": length} if sized else {})}


def template_definition(entry: JsonObject, notes: Notes) -> dict[str, Any]:
    """A template of resources."""
    template = _uri(entry.get("uriTemplate"), _URI, "uriTemplate")
    return {"uriTemplate": template, **_of_resource(entry, template, notes)}


def prefix_of(template: str) -> str:
    """What all URIs of a template begin with. It is a scheme at least, since that is what it begins with."""
    return template.partition("{")[0]


def _of_resource(entry: JsonObject, default_name: str, notes: Notes) -> dict[str, Any]:
    annotations = entry.get("annotations")
    kept = _resource_annotations(annotations) if isinstance(annotations, Mapping) else {}
    return {
        "name": _texts(entry, name=MAX_TITLE).get("name") or default_name[:MAX_TITLE],
        **_texts(entry, mimeType=MAX_TITLE),
        **_described(entry, notes),
        **({"annotations": kept} if kept else {}),
    }


def _described(entry: JsonObject, notes: Notes) -> dict[str, Any]:
    """What every kind of entry may have."""
    description = entry.get("description")
    if isinstance(description, str) and len(description) > MAX_DESCRIPTION:
        notes.append(f"its description is cut at {MAX_DESCRIPTION} characters")
    shown: dict[str, Any] = _texts(entry, title=MAX_TITLE, description=MAX_DESCRIPTION)
    icons, meta = entry.get("icons"), entry.get("_meta")
    if isinstance(icons, list | tuple):
        shown |= _extra("icons", [icon for each in icons if (icon := _icon(each))])
    if isinstance(meta, Mapping):
        shown |= _extra("_meta", meta)
    return shown


def _extra(name: str, value: Any) -> dict[str, Any]:
    """Something that can be done without."""
    try:
        cleaned = clean_json(value)
    except Unusable:
        return {}
    return {name: cleaned} if cleaned and size(cleaned) <= MAX_EXTRA_BYTES else {}


def _icon(icon: Any) -> dict[str, Any] | None:
    if not isinstance(icon, Mapping) or not isinstance(icon.get("src"), str):
        return None
    sizes = icon.get("sizes")
    listed = isinstance(sizes, list | tuple) and all(isinstance(each, str) for each in sizes)
    return {
        **_texts(icon, src=MAX_EXTRA_BYTES, mimeType=MAX_TITLE),
        **({"sizes": list(sizes)} if listed else {}),  # type: ignore[arg-type]
        **({"theme": icon["theme"]} if icon.get("theme") in ("light", "dark") else {}),
    }


def _argument(argument: Any) -> dict[str, Any]:
    name = argument.get("name") if isinstance(argument, Mapping) else None
    if not isinstance(name, str) or not 0 < len(name) <= MAX_TITLE or not is_clean(name):
        raise Unusable("one of its arguments has no name")
    required = argument.get("required")
    return {
        "name": name,
        **_texts(argument, title=MAX_TITLE, description=MAX_DESCRIPTION),
        **({"required": required} if isinstance(required, bool) else {}),
    }


def _resource_annotations(annotations: Mapping[str, Any]) -> dict[str, Any]:
    audience, priority = annotations.get("audience"), annotations.get("priority")
    kept: dict[str, Any] = _texts(annotations, lastModified=64)
    if isinstance(audience, list | tuple):
        kept["audience"] = [each for each in _ROLES if each in audience]
    if isinstance(priority, int | float) and not isinstance(priority, bool) and 0 <= priority <= 1:
        kept["priority"] = priority
    return kept


def _uri(value: Any, form: re.Pattern[str], what: str) -> str:
    if not isinstance(value, str) or len(value) > MAX_URI:
        raise Unusable(f"its {what} is no text of at most {MAX_URI} characters")
    if not form.fullmatch(value) or not is_clean(value):
        raise Unusable(f"its {what} is no URI")
    return value


def _texts(entry: Mapping[str, Any], **limits: int) -> dict[str, Any]:
    """Those of the named fields that are texts, clean and cut."""
    return {
        name: clean_text(entry[name][:limit])
        for name, limit in limits.items()
        if isinstance(entry.get(name), str)
    }


def _input_schema(value: Any) -> dict[str, Any]:
    """A schema of arguments, which are an object: clients of 2025 insist that it says so in their words."""
    schema = {"type": "object", **_schema(value, "inputSchema")}
    if schema["type"] != "object":
        raise Unusable("its inputSchema is not of type object")
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(each, str) for each in required):
        raise Unusable("what its inputSchema requires is no list of names")
    properties = schema.get("properties", {})
    if not isinstance(properties, dict) or not all(isinstance(it, dict | bool) for it in properties.values()):
        raise Unusable("the properties of its inputSchema are no schemas")
    if properties:
        schema["properties"] = {name: _as_object(each) for name, each in properties.items()}
    return schema


def _as_object(schema: dict[str, Any] | bool) -> dict[str, Any]:
    """A schema that is a mere `true` or `false`, which older clients do not know, in other words."""
    if isinstance(schema, bool):
        return {} if schema else {"not": {}}
    return schema


def _schema(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise Unusable(f"its {what} is no object")
    try:
        schema: dict[str, Any] = clean_json(value)
    except Unusable as error:
        raise Unusable(f"its {what} is {error}") from error
    if size(schema) > MAX_SCHEMA_BYTES:
        raise Unusable(f"its {what} has more than {MAX_SCHEMA_BYTES} bytes")
    return schema
