"""Structural schemas: what Kubernetes demands of the schema of a custom resource.

They are OpenAPI 3.0 with less in it (apiextensions.k8s.io/v1, "Specifying a structural schema"): every value
has one type, nothing refers to anything, alternatives may only constrain what stands outside of them, and
unknown fields are dealt with by the API server, which refuses or drops them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from weft.model.access import AccessDestination, AccessPolicySpec, AccessRule, McpMatch, Principal
from weft.model.route import Fault, HeaderMatch, Mirror, PathMatch
from weft.model.target import Target

Schema = dict[str, Any]
"""An OpenAPI schema, as JSON types."""

NULL: Final[Schema] = {"type": "null"}


class NoStructuralSchema(TypeError):
    """A model says something for which there is no structural schema."""


def structural_schema(model: type[BaseModel]) -> Schema:
    """The structural schema of what `model` takes in the form of JSON.

    It refuses nothing that the model takes. What it cannot say (how fields depend on each other, mostly) is
    left to whoever reads the resource. Raises NoStructuralSchema.
    """
    found = model.model_json_schema(by_alias=True, mode="validation", schema_generator=_WithAlternatives)
    return _structural(found, found.get("$defs", {}))


def _required(*names: str) -> list[Schema]:
    return [{"required": [name]} for name in names]


_ALTERNATIVES: Final[Mapping[type[BaseModel], Schema]] = {
    Target: {"oneOf": _required("type", "capability")},
    PathMatch: {"oneOf": _required("prefix", "exact", "regex")},
    HeaderMatch: {"oneOf": _required("exact", "prefix", "regex", "present")},
    Mirror: {"anyOf": _required("version", "type")},
    Fault: {"anyOf": _required("delay", "abort")},
    AccessPolicySpec: {"oneOf": _required("effect", "default")},
    AccessDestination: {
        "oneOf": [
            {"anyOf": _required("type", "capability")},
            *({"required": [name], "not": {"required": ["version"]}} for name in ("topic", "queue", "pool")),
        ]
    },
    AccessRule: {"minProperties": 1},
    McpMatch: {"minProperties": 1},
    Principal: {"minProperties": 1},
}
"""What models check by themselves, as far as a schema can say it."""


class _WithAlternatives(GenerateJsonSchema):
    """Pydantic's schema of a model, with what the model says of its fields together."""

    def model_schema(self, schema: core_schema.ModelSchema) -> Schema:
        return super().model_schema(schema) | _ALTERNATIVES.get(schema["cls"], {})


_DROPPED = frozenset({"title", "default", "$defs", "propertyNames"})
"""What Kubernetes is not told. Defaults are the mesh's: one that is written into resources would stay."""

_KEPT = frozenset(
    {
        *("type", "description", "enum", "required", "format"),
        *("minLength", "maxLength", "pattern", "minItems", "maxItems", "minProperties", "maxProperties"),
        *("minimum", "maximum", "multipleOf", "oneOf", "not"),
    }
)
"""What means the same in both."""


def _structural(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    schema = _resolved(schema, definitions)
    nullable, schema = _without_null(schema, definitions)
    made: Schema = {"nullable": True} if nullable else {}
    for keyword, value in schema.items():
        if keyword in _KEPT or (keyword == "anyOf" and "type" in schema):
            made[keyword] = deepcopy(value)
        elif keyword not in _DROPPED:
            made |= _translated(keyword, value, definitions)
    if "description" in made:
        made["description"] = " ".join(made["description"].split())
    if made.get("type") == "integer":
        made["format"] = "int64"
    if "type" not in made and "x-kubernetes-int-or-string" not in made:
        raise NoStructuralSchema(f"a structural schema needs a type: {schema}")
    return {key: made[key] for key in sorted(made, key=_reading_order)}


def _reading_order(keyword: str) -> tuple[bool, bool, str]:
    """The description first, and what is inside last."""
    return (keyword != "description", keyword in {"properties", "items", "additionalProperties"}, keyword)


def _resolved(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """`schema` with what it refers to in it; what it says itself of that counts."""
    while "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        schema = definitions[name] | {key: value for key, value in schema.items() if key != "$ref"}
    return schema


def _without_null(schema: Schema, definitions: Mapping[str, Schema]) -> tuple[bool, Schema]:
    """Whether null means something there, and what else may be there.

    Where it means the same as nothing at all it is left out: the API server takes such nulls away itself.
    """
    choices = schema.get("anyOf", [])
    if NULL not in choices:
        return False, schema
    others = [each for each in choices if each != NULL]
    around = {key: value for key, value in schema.items() if key != "anyOf"}
    inner = _resolved(others[0], definitions) if len(others) == 1 else {"anyOf": others}
    return schema.get("default") is not None, inner | around


def _translated(keyword: str, value: Any, definitions: Mapping[str, Schema]) -> Schema:
    """What Kubernetes is told in place of a keyword that it has not, or has with schemas in it."""
    match keyword:
        case "properties":
            return {keyword: {name: _structural(each, definitions) for name, each in value.items()}}
        case "items" | "additionalProperties" if isinstance(value, dict):
            return {keyword: _structural(value, definitions)}
        case "additionalProperties":
            return {}
        case "patternProperties" if len(value) == 1:
            # What keys look like cannot be said.
            [only] = value.values()
            return {"additionalProperties": _structural(only, definitions)}
        case "exclusiveMinimum" | "exclusiveMaximum":
            return {keyword.removeprefix("exclusive").lower(): value, keyword: True}
        case "anyOf" if _types(value) == {"integer", "string"}:
            return {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}
    raise NoStructuralSchema(f"there is no structural schema for {keyword}: {value}")


def _types(choices: Iterable[Schema]) -> set[str]:
    return {str(each.get("type")) for each in choices}
