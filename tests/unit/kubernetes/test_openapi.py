"""Structural schemas of models: what Kubernetes can say of them, and no construct that it cannot."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any

import pytest
import re2
from pydantic import BaseModel, Field
from tests.kubernetes_documents import not_structural

from weft.errors import InvalidRequest
from weft.kubernetes.openapi import NoStructuralSchema, structural_schema
from weft.model.duration import DURATION_PATTERN, Duration, parse_duration
from weft.model.names import MAX_NAME_LENGTH, NAME_PATTERN, check_name
from weft.model.resource import KINDS
from weft.model.spec import Name, Spec
from weft.model.target import Target


class Part(Spec):
    """A part,
    of two lines."""

    size: Annotated[int, Field(ge=1)] = 1


class Whole(Spec):
    """A whole."""

    part: Part = Part()
    own: Part = Part()
    """Said of it here."""
    parts: Annotated[tuple[Part, ...], Field(max_length=3)] = ()
    by_name: Annotated[dict[Name, Part], Field(max_length=3)] = {}
    absent: str | None = None
    nothing: str | None = "something"
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    quantity: Annotated[int | str, Field(description="As 2 or 500m.")] = 1
    wait: Duration = 1.0
    target: Target | None = None


PART: dict[str, Any] = {
    "type": "object",
    "properties": {"size": {"type": "integer", "format": "int64", "minimum": 1}},
}
WHOLE = structural_schema(Whole)["properties"]


@pytest.mark.parametrize(
    ("field", "schema"),
    [
        ("part", {"description": "A part, of two lines.", **PART}),
        ("own", {"description": "Said of it here.", **PART}),
        (
            "parts",
            {"type": "array", "maxItems": 3, "items": {"description": "A part, of two lines.", **PART}},
        ),
        (
            "byName",
            {
                "type": "object",
                "maxProperties": 3,
                "additionalProperties": {"description": "A part, of two lines.", **PART},
            },
        ),
        ("absent", {"type": "string"}),
        ("nothing", {"type": "string", "nullable": True}),
        (
            "share",
            {
                "type": "number",
                "minimum": 0,
                "exclusiveMinimum": True,
                "maximum": 1,
                "exclusiveMaximum": True,
            },
        ),
        (
            "quantity",
            {
                "description": "As 2 or 500m.",
                "x-kubernetes-int-or-string": True,
                "anyOf": [{"type": "integer"}, {"type": "string"}],
            },
        ),
        ("wait", {"type": "string", "pattern": DURATION_PATTERN}),
    ],
)
def test_fields_are_said_as_kubernetes_says_them(field: str, schema: dict[str, Any]) -> None:
    assert WHOLE[field] == schema


def test_a_choice_between_fields_is_part_of_the_schema() -> None:
    assert WHOLE["target"]["oneOf"] == [{"required": ["type"]}, {"required": ["capability"]}]
    assert "nullable" not in WHOLE["target"]


def test_the_description_comes_first_and_what_is_inside_last() -> None:
    assert list(WHOLE["own"]) == ["description", "type", "properties"]


class Either(BaseModel):
    value: int | list[str]


class Anything(BaseModel):
    value: Any


class Pair(BaseModel):
    value: tuple[int, str]


@pytest.mark.parametrize("model", [Either, Anything, Pair])
def test_what_kubernetes_cannot_say_is_no_schema_at_all(model: type[BaseModel]) -> None:
    with pytest.raises(NoStructuralSchema):
        structural_schema(model)


@pytest.mark.parametrize("kind", [each for each in KINDS if each != "Secret"])
def test_the_schema_of_every_kind_is_structural(kind: str) -> None:
    assert list(not_structural(structural_schema(KINDS[kind]))) == []


def test_values_of_secrets_have_no_schema_so_that_none_gets_into_a_custom_resource() -> None:
    with pytest.raises(NoStructuralSchema):
        structural_schema(KINDS["Secret"])


STRING = {"type": "string"}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"$ref": "#/$defs/Part"},
        {"type": "array"},
        {"type": "object"},
        {"type": "object", "properties": {"a": {}}},
        {"type": "object", "properties": {"a": STRING}, "required": ["b"]},
        {"type": "object", "properties": {"a": STRING}, "additionalProperties": STRING},
        {"type": "object", "additionalProperties": False, "properties": {"a": STRING}},
        {"type": "object", "patternProperties": {"^a": STRING}},
        {"type": "object", "properties": {"a": STRING}, "anyOf": [{"required": ["b"]}]},
        {"type": "object", "properties": {"a": STRING}, "not": {"oneOf": [{"required": ["b"]}]}},
        {"type": "string", "anyOf": [{"type": "string"}, {"maxLength": 3}]},
        {"type": "string", "oneOf": [{"description": "short", "maxLength": 3}]},
        {"type": "string", "pattern": "^(?!a)"},
        {"type": "string", "enum": ["a", 1]},
        {"type": "string", "const": "a"},
        {"type": "string", "default": "a"},
        {"type": "string", "x-kubernetes-int-or-string": True},
        {
            "type": "array",
            "items": {"type": "object", "properties": {"a": STRING}},
            "x-kubernetes-list-map-keys": ["a"],
        },
    ],
)
def test_what_is_not_structural_is_told(schema: dict[str, Any]) -> None:
    assert list(not_structural(schema))


def _matches(pattern: str, text: str) -> bool:
    return re2.search(pattern, text) is not None


_NUMBERS = (
    "",
    "0",
    "01",
    "1",
    "1.",
    ".5",
    "1.5",
    "1.50",
    "1.000",
    "1.0000",
    "999999999",
    "1234567890",
    "-1",
    "\uff11",
)
_UNITS = ("ms", "s", "m", "h", "d", "", " s", "s ", "s\n", "S")


@pytest.mark.parametrize("text", [number + unit for number in _NUMBERS for unit in _UNITS])
def test_a_duration_has_the_pattern_of_the_schema_just_where_it_can_be_read(text: str) -> None:
    read = False
    with suppress(ValueError):
        parse_duration(text)
        read = True
    assert _matches(DURATION_PATTERN, text) is read


@pytest.mark.parametrize(
    "text", ["", "a", "9", "a-9", "-a", "a-", "-", "A", "a.b", "a_b", "a\n", "\u00e4", "a" * 63, "a" * 64]
)
def test_a_name_has_the_pattern_of_the_schema_just_where_it_is_one(text: str) -> None:
    valid = False
    with suppress(InvalidRequest):
        check_name(text)
        valid = True
    assert (_matches(NAME_PATTERN, text) and len(text) <= MAX_NAME_LENGTH) is valid
