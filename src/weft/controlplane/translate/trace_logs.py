"""What becomes spans without having been sampled as such: access logs to the control plane.

Calls that failed are told of always, by a log of those that have no span. Attempts that failed are told of
where the call has one. Both carry in their tags what a span would have; `weft.controlplane.telemetry` reads
them.
"""

from __future__ import annotations

from collections.abc import Mapping

from envoy.config.accesslog.v3.accesslog_pb2 import AccessLog, AccessLogFilter, ComparisonFilter
from envoy.config.core.v3.config_source_pb2 import ApiVersion
from envoy.data.accesslog.v3.accesslog_pb2 import DownstreamEnd
from envoy.extensions.access_loggers.filters.cel.v3.cel_pb2 import ExpressionFilter
from envoy.extensions.access_loggers.grpc.v3.als_pb2 import HttpGrpcAccessLogConfig

from weft.controlplane.translate.clusters import CONTROL_CLUSTER
from weft.controlplane.translate.durations import duration
from weft.controlplane.translate.tracing import (
    CALLED_CLUSTER,
    INSTANCE,
    OUTBOUND_TAGS,
    VERSION,
    WANTED_HEADER,
)
from weft.model.telemetry_wire import ATTEMPT_LOG, CLUSTER, ERROR_LOG

FLUSH_INTERVAL = 1.0
"""Seconds, at most, for which an entry waits for others."""

BATCH_BYTES = 64 * 1024
"""Size at which entries do not wait any longer."""

_SAMPLED = "-01"

_ENDED = {
    "http.status_code": "%RESPONSE_CODE%",
    "response_flags": "%RESPONSE_FLAGS%",
    "weft.details": "%RESPONSE_CODE_DETAILS%",
}
_ERROR_TAGS = {
    **OUTBOUND_TAGS,
    **_ENDED,
    "http.method": "%REQ(:METHOD):32%",
    "trace_id": "%TRACE_ID%",
    "span_id": "%SPAN_ID%",
    "parent": f"%REQ({WANTED_HEADER}):64%",
}
_ATTEMPT_TAGS = {
    **_ENDED,
    "traceparent": "%REQ(TRACEPARENT):64%",
    "weft.attempt": "%REQ(X-ENVOY-ATTEMPT-COUNT)%",
    "weft.cluster": CALLED_CLUSTER,
    "weft.version": VERSION,
    "weft.instance": INSTANCE,
    "weft.address": "%UPSTREAM_REMOTE_ADDRESS%",
    "weft.failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
}
_NOT_SAMPLED = (
    f"xds.cluster_name != '{CONTROL_CLUSTER}' && "
    f"(!('traceparent' in request.headers) || !request.headers['traceparent'].endsWith('{_SAMPLED}'))"
)


def error_log() -> AccessLog:
    """Calls that ended with 500 or above, or without an answer, and have no span. One entry a call."""
    condition = AccessLogFilter()
    ended = condition.and_filter.filters.add().log_type_filter
    ended.types.append(DownstreamEnd)
    condition.and_filter.filters.append(failed())
    # Last, since it takes some microseconds. Where Envoy itself answered, there may be no `traceparent`.
    found = condition.and_filter.filters.add().extension_filter
    found.name = "envoy.access_loggers.extension_filters.cel"
    found.typed_config.Pack(ExpressionFilter(expression=_NOT_SAMPLED))
    return _log(ERROR_LOG, condition, _ERROR_TAGS)


def attempt_log() -> AccessLog:
    """Attempts that failed, of calls that have a span; for the router."""
    condition = AccessLogFilter()
    condition.and_filter.filters.append(failed())
    sampled = condition.and_filter.filters.add().header_filter.header
    sampled.name = "traceparent"
    sampled.string_match.suffix = _SAMPLED
    return _log(ATTEMPT_LOG, condition, _ATTEMPT_TAGS)


def failed() -> AccessLogFilter:
    """Calls that ended with 500 or above, or without an answer."""
    condition = AccessLogFilter()
    for op, status in ((ComparisonFilter.GE, 500), (ComparisonFilter.EQ, 0)):
        comparison = condition.or_filter.filters.add().status_code_filter.comparison
        comparison.op = op
        comparison.value.default_value = status
        comparison.value.runtime_key = f"weft.failed.{status}"
    return condition


def _log(name: str, condition: AccessLogFilter, tags: Mapping[str, str]) -> AccessLog:
    config = HttpGrpcAccessLogConfig()
    common = config.common_config
    common.log_name = name
    common.transport_api_version = ApiVersion.V3
    common.grpc_service.envoy_grpc.cluster_name = CLUSTER
    common.buffer_flush_interval.CopyFrom(duration(FLUSH_INTERVAL))
    common.buffer_size_bytes.value = BATCH_BYTES
    for tag, value in tags.items():
        common.custom_tags.add(tag=tag, value=value)
    log = AccessLog(name="envoy.access_loggers.http_grpc", filter=condition)
    log.typed_config.Pack(config)
    return log
