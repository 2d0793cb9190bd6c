"""What Envoy and the scheduler tell each other about a call to a model: headers, metadata, names of clusters.

Headers marked *mesh* are set by the sidecar's Envoy, whatever the agent sends, and never reach a provider.
"""

from __future__ import annotations

from typing import Final

LLM_HOST: Final = "llm"
"""`http://llm.mesh/v1` is every model of the mesh."""

HEADER_PREFIX: Final = "x-weft-llm-"
"""With this all headers begin that are *mesh*; nobody else's do."""

MODEL_HEADER: Final = "x-weft-llm-model"
"""mesh: the model that is asked for."""

POOL_HEADER: Final = "x-weft-llm-pool"
"""mesh: the pool that serves it."""

TENANT_HEADER: Final = "x-weft-llm-tenant"
"""mesh: the value of the header that the pool's `tenantHeader` names, if it names one and the call has it."""

ENDPOINT_HEADER: Final = "x-weft-llm-endpoint"
"""mesh: which of OpenAI's endpoints is called: `chat`, `completions`, `responses`, `embeddings`."""

STREAM_HEADER: Final = "x-weft-llm-stream"
"""mesh: `1` if the answer is to be streamed, else `0`."""

PROMPT_HEADER: Final = "x-weft-llm-prompt"
"""mesh: bytes of the request's body, by which its tokens are estimated."""

OUTPUT_HEADER: Final = "x-weft-llm-output"
"""mesh: the most tokens that the answer may have (`max_completion_tokens`, `max_tokens` or
`max_output_tokens`, times `n`); `0` where the call does not say."""

TOKENS_HEADER: Final = "x-weft-llm-tokens"
"""mesh: an estimate of the tokens of prompt and answer together, by which leased quota is counted. So large
that no lease has it, where the call must be asked for in any case."""

PREFIX_HEADER: Final = "x-weft-llm-prefix"
"""mesh: a digest of how the prompt begins."""

ASK_HEADER: Final = "x-weft-llm-ask"
"""mesh: set on what exceeds the lease: Envoy asks the scheduler about it."""

CALL_HEADER: Final = "x-weft-llm-call"
"""mesh: the call's id, set by the scheduler with its admission. In answers it stays, for those who look."""

CLUSTER_HEADER: Final = "x-weft-llm-cluster"
"""mesh: the cluster that the scheduler sends the call to."""

PROVIDER_HEADER: Final = "x-weft-llm-provider"
"""In answers: which provider gave it."""

CLASS_HEADER: Final = "x-weft-class"
"""In requests: the class of service the call wants, if less than its tenant's best."""

CONTEXT_HEADER: Final = "x-weft-context"
"""In requests: the conversation that the call belongs to."""

KEY_HEADER: Final = "x-weft-key"
"""In requests: on whose behalf the call is made, where budgets are kept by key."""

DEADLINE_HEADER: Final = "x-weft-deadline"
"""In requests: when the answer is of no use any more, milliseconds since 1970."""

BUDGET_HEADER: Final = "x-weft-budget"
"""In requests: what the call tree (a trace of `traceparent`) and branches of it may spend: see
`weft.model.call_budget`."""

PLACE_HEADER: Final = "x-weft-llm-place"
"""mesh: where in the body of a streamed call the model's name is: first byte, and how many."""

AGAIN_HEADER: Final = "x-weft-llm-again"
"""mesh: who broke off a streamed answer to the call before its first event; the call is to go to the next."""

BEGUN_HEADER: Final = "x-weft-llm-begun-us"
"""mesh: in answers that are streamed, on the way to the stream guard: microseconds until they began."""

MESH_HEADERS: Final = (
    MODEL_HEADER,
    POOL_HEADER,
    TENANT_HEADER,
    ENDPOINT_HEADER,
    STREAM_HEADER,
    PROMPT_HEADER,
    OUTPUT_HEADER,
    TOKENS_HEADER,
    PREFIX_HEADER,
    ASK_HEADER,
    CALL_HEADER,
    CLUSTER_HEADER,
    PLACE_HEADER,
    AGAIN_HEADER,
    BEGUN_HEADER,
)
"""Taken from what agents send, and from what goes to providers."""

METADATA: Final = "weft.llm"
"""Namespace of the dynamic metadata that access logs carry.

Text: `call` (set by the scheduler; absent from calls on a lease), `model`, `pool`, `endpoint`, `tenant` (the
value of the pool's tenantHeader), `context`, `key`. Numbers: `stream` (0 or 1), `prompt` (bytes), `output`
(tokens), `tokens` (the estimate); and from the answer `prompt_tokens`, `completion_tokens`, `total_tokens`,
`cached_tokens`. From the stream guard, where there is one: `broken` (1: the answer broke off midway),
`begun_us` (what BEGUN_HEADER says), and the text `failed` (who broke off before, without a single event).
"""

ACCESS_LOG: Final = "llm"
"""Name of the access log that tells the scheduler how calls ended, one entry a call."""

ATTEMPT_LOG: Final = "llm-attempt"
"""Name of the access log of attempts that failed, one entry an attempt."""

SCHEDULER_CLUSTER: Final = "scheduler"
"""Envoy's cluster of the control plane replica that schedules."""

LEASE_FILTER: Final = "llm-lease"
"""Name of the filter, and of the ECDS resource, that holds a sidecar's leases."""

STREAMS: Final = "llm-streams"
"""Envoy's internal listener behind the stream guard, and the cluster that leads to it."""

NEVER_LEASED: Final = 1_000_000_000
"""Value of `x-weft-llm-tokens` that no lease covers."""


def order_cluster(pool: str, first: str) -> str:
    """The cluster that sends a call to the provider `first` of a pool, and to the others when that fails."""
    return f"llm/{pool}/{first}"


def provider_cluster(pool: str, provider: str) -> str:
    """The cluster of one provider of a pool that has several; a single one has no other than its order."""
    return f"provider/{pool}/{provider}"


def parse_order_cluster(name: str) -> tuple[str, str] | None:
    """Pool and first provider of a cluster that `order_cluster` named."""
    prefix, _, rest = name.partition("/")
    pool, _, first = rest.partition("/")
    return (pool, first) if prefix == "llm" and pool and first else None


def parse_provider_cluster(name: str) -> tuple[str, str] | None:
    """Pool and provider of a cluster that `provider_cluster` named."""
    prefix, _, rest = name.partition("/")
    pool, _, provider = rest.partition("/")
    return (pool, provider) if prefix == "provider" and pool and provider else None
