"""What Envoy is answered when it asks about a call, as bytes of ext_proc's ProcessingResponse."""

from __future__ import annotations

import json
import math
from functools import lru_cache
from typing import Final

from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    CommonResponse,
    HeaderMutation,
    HeadersResponse,
    ImmediateResponse,
    ProcessingResponse,
)
from google.protobuf.struct_pb2 import Struct

from weft.controlplane.llm.call import Reason, Refusal
from weft.controlplane.llm.call_ids import LENGTH
from weft.model.llm_wire import CALL_HEADER, CLUSTER_HEADER, METADATA, order_cluster

INVALID: Final = "invalid_request"
"""`code` of what is answered to a call whose headers make no sense."""

_OVERWRITE = HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
_TYPES = {
    400: "invalid_request_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_USELESS_AGAIN = frozenset({Reason.BUDGET, Reason.DEADLINE})
"""Refusals of which clients would think that they may try again at once."""

_ANY_ID: Final = b"#" * LENGTH
"""In no name of a pool or a provider."""


def admitted(call_id: str, pool: str, provider: str) -> bytes:
    """The call `call_id` goes to `pool`, first to `provider`."""
    return _admission(pool, provider).replace(_ANY_ID, call_id.encode())


@lru_cache(maxsize=1024)
def _admission(pool: str, provider: str) -> bytes:
    """That of a call which has _ANY_ID. All ids are as long, so they can be put in its place in the bytes."""
    mutation = HeaderMutation(
        set_headers=[
            _header(CALL_HEADER, _ANY_ID.decode()),
            _header(CLUSTER_HEADER, order_cluster(pool, provider)),
        ]
    )
    response = ProcessingResponse(
        request_headers=HeadersResponse(
            response=CommonResponse(header_mutation=mutation, clear_route_cache=True)
        ),
        dynamic_metadata=_metadata(_ANY_ID.decode()),
    )
    return _encoded(response)


def attempt_admitted(call_id: str) -> bytes:
    """A further attempt of the call `call_id` may be made. Headers go to the provider: none is added."""
    return _encoded(
        ProcessingResponse(request_headers=HeadersResponse(), dynamic_metadata=_metadata(call_id))
    )


def refused(refusal: Refusal) -> bytes:
    """The call is answered with why it does not start."""
    reason = refusal.reason
    kind = "insufficient_quota" if reason is Reason.BUDGET else ""
    headers = {}
    if refusal.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(refusal.retry_after)))
    if reason in _USELESS_AGAIN:
        headers["x-should-retry"] = "false"
    return _error(reason.status, reason.value, refusal.detail, kind, headers)


def invalid(detail: str) -> bytes:
    """The call is answered with what is wrong with its headers."""
    return _error(400, INVALID, detail)


def _error(
    status: int, code: str, message: str, kind: str = "", headers: dict[str, str] | None = None
) -> bytes:
    kind = kind or _TYPES.get(status, "server_error")
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    said = {"content-type": "application/json", "x-weft-error": code, **(headers or {})}
    response = ImmediateResponse(
        headers=HeaderMutation(set_headers=[_header(name, value) for name, value in said.items()]),
        body=json.dumps(body).encode(),
        details=f"weft_llm_{code}",
    )
    response.status.code = status  # any status that HTTP has, though an enum
    return _encoded(ProcessingResponse(immediate_response=response))


def _encoded(response: ProcessingResponse) -> bytes:
    data: bytes = response.SerializeToString()
    return data


def _header(name: str, value: str) -> HeaderValueOption:
    return HeaderValueOption(header=HeaderValue(key=name, raw_value=value.encode()), append_action=_OVERWRITE)


def _metadata(call_id: str) -> Struct:
    metadata = Struct()
    metadata.fields[METADATA].struct_value.fields["call"].string_value = call_id
    return metadata
