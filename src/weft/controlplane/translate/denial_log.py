"""What listeners write down, one JSON object a line on Envoy's standard output: whom they refused.

Only refusals are written, so that a call that is allowed costs nothing here. Nothing else goes to Envoy's
standard output, and what comes from a caller is escaped and cut: a caller cannot make up a line. A field
without a value is null. `weft.sidecar.denials` reads it.

| field | what |
|---|---|
| `kind` | `call` (refused by a policy), `dry-run` (would have been), `connection` (refused before a call), |
| | `egress` (the agent's own call, which an Egress does not let out), |
| | `outbound` (the agent's own call of agents without a sidecar, which a policy refuses) |
| `time` | seconds since 1970 |
| `caller` | the URI SANs of its certificate, by commas; of a `connection` they are a claim, no more |
| `peer` | the address that it came from |
| `method`, `path`, `authority` | of the call; the path without its query |
| `details` | Envoy's word for the rule: `rbac_access_denied_matched_policy[only-editors]` |
| `policy` | of a `dry-run`: the policy on trial; null if it is the default. Of an `egress`: `egress/<name>` |
| `reason` | why a connection was refused |
"""

from __future__ import annotations

from envoy.config.accesslog.v3.accesslog_pb2 import AccessLog, AccessLogFilter, GrpcStatusFilter
from envoy.config.core.v3.substitution_format_string_pb2 import SubstitutionFormatString
from envoy.extensions.access_loggers.filters.cel.v3.cel_pb2 import ExpressionFilter
from envoy.extensions.access_loggers.stream.v3.stream_pb2 import StdoutAccessLog

from weft.controlplane.translate.access import DEFAULT_SHADOW_PREFIX
from weft.controlplane.translate.replies import DESTINATION_HEADER

_RBAC = "envoy.filters.http.rbac"
_DENIED = "response.code_details.startsWith('rbac_access_denied')"
_RESULTS = ("shadow_engine_result", f"{DEFAULT_SHADOW_PREFIX}shadow_engine_result")
_NO_IDENTITY = (
    "has(connection.transport_failure_reason) || (has(connection.termination_details) && "
    "connection.termination_details.startsWith('rbac_access_denied'))"
)

_WHO = {
    "time": "%START_TIME(%s.%3f)%",
    "caller": "%DOWNSTREAM_PEER_URI_SAN%",
    "peer": "%DOWNSTREAM_REMOTE_ADDRESS%",
}
_CALL = {
    **_WHO,
    "method": "%REQ(:METHOD):32%",
    "path": "%PATH(NQ:PATH):300%",
    "authority": "%REQ(:AUTHORITY):256%",
}


def call_log() -> list[AccessLog]:
    """What the connection manager writes: calls refused by a policy, or by one that is on trial."""
    trial = {"policy": f"%DYNAMIC_METADATA({_RBAC}:shadow_effective_policy_id):300%"}
    return [
        _log(_forbidden(_DENIED), {"kind": "call", **_CALL, "details": "%RESPONSE_CODE_DETAILS%"}),
        _log(_on_trial(), {"kind": "dry-run", **_CALL, **trial}),
    ]


def egress_log() -> list[AccessLog]:
    """What the outbound connection manager writes: calls that an Egress does not let out."""
    fields = {
        "kind": "egress",
        "time": _WHO["time"],
        "method": _CALL["method"],
        "authority": _CALL["authority"],
        "policy": "%ROUTE_NAME%",
    }
    return [_log(_forbidden("response.code == 403 && xds.route_name.startsWith('egress/')"), fields)]


def outbound_log() -> list[AccessLog]:
    """What the outbound connection manager writes: calls that a policy refuses in place of the callee."""
    fields = {
        "kind": "outbound",
        "time": _WHO["time"],
        "method": _CALL["method"],
        "path": _CALL["path"],
        "destination": f"%REQ({DESTINATION_HEADER}):256%",
        "details": "%RESPONSE_CODE_DETAILS%",
    }
    return [_log(_forbidden(_DENIED), fields)]


def connection_log() -> list[AccessLog]:
    """What the listener writes: connections that showed no identity it could verify."""
    fields = {
        "kind": "connection",
        **_WHO,
        "details": "%CONNECTION_TERMINATION_DETAILS%",
        "reason": "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
    }
    return [_log(_where(_NO_IDENTITY), fields)]


def _where(expression: str) -> AccessLogFilter:
    """What a CEL expression is true of."""
    condition = AccessLogFilter()
    condition.extension_filter.name = "envoy.access_loggers.extension_filters.cel"
    condition.extension_filter.typed_config.Pack(ExpressionFilter(expression=expression))
    return condition


def _forbidden(expression: str) -> AccessLogFilter:
    """Answers of status 403, gRPC's like of it among them, of which a CEL expression is true.

    Evaluating the expression takes some microseconds, which calls that are allowed are not to cost.
    """
    condition = AccessLogFilter()
    status = condition.and_filter.filters.add().grpc_status_filter
    status.statuses.append(GrpcStatusFilter.PERMISSION_DENIED)
    condition.and_filter.filters.append(_where(expression))
    return condition


def _on_trial() -> AccessLogFilter:
    """Calls that a policy, or the default, would have denied if it were not on trial."""
    condition = AccessLogFilter()
    for each in _RESULTS:
        found = condition.or_filter.filters.add().metadata_filter
        found.matcher.filter = _RBAC
        found.matcher.path.add().key = each
        found.matcher.value.string_match.exact = "denied"
        found.match_if_key_not_found.value = False
    return condition


def _log(condition: AccessLogFilter, fields: dict[str, str]) -> AccessLog:
    log = AccessLog(name="envoy.access_loggers.stdout", filter=condition)
    line = SubstitutionFormatString(omit_empty_values=False)
    line.json_format.update(fields)
    log.typed_config.Pack(StdoutAccessLog(log_format=line))
    return log
