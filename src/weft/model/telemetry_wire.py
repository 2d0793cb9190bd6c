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
