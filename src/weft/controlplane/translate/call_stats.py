"""What Envoy counts of the calls of its agent: how many, how they ended, how long they took.

By whom they were for; the sidecar reads it. All values come from the configuration, the codes aside, which
the called agent chooses. So their number is bounded, and beyond that only the counter without tags counts. In
Envoy's text output names and values run together, so the tags' names have a character that no value has.

| tag | what |
|---|---|
| `@d` | the destination: an agent type, a capability, a pool of models, a host outside |
| `@k` | the cluster, from which its kind can be read |
| `@v` | the version of the instance that answered |
| `@r` | the route |
| `@t` | the tool, of calls by way of `tools.mesh` |
| `@c` | the status; `0` without an answer |
| `@f` | Envoy's response flags; `-` without any |
"""

from __future__ import annotations

from typing import Any

from envoy.config.accesslog.v3.accesslog_pb2 import AccessLog
from envoy.data.accesslog.v3.accesslog_pb2 import DownstreamEnd

from weft.controlplane.translate.tracing import CALLED_CLUSTER, DESTINATION, TOOL, VERSION
from weft.controlplane.translate.typed_struct import typed_struct
from weft.model.telemetry_wire import ALL_CALLS_SCOPE, CALLS_SCOPE

MAX_COUNTERS = 4000
"""Combinations that are counted, at most; a stop for what nobody thought of."""

MAX_HISTOGRAMS = 1000

_WHOM = {"@d": DESTINATION, "@k": CALLED_CLUSTER, "@v": VERSION, "@r": "%ROUTE_NAME%", "@t": TOOL}
_HOW = {"@c": "%RESPONSE_CODE%", "@f": "%RESPONSE_FLAGS%"}
_LOGGER = "envoy.extensions.access_loggers.stats.v3.Config"


def call_stats() -> list[AccessLog]:
    """Counts every call once, when it has ended."""
    scope = {
        "prefix": CALLS_SCOPE,
        "max_counters": MAX_COUNTERS,
        "max_histograms": MAX_HISTOGRAMS,
    }
    tagged = {
        "stats_scope": scope,
        "counters": [
            {"stat": _stat("calls", {**_WHOM, **_HOW}), "value_fixed": 1},
            {"stat": _stat("time_ms", _WHOM), "value_format": "%DURATION%"},
        ],
        "histograms": [
            {"stat": _stat("call_ms", _WHOM), "unit": "Milliseconds", "value_format": "%DURATION%"}
        ],
    }
    everything = {
        "stats_scope": {"prefix": ALL_CALLS_SCOPE, "max_counters": 1},
        "counters": [{"stat": _stat("calls", {}), "value_fixed": 1}],
    }
    return [_log(tagged), _log(everything)]


def _stat(name: str, tags: dict[str, str]) -> dict[str, Any]:
    return {
        "name": name,
        "tags": [{"name": each, "value_format": value} for each, value in tags.items()],
    }


def _log(config: dict[str, Any]) -> AccessLog:
    log = AccessLog(name="envoy.access_loggers.stats")
    # A call that goes on is told of every few seconds, too.
    log.filter.log_type_filter.types.append(DownstreamEnd)
    log.typed_config.Pack(typed_struct(_LOGGER, config))
    return log
