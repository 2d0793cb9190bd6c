"""What Envoy itself answers when a call fails: RFC 9457 problem details, with the codes of weft.errors."""

from __future__ import annotations

from dataclasses import dataclass

from envoy.config.accesslog.v3.accesslog_pb2 import AccessLogFilter, ComparisonFilter, ResponseFlagFilter
from envoy.config.core.v3.base_pb2 import HeaderValueOption
from envoy.config.core.v3.substitution_format_string_pb2 import SubstitutionFormatString
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    LocalReplyConfig,
    ResponseMapper,
)

from weft.errors import (
    PROBLEM_MEDIA_TYPE,
    PROBLEM_TYPE_PREFIX,
    AgentFailed,
    Interrupted,
    InvalidRequest,
    MeshError,
    NoHealthyAgent,
    NoSuchAgent,
    NotFound,
    Refused,
    TimedOut,
    Unavailable,
)

ERROR_HEADER = "x-weft-error"
"""On an error made by the mesh: the code of the error, as in weft.errors."""

REFUSED_HEADER = "x-weft-refused"
"""On an answer to a call that certainly was not processed, so that it may be repeated: the reason."""

UNREACHABLE = "unreachable"
"""Value of that header where the callee's Envoy could not connect to its agent."""

DESTINATION_HEADER = "x-weft-destination"
"""On a request inside the caller's Envoy: the name it is addressed to. Never trusted from outside."""

POLICY_HEADER = "x-weft-policy"
"""On a refusal: what refused, as in `egress/default`."""

CALLER_HEADER = "x-weft-caller"
"""On a request to an agent: the caller's SPIFFE ID, as its certificate says. Never trusted from outside."""

_DESTINATION = f"%REQ({DESTINATION_HEADER})%"


@dataclass(frozen=True, slots=True)
class _Reply:
    """What to answer when Envoy sets one of `flags` (its response flags)."""

    flags: tuple[str, ...]
    error: type[MeshError]
    detail: str
    refused: str = ""
    """The value of `x-weft-refused`, where the call certainly was not processed."""


_OUTBOUND = (
    _Reply(
        ("UH",),
        NoHealthyAgent,
        f"no healthy agent for '{_DESTINATION}': none of its instances can take a call now; "
        "see which there are with 'weft agents'",
    ),
    _Reply(
        ("UF",),
        NoHealthyAgent,
        f"nothing could be connected to at '{_DESTINATION}' (%UPSTREAM_TRANSPORT_FAILURE_REASON%); "
        "see with 'weft agents' which instances there are",
    ),
    _Reply(
        ("UO",),
        Refused,
        f"too many calls to '{_DESTINATION}' are under way from here; "
        "slow down, or raise circuitBreaker in its TrafficPolicy",
    ),
    _Reply(
        ("UT",),
        TimedOut,
        f"'{_DESTINATION}' did not answer in time; if it needs longer, raise timeout in its TrafficPolicy",
    ),
    _Reply(("SI",), TimedOut, f"the stream from '{_DESTINATION}' was silent for longer than its idleTimeout"),
    _Reply(
        ("UC", "UR", "LR", "UPE"),
        Interrupted,
        f"the connection to '{_DESTINATION}' broke midway: the call may or may not have been processed; "
        "send an Idempotency-Key to have such calls repeated",
    ),
    _Reply(("FI",), AgentFailed, f"a Route of '{_DESTINATION}' injected this fault"),
    _Reply(
        ("NR", "NC"), NoSuchAgent, f"the mesh knows no '{_DESTINATION}'; see what it knows with 'weft agents'"
    ),
    _Reply(("DF",), Unavailable, f"the host '{_DESTINATION}' could not be resolved"),
)

_INBOUND = (
    _Reply(
        ("UF", "UH", "UO"),
        Refused,
        "the sidecar could not connect to its agent: it is not listening (any more)",
        refused=UNREACHABLE,
    ),
    _Reply(
        ("UC", "UR", "LR", "UPE"),
        Interrupted,
        "the agent closed the connection midway: the call may or may not have been processed; "
        "send an Idempotency-Key to have such calls repeated",
    ),
)


def outbound_replies() -> LocalReplyConfig:
    """What a caller's Envoy answers its own agent."""
    return LocalReplyConfig(mappers=[_mapper(reply) for reply in _OUTBOUND])


def inbound_replies() -> LocalReplyConfig:
    """What the Envoy beside the called agent answers the caller's."""
    return LocalReplyConfig(mappers=[_mapper(reply) for reply in _INBOUND])


def outside_replies(max_body_bytes: int) -> LocalReplyConfig:
    """What a gateway's Envoy answers callers from outside, where neither agent nor gateway did."""
    return LocalReplyConfig(
        mappers=[
            _status_mapper(408, InvalidRequest, "the request did not come in time"),
            _status_mapper(413, InvalidRequest, f"the body is larger than {max_body_bytes} bytes"),
            _status_mapper(
                404,
                NotFound,
                "a gateway serves /v1/tasks, /v1/topics/TOPIC and POST /v1/agents/TYPE; see /docs",
            ),
            _status_mapper(503, Unavailable, "the gateway's process does not answer; try again"),
        ]
    )


def _status_mapper(status: int, error: type[MeshError], detail: str) -> ResponseMapper:
    """For what Envoy itself answers with `status`: only that is mapped, never what an upstream answered."""
    condition = AccessLogFilter()
    condition.status_code_filter.comparison.op = ComparisonFilter.EQ
    condition.status_code_filter.comparison.value.default_value = status
    condition.status_code_filter.comparison.value.runtime_key = f"weft.outside.{status}"
    return ResponseMapper(
        filter=condition,
        body_format_override=problem_format(error, detail),
        headers_to_add=[header(ERROR_HEADER, error.code)],
    )


def problem_format(
    error: type[MeshError], detail: str, *, status: str | int = "%RESPONSE_CODE%"
) -> SubstitutionFormatString:
    """A body in RFC 9457's form; `detail` and `status` may hold Envoy's command operators."""
    body = SubstitutionFormatString(content_type=PROBLEM_MEDIA_TYPE)
    body.json_format.update(
        {
            "type": PROBLEM_TYPE_PREFIX + error.code,
            "title": error.title(),
            "status": status,
            "detail": detail,
        }
    )
    return body


def header(name: str, value: str) -> HeaderValueOption:
    """Set a header, replacing what was there."""
    option = HeaderValueOption(append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD)
    option.header.key = name
    option.header.value = value
    return option


def _mapper(reply: _Reply) -> ResponseMapper:
    mapper = ResponseMapper(
        filter=AccessLogFilter(response_flag_filter=ResponseFlagFilter(flags=list(reply.flags))),
        body_format_override=problem_format(reply.error, reply.detail),
        headers_to_add=[header(ERROR_HEADER, reply.error.code)],
    )
    if "FI" not in reply.flags:  # an injected fault has the status its Route gives it
        mapper.status_code.value = reply.error.status
    if reply.refused:
        mapper.headers_to_add.append(header(REFUSED_HEADER, reply.refused))
    return mapper
