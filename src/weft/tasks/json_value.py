"""Values that come from programs and go through Weft as JSON."""

from __future__ import annotations

from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json

from weft.errors import InvalidRequest

MAX_JSON_BYTES = 900 * 1024
"""The most that a result or a partial result may have."""


def json_bytes(value: Any, what: str) -> bytes:
    """The JSON of `value`, NaN and infinity as null. Raises InvalidRequest, naming `what` has none."""
    try:
        return to_json(value, inf_nan_mode="null")
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise InvalidRequest(
            f"{what} cannot be written as JSON: use mappings, lists, texts, numbers, booleans and None"
        ) from error


def json_value(value: Any, what: str, *, limit: int = MAX_JSON_BYTES) -> Any:
    """`value` as it reads once it was written as JSON. Raises InvalidRequest if it is too large or none."""
    return sized_json_value(value, what, limit=limit)[0]


def sized_json_value(value: Any, what: str, *, limit: int = MAX_JSON_BYTES) -> tuple[Any, int]:
    """The same, and how many bytes it has as JSON."""
    data = json_bytes(value, what)
    if len(data) > limit:
        raise InvalidRequest(
            f"{what} has {len(data)} bytes as JSON, {limit} at most: put what is large elsewhere "
            "and give its address"
        )
    try:
        return from_json(data), len(data)
    except ValueError as error:
        # Nested too deep: it could be written down, but never read again.
        raise InvalidRequest(f"{what} cannot be read back from JSON: nest it less deep") from error


def written_text(text: str, limit: int) -> str:
    """The beginning of a text that came from anywhere, fit to be written as JSON."""
    return text[:limit].encode(errors="replace").decode()
