"""Lines of calls, where a Telemetry wants some: JSON on the standard output of the caller's Envoy.

The sidecar passes them on. What a caller says in them is escaped and cut. Of headers there are the host, the
conversation and the trace only, of the path what is before the query. A field without a value is left out.

| field | what |
|---|---|
| `log` | `access` |
| `time` | when the call began, seconds since 1970 |
| `destination`, `cluster`, `route`, `version`, `instance`, `tool` | whom it was for, and who answered |
| `method`, `host`, `path` | what was asked for |
| `status`, `error`, `flags`, `details` | how it ended; `status` is 0 where there was no answer |
| `ms`, `attempts`, `sent`, `received` | milliseconds; how often it was tried; bytes of request and answer |
| `trace`, `context` | the ids of trace and conversation |
"""

from __future__ import annotations

from envoy.config.accesslog.v3.accesslog_pb2 import AccessLog, AccessLogFilter
from envoy.config.core.v3.substitution_format_string_pb2 import SubstitutionFormatString
from envoy.data.accesslog.v3.accesslog_pb2 import DownstreamEnd
from envoy.extensions.access_loggers.stream.v3.stream_pb2 import StdoutAccessLog

from weft.controlplane.translate.replies import DESTINATION_HEADER, ERROR_HEADER
from weft.controlplane.translate.trace_logs import failed
from weft.controlplane.translate.tracing import CALLED_CLUSTER, DESTINATION, INSTANCE, PATH, TOOL, VERSION
from weft.model.llm_wire import CONTEXT_HEADER
from weft.model.telemetry import AccessLogging
from weft.model.telemetry_wire import ACCESS_LINE, LOG_KEY, NAMESPACE

_FIELDS = {
    "log": ACCESS_LINE,
    "time": "%START_TIME(%s.%3f)%",
    "destination": DESTINATION,
    "cluster": CALLED_CLUSTER,
    "route": "%ROUTE_NAME%",
    "version": VERSION,
    "instance": INSTANCE,
    "tool": TOOL,
    "method": "%REQ(:METHOD):32%",
    "host": f"%REQ({DESTINATION_HEADER}):256%",
    "path": PATH,
    "status": "%RESPONSE_CODE%",
    "error": f"%RESP({ERROR_HEADER}):64%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "ms": "%DURATION%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "sent": "%BYTES_RECEIVED%",
    "received": "%BYTES_SENT%",
    "trace": "%TRACE_ID%",
    "context": f"%REQ({CONTEXT_HEADER}):200%",
}


def access_log() -> list[AccessLog]:
    """For the outbound listener: all calls of some destinations, of others those that failed."""
    return [
        _log(AccessLogging.ALL, AccessLogFilter()),
        _log(AccessLogging.ERRORS, failed()),
    ]


def _log(which: AccessLogging, which_of_them: AccessLogFilter) -> AccessLog:
    condition = AccessLogFilter()
    wanted = condition.and_filter.filters.add().metadata_filter
    wanted.matcher.filter = NAMESPACE
    wanted.matcher.path.add().key = LOG_KEY
    wanted.matcher.value.string_match.exact = which.value
    wanted.match_if_key_not_found.value = False
    condition.and_filter.filters.add().log_type_filter.types.append(DownstreamEnd)
    if which_of_them.WhichOneof("filter_specifier") is not None:
        condition.and_filter.filters.append(which_of_them)
    line = SubstitutionFormatString(omit_empty_values=True)
    line.json_format.update(_FIELDS)
    log = AccessLog(name="envoy.access_loggers.stdout", filter=condition)
    log.typed_config.Pack(StdoutAccessLog(log_format=line))
    return log
