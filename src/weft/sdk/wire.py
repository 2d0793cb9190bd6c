"""The HTTP contract between agents: paths, headers, media types and limits."""

from __future__ import annotations

from weft.model.call_budget import BUDGET_HEADER
from weft.model.hops import HOPS_HEADER

RPC_PATH = "/rpc"
"""Where an agent takes requests: POST of `{"kind": ..., "payload": {...}}`, answered by `{"result": ...}`."""

HEALTH_PATH = "/health"
"""Where an agent says how it is: 200 healthy, 503 not."""

AGENTS_PATH = "/v1/agents"
"""Where the control plane answers who is in the mesh."""

INBOXES_PATH = "/v1/inboxes"
"""Below which the control plane has, for each agent type, what its agents are sent by A2A."""

ERROR_HEADER = "x-weft-error"
"""On an error: its code, as in weft.errors. An agent's own errors say `agent-failed`."""

REFUSED_HEADER = "x-weft-refused"
"""On an answer to a call that certainly was not processed, so that it may be repeated: the reason."""

CONTEXT_HEADER = "x-weft-context"
"""Which conversation a call belongs to."""

DEADLINE_HEADER = "x-weft-deadline"
"""When the whole call tree must be done: milliseconds since 1970."""

CALLER_HEADER = "x-weft-caller"
"""Who calls, as a SPIFFE ID: set by the callee's Envoy from the caller's certificate, never by the caller."""

IDEMPOTENCY_HEADER = "idempotency-key"
"""Says that the same call may arrive twice and is to be processed once."""

TRACE_HEADER = "traceparent"
"""W3C trace context: which trace, that is call tree, a call belongs to, and below which span."""

BAGGAGE_HEADER = "baggage"
"""W3C baggage: what its beginner gives a call tree to carry along."""

FORWARDED_HEADERS = (
    CONTEXT_HEADER,
    DEADLINE_HEADER,
    BUDGET_HEADER,
    HOPS_HEADER,
    TRACE_HEADER,
    "tracestate",
    BAGGAGE_HEADER,
)
"""Headers of the request being handled that go along with the calls made to handle it."""

JSON = "application/json"
EVENT_STREAM = "text/event-stream"

MAX_REQUEST_BYTES = 10 * 1024 * 1024
"""An agent's default limit on the body of a request."""

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""What a client reads of one answer at most."""

MAX_EVENT_BYTES = 10 * 1024 * 1024
"""What a client reads of one event of a stream at most."""

MAX_KEY_LENGTH = 255
"""Longest Idempotency-Key, in characters."""
