"""How an instance is written down in the store."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from weft.errors import InvalidRequest
from weft.model.agent import Instance, Locality, Status
from weft.model.names import MAX_NAME_LENGTH
from weft.model.node import parse_address

MAX_RECORD_BYTES = 64 * 1024
"""A longer record is no instance's."""

MAX_REASON_LENGTH = 1024
"""A longer reason is cut: what a failing health check says must not keep it from being told."""


def _reachable(endpoint: str) -> str:
    # Envoy takes no names here, and one endpoint that it refuses would cost callers all the others.
    ip_address(parse_address(endpoint).host)
    return endpoint


_Label = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=MAX_NAME_LENGTH)
]
_Endpoint = Annotated[
    str,
    StringConstraints(pattern=r"^(\[[0-9a-fA-F:.]+\]|[0-9.]+):[0-9]{1,5}$", max_length=300),
    AfterValidator(_reachable),
]
_Text = Annotated[str, StringConstraints(max_length=256)]
_Reason = Annotated[
    str, BeforeValidator(lambda text: text[:MAX_REASON_LENGTH] if isinstance(text, str) else text)
]


class _Record(BaseModel):
    # Versions of Weft mix in one mesh: a field that this one does not know is none of its business.
    model_config = ConfigDict(extra="ignore", frozen=True, from_attributes=True, allow_inf_nan=False)

    id: _Label
    type: _Label
    endpoint: _Endpoint
    status: Status = Status.STARTING
    capabilities: Annotated[frozenset[_Label], Field(max_length=256)] = frozenset()
    version: _Text = ""
    labels: Annotated[dict[_Text, _Text], Field(max_length=64)] = {}
    locality: Locality = Locality()
    weight: Annotated[int, Field(ge=1, le=1000)] = 1
    in_flight: Annotated[int, Field(ge=0)] = 0
    started_at: Annotated[float, Field(ge=0)] = 0.0
    reason: _Reason = ""
    incarnation: _Text = ""


class InstanceCodec:
    """Instances as JSON."""

    def encode(self, value: Instance) -> bytes:
        """Return the JSON of `value`. Raises InvalidRequest if a field of it is out of its limits."""
        try:
            record = _Record.model_validate(value)
        except ValidationError as error:
            raise InvalidRequest(
                f"instance {value.key!r} cannot be registered: {_problems(error)}"
            ) from error
        return record.model_dump_json().encode()

    def decode(self, data: bytes) -> Instance:
        """Return the instance in `data`; raise ValueError if it holds none. Unknown fields are ignored."""
        if len(data) > MAX_RECORD_BYTES:
            raise ValueError(
                f"{len(data)} bytes are no record of an instance; the limit is {MAX_RECORD_BYTES}"
            )
        try:
            record = _Record.model_validate_json(data)
        except ValidationError as error:
            raise ValueError(f"not the record of an instance: {_problems(error)}") from error
        return Instance(**dict(record))


def _problems(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in error.errors()[:5]
    )
