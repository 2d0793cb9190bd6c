"""What agents, sidecars and the control plane say to each other about what is to be seen of a call."""

from __future__ import annotations

DEFAULT_SAMPLING = 1.0
"""Percent of the calls that begin a trace, where nothing says otherwise."""

TRACE_HEADER = "x-weft-trace"
"""Request header by which a caller wants a trace of this one call."""

TRACE_ALWAYS = "always"
"""Its one value."""

RECORD_HEADER = "x-weft-record"
"""Request header by which an agent's Envoy tells it what it is to record of a call; from nobody else."""

RECORD_MESSAGES = "messages"
"""Its one value: what was asked and answered."""

ERROR_LOG = "weft-errors"
"""Access log of calls that failed and have no span: they were not sampled."""

ATTEMPT_LOG = "weft-attempts"
"""Access log of the attempts that failed, of calls that have a span."""

CLUSTER = "telemetry"
"""Envoy's cluster of the control plane's replicas for spans and those logs; it stands in the bootstrap."""

NAMESPACE = "weft"
"""Of the metadata of virtual hosts and routes by which spans, statistics and logs name a destination."""

DESTINATION_KEY = "destination"
"""In it: an agent type, a capability, a pool of models, or a host outside."""

LOG_KEY = "log"
"""In the dynamic metadata of a call: whether a line is to be written of it: `errors` or `all`."""

ACCESS_LINE = "access"
"""What such a line says in `log`."""

CALLS_SCOPE = "weft"
"""Prefix of Envoy's statistics of calls: `weft.calls`, `weft.time_ms`, `weft.call_ms`."""

ALL_CALLS_SCOPE = "weftall"
"""Prefix of the one that counts all calls: `weftall.calls`."""

BUCKETS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 15_000, 60_000, 300_000, 1_000_000_000)
"""Upper bounds of the buckets of `weft.call_ms`, in milliseconds; the last holds all there is."""

VERSION_KEY = "version"
"""In an endpoint's metadata, beside its instance's id: the agent's version."""

TOOL_KEY = "tool"
"""In the dynamic metadata of calls by way of `tools.mesh`: the published name of a tool that there is."""
