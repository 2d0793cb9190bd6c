"""Configuration of those extensions of Envoy whose messages our protos do not have."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import ParseDict
from xds.type.v3.typed_struct_pb2 import TypedStruct


def typed_struct(type_name: str, value: dict[str, Any]) -> TypedStruct:
    """`value` as Envoy takes it for a message of the type `type_name` (`envoy.extensions....`)."""
    result = TypedStruct(type_url=f"type.googleapis.com/{type_name}")
    ParseDict(value, result.value)
    return result
