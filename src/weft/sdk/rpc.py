"""What a request to an agent and its answer look like, for the caller's side."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from weft.errors import AgentFailed, InvalidRequest
from weft.model.agent import Instance
from weft.sdk.destination import host_of
from weft.sdk.inheritance import inherited_headers
from weft.sdk.transport import Call
from weft.sdk.wire import JSON, RPC_PATH

Payload = Mapping[str, Any] | BaseModel
"""What a request carries: names and values, as a mapping or a Pydantic model."""


def rpc_call(
    to: str | Instance, kind: str, payload: Mapping[str, Any], accept: str, headers: Mapping[str, str] | None
) -> Call:
    """A request of `kind` to an agent, with what the call being handled passes on. Raises InvalidRequest."""
    try:
        body = to_json({"kind": kind, "payload": payload}, by_alias=True)
    except PydanticSerializationError as error:
        raise InvalidRequest(f"the payload of {kind!r} cannot be written as JSON: {error}") from error
    given = {name.lower(): value for name, value in (headers or {}).items()}
    fixed = {"accept": accept, "content-type": JSON}
    return Call("POST", host_of(to), RPC_PATH, {**inherited_headers(), **given, **fixed}, body)


def fields_of(payload: Payload | None) -> Mapping[str, Any]:
    """The names and values of a payload."""
    if payload is None:
        return {}
    return payload if isinstance(payload, Mapping) else payload.model_dump(mode="json", by_alias=True)


def result_of(host: str, body: bytes, result_type: Any) -> Any:
    """The result in an answer, checked if its type is given. Raises AgentFailed."""
    try:
        result = from_json(body)["result"]
    except (ValueError, TypeError, KeyError) as error:
        raise AgentFailed(
            f'{host} answered 200, but not with {{"result": ...}}', agent_status=200, body=body[:1024]
        ) from error
    return result if result_type is None else checked(host, adapter_of(result_type), to_json(result))


def checked(host: str, adapter: TypeAdapter[Any], data: str | bytes) -> Any:
    """What `data`, as JSON, is by `adapter`. Raises AgentFailed, naming the host, if it is something else."""
    try:
        return adapter.validate_json(data)
    except ValidationError as error:
        raise AgentFailed(f"{host} answered something unexpected: {error}", agent_status=200) from error


def adapter_of(expected: Any) -> TypeAdapter[Any]:
    """What checks values of a type."""
    if isinstance(expected, TypeAdapter):
        return expected
    try:
        return _cached_adapter(expected)
    except TypeError:  # an annotation that cannot be hashed
        return TypeAdapter(expected)


@lru_cache(maxsize=256)
def _cached_adapter(expected: Any) -> TypeAdapter[Any]:
    return TypeAdapter(expected)
