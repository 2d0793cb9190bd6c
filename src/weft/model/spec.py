"""What all parts of a declared resource have in common: frozen, camelCase in YAML, unknown fields refused."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic.alias_generators import to_camel

from weft.errors import InvalidRequest
from weft.model.attribute_docs import describe_fields
from weft.model.names import MAX_NAME_LENGTH, NAME_PATTERN, check_name, check_type

MAX_ITEMS = 128
"""The most entries any list or mapping in a resource may have."""


class Spec(BaseModel):
    """Base of everything that is declared."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        json_schema_extra=describe_fields,
        # A process reads the few kinds it has to do with, not all whose classes it knows.
        defer_build=True,
        # What was given may be a secret: it has no place in the text of an error.
        hide_input_in_errors=True,
    )


def _name(value: str) -> str:
    try:
        return check_name(value)
    except InvalidRequest as error:
        raise ValueError(error.detail) from error


def _type(value: str) -> str:
    try:
        return check_type(value)
    except InvalidRequest as error:
        raise ValueError(error.detail) from error


_NAME_SCHEMA = WithJsonSchema({"type": "string", "maxLength": MAX_NAME_LENGTH, "pattern": NAME_PATTERN})

Name = Annotated[str, StringConstraints(max_length=MAX_NAME_LENGTH), AfterValidator(_name), _NAME_SCHEMA]
"""A DNS label."""

TypeName = Annotated[str, StringConstraints(max_length=MAX_NAME_LENGTH), AfterValidator(_type), _NAME_SCHEMA]
"""A DNS label that an agent type may have."""

Text = Annotated[str, StringConstraints(max_length=4096)]
"""Free text, at most 4,096 characters."""

ShortText = Annotated[str, StringConstraints(max_length=256)]
"""Free text, at most 256 characters."""

Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
"""Of a hundred."""
