"""What Envoy tells the scheduler of how calls to models went: gRPC access logs, in batches."""

from __future__ import annotations

from envoy.config.accesslog.v3.accesslog_pb2 import AccessLog, AccessLogFilter, ComparisonFilter
from envoy.config.core.v3.config_source_pb2 import ApiVersion
from envoy.extensions.access_loggers.filters.cel.v3.cel_pb2 import ExpressionFilter
from envoy.extensions.access_loggers.grpc.v3.als_pb2 import HttpGrpcAccessLogConfig

from weft.controlplane.translate.durations import duration
from weft.controlplane.translate.llm_errors import is_llm_call
from weft.model.llm_wire import ACCESS_LOG, ATTEMPT_LOG, CALL_HEADER, PROVIDER_HEADER, SCHEDULER_CLUSTER

FLUSH_INTERVAL = 0.05
"""Seconds, at most, for which an entry waits for others."""

BATCH_BYTES = 256 * 1024
"""Size at which entries do not wait any longer: each message costs both sides as much as some entries."""

STILL_RUNS_INTERVAL = 5.0
"""Seconds between two entries that only tell that a call is still under way."""

_LIMITS = (
    "retry-after",
    "retry-after-ms",
    *(
        f"x-ratelimit-{what}-{kind}"
        for what in ("limit", "remaining", "reset")
        for kind in ("requests", "tokens")
    ),
)
"""Headers of answers that tell of a provider's limits."""


def call_log() -> AccessLog:
    """One entry a call, when it is over."""
    return _log(ACCESS_LOG, is_llm_call())


def attempt_log() -> AccessLog:
    """One entry for each attempt that was answered by an error that leads to another, or not at all."""
    condition = AccessLogFilter()
    statuses = condition.and_filter.filters.add().or_filter.filters
    for op, status in ((ComparisonFilter.GE, 500), (ComparisonFilter.EQ, 429), (ComparisonFilter.EQ, 0)):
        comparison = statuses.add().status_code_filter.comparison
        comparison.op = op
        comparison.value.default_value = status
        comparison.value.runtime_key = "weft.llm.attempt"
    # The metadata is the call's, and not there for an attempt. So by the name of the cluster, and last: a CEL
    # expression takes some microseconds.
    provider = condition.and_filter.filters.add().extension_filter
    provider.name = "envoy.access_loggers.extension_filters.cel"
    provider.typed_config.Pack(ExpressionFilter(expression="xds.cluster_name.startsWith('llm/')"))
    return _log(ATTEMPT_LOG, condition)


def _log(name: str, condition: AccessLogFilter) -> AccessLog:
    config = HttpGrpcAccessLogConfig(
        additional_response_headers_to_log=[CALL_HEADER, PROVIDER_HEADER, *_LIMITS],
    )
    common = config.common_config
    common.log_name = name
    common.transport_api_version = ApiVersion.V3
    common.grpc_service.envoy_grpc.cluster_name = SCHEDULER_CLUSTER
    common.buffer_flush_interval.CopyFrom(duration(FLUSH_INTERVAL))
    common.buffer_size_bytes.value = BATCH_BYTES
    log = AccessLog(name="envoy.access_loggers.http_grpc", filter=condition)
    log.typed_config.Pack(config)
    return log
