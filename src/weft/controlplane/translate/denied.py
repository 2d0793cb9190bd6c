"""What a callee's Envoy answers to a call that an AccessPolicy does not allow."""

from __future__ import annotations

from collections.abc import Iterator

from envoy.config.accesslog.v3.accesslog_pb2 import AccessLogFilter
from envoy.extensions.access_loggers.filters.cel.v3.cel_pb2 import ExpressionFilter
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    ResponseMapper,
)

from weft.controlplane.translate.replies import (
    DESTINATION_HEADER,
    ERROR_HEADER,
    POLICY_HEADER,
    header,
    problem_format,
)
from weft.errors import Denied, InvalidRequest, MeshError
from weft.model.decision import AMBIGUOUS, REVOKED

_MATCHED = "rbac_access_denied_matched_policy["
_NO_POLICY = "none"
# The filter leaves the name in its metadata too, but only after the answer is made.
_POLICY = r"%CEL(re.extract(response.code_details, '.*[[](.*)[]]', '\\1'))%"


ROUTE_METADATA = "weft.access"
"""The namespace of what a route's metadata tells these answers."""

DEFAULT_KEY = "default"
"""There: the name of the policy that sets the mesh-wide default."""

_DEFAULT = f"%METADATA(ROUTE:{ROUTE_METADATA}:{DEFAULT_KEY})%"


def denied_replies(agent_type: str) -> Iterator[ResponseMapper]:
    """The answers of agents of a type.

    They have no `x-weft-refused`: another instance would say the same.
    """
    who = f"'%DOWNSTREAM_PEER_URI_SAN%' may not make this call to '{agent_type}'"
    yield from _of_named_policies(who)
    yield _mapper(
        _by(_NO_POLICY),
        Denied,
        f"{who}: no AccessPolicy allows it, and the mesh-wide default ('{_DEFAULT}') is to deny; "
        "see why with 'weft can'",
        f"accesspolicy/{_DEFAULT}",
    )
    yield _of_any_policy(who)
    yield _mapper(
        "response.code_details == 'request_payload_too_large'",
        InvalidRequest,
        f"policies for '{agent_type}' depend on what the body says, and this one is too large to be read",
        status=413,
    )


def outbound_denied_replies() -> Iterator[ResponseMapper]:
    """The answers to an agent's own calls of agents without a sidecar, which its own Envoy gives."""
    who = f"this agent may not make this call to '%REQ({DESTINATION_HEADER})%'"
    yield from _of_named_policies(who)
    yield _of_any_policy(who)


def _of_named_policies(who: str) -> Iterator[ResponseMapper]:
    yield _mapper(_by(REVOKED), Denied, f"{who}: its identity has been revoked", REVOKED)
    yield _mapper(
        _by(AMBIGUOUS),
        Denied,
        f"{who}: policies for it depend on paths, and this one can be read in two ways; "
        "write it in its normal form, without '//', '..', ';' and needless escapes",
        AMBIGUOUS,
    )


def _of_any_policy(who: str) -> ResponseMapper:
    return _mapper(
        f"response.code_details.startsWith('{_MATCHED}')",
        Denied,
        f"{who}: AccessPolicy '{_POLICY}' denies it; see why with 'weft can'",
        f"accesspolicy/{_POLICY}",
    )


def _by(policy: str) -> str:
    return f"response.code_details == '{_MATCHED}{policy}]'"


def _mapper(
    condition: str, error: type[MeshError], detail: str, policy: str = "", *, status: int = 0
) -> ResponseMapper:
    mapper = ResponseMapper(
        filter=AccessLogFilter(),
        body_format_override=problem_format(error, detail),
        headers_to_add=[header(ERROR_HEADER, error.code)],
    )
    mapper.filter.extension_filter.name = "envoy.access_loggers.extension_filters.cel"
    mapper.filter.extension_filter.typed_config.Pack(ExpressionFilter(expression=condition))
    mapper.status_code.value = status or error.status
    if policy:
        mapper.headers_to_add.append(header(POLICY_HEADER, policy))
    return mapper
