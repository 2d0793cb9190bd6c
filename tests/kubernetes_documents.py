"""What tests ask of documents for Kubernetes: whether schemas are structural, what they take and refuse."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import re2
from jsonschema import Draft4Validator

from weft.model.yaml_tree import trees

ROOT = Path(__file__).parents[1]

Document = dict[str, Any]

_MANIFEST = re.compile(r"^```yaml\n(?P<text>(?:#[^\n]*\n)?apiVersion: .*?)^```", re.DOTALL | re.MULTILINE)


def examples() -> dict[str, list[Document]]:
    """What the files in examples/ declare, by where they are."""
    found = sorted((ROOT / "examples").rglob("*.yaml"))
    declared = {str(each.relative_to(ROOT)): resources(each.read_text()) for each in found}
    return {file: documents for file, documents in declared.items() if documents}


def resources(text: str) -> list[Document]:
    """The resources of Weft in YAML, among whatever else is for a cluster only."""
    return [each for each in documents(text) if each.get("apiVersion", "").startswith("weft.dev/")]


def manifests_of_pages() -> dict[str, list[Document]]:
    """What the pages in docs/ declare, by page."""
    return {
        page.name: [
            each for match in _MANIFEST.finditer(page.read_text()) for each in documents(match["text"])
        ]
        for page in sorted((ROOT / "docs").glob("*.md"))
    }


def documents(text: str) -> list[Document]:
    """The documents in YAML, as JSON types."""
    return [tree.value for tree in trees(text)]


_JUNCTORS = ("allOf", "anyOf", "oneOf")
_VALUES = {
    *("enum", "required", "minLength", "maxLength", "pattern", "minItems", "maxItems", "minProperties"),
    *("maxProperties", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "not"),
    *("format", *_JUNCTORS),
}
_STRUCTURE = {
    *("type", "description", "properties", "items", "additionalProperties", "nullable"),
    *("x-kubernetes-int-or-string", "x-kubernetes-validations"),
    *("x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
}
_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
}


def not_structural(schema: Document, where: str = "") -> Iterator[str]:
    """What keeps a schema from being structural, by the rules of apiextensions.k8s.io/v1, or from being RE2.

    Besides, what Weft's schemas have no use for is taken for a mistake.
    """
    unknown = schema.keys() - _VALUES - _STRUCTURE
    if unknown:
        yield f"{where}: {sorted(unknown)} may not be there"
    if schema.get("x-kubernetes-int-or-string"):
        if "type" in schema or schema.get("anyOf") != [{"type": "integer"}, {"type": "string"}]:
            yield f"{where}: is no int-or-string"
        return
    if schema.get("type") not in _TYPES:
        yield f"{where}: needs a type"
        return
    yield from _unlike_its_type(schema, where)
    yield from (f"{where}: {found}" for found in _in_junctors(schema))
    for name, inside in schema.get("properties", {}).items():
        yield from not_structural(inside, f"{where}.{name}")
    for keyword in ("items", "additionalProperties"):
        if isinstance(schema.get(keyword), dict):
            yield from not_structural(schema[keyword], f"{where}.{keyword}")


def _unlike_its_type(schema: Document, where: str) -> Iterator[str]:
    kind = schema["type"]
    if kind == "array" and "items" not in schema:
        yield f"{where}: an array needs items"
    if kind == "object" and not {"properties", "additionalProperties"} & schema.keys():
        yield f"{where}: an object of which nothing is said loses everything"
    if {"properties", "additionalProperties"} <= schema.keys():
        yield f"{where}: properties and additionalProperties exclude each other"
    if not isinstance(schema.get("additionalProperties", {}), dict):
        yield f"{where}: additionalProperties must be a schema"
    undeclared = set(schema.get("required", ())) - schema.get("properties", {}).keys()
    if undeclared:
        yield f"{where}: requires {sorted(undeclared)}, of which it says nothing"
    yield from _unlike_its_values(schema, where)


def _unlike_its_values(schema: Document, where: str) -> Iterator[str]:
    if any(not isinstance(each, _TYPES[schema["type"]]) for each in schema.get("enum", ())):
        yield f"{where}: has values in enum of another type"
    keys = schema.get("x-kubernetes-list-map-keys", [])
    if not set(keys) <= set(schema.get("items", {}).get("required", ())):
        yield f"{where}: keys of a list must be required"
    if "pattern" in schema:
        try:
            re2.compile(schema["pattern"])
        except re2.error as error:
            yield f"{where}: pattern {schema['pattern']!r}: {error}"


def _in_junctors(schema: Document) -> Iterator[str]:
    inside = [each for junctor in _JUNCTORS for each in schema.get(junctor, ())]
    inside += [schema["not"]] if "not" in schema else []
    for each in inside:
        unknown = each.keys() - _VALUES - {"properties", "items"}
        if unknown:
            yield f"{sorted(unknown)} may not be in a junctor"
        unsaid = {*each.get("properties", {}), *each.get("required", ())} - schema.get(
            "properties", {}
        ).keys()
        if unsaid:
            yield f"{sorted(unsaid)} is said nothing of outside of a junctor"
        yield from _in_junctors({**each, "properties": schema.get("properties", {})})


def schema_of(definition: Document) -> Document:
    """The schema of the one version that a CustomResourceDefinition has."""
    [version] = definition["spec"]["versions"]
    schema: Document = version["schema"]["openAPIV3Schema"]
    return schema


def refusals(definition: Document, document: Document) -> list[str]:
    """Why an API server that is strict about fields refuses a custom resource; empty if it takes it."""
    schema = schema_of(definition)
    schema = {**schema, "properties": {**schema["properties"], "metadata": {"type": "object"}}}
    return [
        *(f"unknown field {each}" for each in _unknown_fields(schema, document, "")),
        *(
            f"{'.'.join(map(str, each.absolute_path))}: {each.message}"
            for each in Draft4Validator(_draft4(schema)).iter_errors(_without_nulls(schema, document))
        ),
    ]


def _unknown_fields(schema: Mapping[str, Any], value: Any, where: str) -> Iterator[str]:
    for name, inside in _members(schema, value):
        if inside is None:
            yield f"{where}.{name}".removeprefix(".")
        else:
            yield from _unknown_fields(inside, value[name], f"{where}.{name}")


def _members(schema: Mapping[str, Any], value: Any) -> Iterator[tuple[Any, Mapping[str, Any] | None]]:
    """What is in a value, and the schema of each; None where nothing is known of it."""
    if isinstance(value, list):
        yield from ((index, schema.get("items", {})) for index in range(len(value)))
    elif isinstance(value, dict) and "properties" in schema:
        yield from ((name, schema["properties"].get(name)) for name in value)
    elif isinstance(value, dict):
        yield from ((name, schema.get("additionalProperties", {})) for name in value)


def _without_nulls(schema: Mapping[str, Any], value: Any) -> Any:
    """`value` without the nulls that an API server takes away before it looks: where they may not be."""
    if isinstance(value, list):
        return [_without_nulls(schema.get("items", {}), each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        name: _without_nulls(inside or {}, value[name])
        for name, inside in _members(schema, value)
        if value[name] is not None or (inside or {}).get("nullable")
    }


def _draft4(schema: Any) -> Any:
    """OpenAPI's schema in JSON Schema draft 4, which has no `nullable`."""
    if isinstance(schema, list):
        return [_draft4(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _draft4(value) for key, value in schema.items()}
    if made.pop("nullable", None) is True:
        made["type"] = [made["type"], "null"]
    return made
