"""What Envoy's access logs tell of calls to models, read strictly: a sidecar can only tell of itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from envoy.data.accesslog.v3.accesslog_pb2 import AccessLogType

from weft.controlplane.llm.asks import BYTES_PER_TOKEN, MAX_COUNT, MAX_VALUE_LENGTH
from weft.controlplane.llm.call import Attempt, Ended, Usage
from weft.controlplane.llm.call_ids import is_of
from weft.controlplane.llm.peers import Peer
from weft.controlplane.llm.rate_limit_news import rate_limit_news
from weft.model.llm_wire import (
    CALL_HEADER,
    METADATA,
    NEVER_LEASED,
    PROVIDER_HEADER,
    parse_order_cluster,
    parse_provider_cluster,
)
from weft.model.model_pool import ModelPool

LONGEST: Final = 86_400.0
"""Seconds; a call that Envoy says took longer is taken to have taken this."""

BYTES_PER_STREAMED_TOKEN: Final = 256
"""Of a streamed answer, roughly: most of an event is not its text."""

Pools = Mapping[str, ModelPool]

STILL_RUNS = frozenset(
    {
        AccessLogType.DownstreamPeriodic,
        AccessLogType.DownstreamStart,
        AccessLogType.UpstreamPeriodic,
        AccessLogType.UpstreamPoolReady,
    }
)
"""Kinds of entries about calls that have not ended yet."""

_BROKEN = (
    "upstream_connection_termination",
    "upstream_remote_reset",
    "upstream_protocol_error",
    "upstream_request_timeout",
    "upstream_max_stream_duration_reached",
    "stream_idle_timeout",
    "duration_timeout",
    "local_reset",
)
"""Response flags that say, of an answer that had begun, that it broke off on the provider's side."""
_LEFT = ("downstream_connection_termination", "downstream_remote_reset")


def call_under_way(entry: Any, peer: Peer) -> str | None:
    """The id of the call that an entry is about, which has not ended yet; None: it has, or it has no id."""
    common = entry.common_properties
    if not common.intermediate_log_entry and common.access_log_type not in STILL_RUNS:
        return None
    return _call_id(entry, peer)


def still_runs(entry: Any) -> bool:
    """Whether the call that an entry is about has not ended yet."""
    common = entry.common_properties
    return bool(common.intermediate_log_entry) or common.access_log_type in STILL_RUNS


def ended_call(entry: Any, peer: Peer, pools: Pools, now: float) -> Ended | None:
    """How the call ended that an entry of ACCESS_LOG is about.

    None if it is about no call to a pool, or names a call that `peer` was not given.
    """
    common, response = entry.common_properties, entry.response
    fields = _fields(common)
    pool = pools.get(_text(fields, "pool"))
    call_id = _call_id(entry, peer)
    if pool is None or (call_id is None and _text(fields, "call")):
        return None
    headers = response.response_headers
    took = min(
        _seconds(common, "duration") or _seconds(common, "time_to_last_downstream_tx_byte") or 0.0, LONGEST
    )
    status = response.response_code.value if response.HasField("response_code") else 0
    flags = common.response_flags if common.HasField("response_flags") else None
    cancelled = flags is not None and any(getattr(flags, each) for each in _LEFT)
    provider = _provider(headers, common, pool)
    begun = _seconds(common, "time_to_first_upstream_rx_byte")
    sent = _seconds(common, "time_to_first_upstream_tx_byte")
    return Ended(
        call_id=call_id,
        pool=pool.name,
        provider=provider,
        status=status,
        started=now - took,
        ended=now,
        first_token=_first_token(fields, begun, sent),
        usage=_usage(fields),
        broken=_number(fields, "broken") == 1
        or (
            flags is not None
            and not cancelled
            and begun is not None
            and any(getattr(flags, each) for each in _BROKEN)
        ),
        cancelled=cancelled,
        estimated_tokens=_estimate(fields, pool, response.response_body_bytes),
        sidecar=peer.sidecar,
        agent_type=peer.agent_type,
        tenant=_tenant(fields, peer, pool),
        model=_text(fields, "model") or pool.name,
        streaming=_number(fields, "stream") == 1,
        context=_text(fields, "context") or None,
        key=_text(fields, "key") or None,
        news=rate_limit_news(headers, now),
    )


def broken_off(entry: Any, pools: Pools, now: float) -> Attempt | None:
    """The attempt that failed, if only the entry of its call tells: its own has nothing to be known by.

    One is that before the last, of which the stream guard tells that it broke off without a single event;
    the other the last, if it was given up for want of an answer.
    """
    common = entry.common_properties
    fields = _fields(common)
    if not common.HasField("response_flags") and "failed" not in fields:
        return None
    pool = pools.get(_text(fields, "pool"))
    if pool is None:
        return None
    failed: str | None = _text(fields, "failed")
    if not failed and common.response_flags.upstream_request_timeout and not _answered(common):
        failed = _provider(entry.response.response_headers, common, pool)
    return None if not failed or pool.provider(failed) is None else Attempt(pool.name, failed, 0, None, now)


def failed_attempt(entry: Any, pools: Pools, now: float) -> Attempt | None:
    """The failed attempt that an entry of ATTEMPT_LOG is about; None if it is about no provider.

    An attempt has none of the call's metadata: where it went says all that is to be known. One that ended
    without a flag and an answer was given up by the caller's side: the client left, or time was up
    (`broken_off` tells of these), which is not the same.
    """
    common, response = entry.common_properties, entry.response
    order = parse_order_cluster(common.upstream_cluster)
    called = order or parse_provider_cluster(common.upstream_cluster)
    pool = pools.get(called[0]) if called is not None else None
    if called is None or pool is None or pool.provider(called[1]) is None:
        return None
    if order is not None and len(pool.providers) > 1:
        return None  # whose turn it was is not said; a single provider has no other cluster
    status = response.response_code.value if response.HasField("response_code") else 0
    # Without a byte of an answer the status is one that Envoy made up.
    answered = _answered(common)
    if not answered and not common.HasField("response_flags"):
        return None
    news = rate_limit_news(response.response_headers, now)
    return Attempt(pool.name, called[1], status if answered else 0, news, now)


def _answered(common: Any) -> bool:
    """Whether a byte of an answer came."""
    return bool(common.HasField("time_to_first_upstream_rx_byte"))


def _fields(common: Any) -> Any:
    return (
        common.metadata.filter_metadata[METADATA].fields
        if METADATA in common.metadata.filter_metadata
        else {}
    )


def _call_id(entry: Any, peer: Peer) -> str | None:
    """The call's id; of a stream on a lease that got one with a further attempt only the answer tells it."""
    call_id = _text(_fields(entry.common_properties), "call") or entry.response.response_headers.get(
        CALL_HEADER
    )
    return call_id if call_id and is_of(call_id, peer.sidecar) else None


def _text(fields: Any, name: str) -> str:
    if name not in fields:
        return ""
    value: str = fields[name].string_value
    return value if len(value) <= MAX_VALUE_LENGTH else ""


def _number(fields: Any, name: str) -> int | None:
    if name not in fields:
        return None
    field = fields[name]
    text: str = field.string_value
    if text:
        return min(int(text), MAX_COUNT) if text.isascii() and text.isdecimal() and len(text) <= 12 else None
    value: float = field.number_value
    return int(value) if 0 <= value <= MAX_COUNT else None


def _usage(fields: Any) -> Usage | None:
    prompt, completion = _number(fields, "prompt_tokens"), _number(fields, "completion_tokens")
    total = _number(fields, "total_tokens")
    if prompt is None and completion is None and total is None:
        return None
    if prompt is None:
        prompt = max(0, (total or 0) - (completion or 0))
    if completion is None:
        completion = max(0, (total or 0) - prompt)
    return Usage(prompt, completion, min(_number(fields, "cached_tokens") or 0, prompt))


def _first_token(fields: Any, begun: float | None, sent: float | None) -> float | None:
    guarded = _number(fields, "begun_us")
    if guarded is not None:
        return guarded / 1e6
    return None if begun is None else max(0.0, begun - (sent or 0.0))


def _estimate(fields: Any, pool: ModelPool, answer_bytes: int) -> int:
    """What the call used, as long as the answer does not say it: of one that was left before its end, say.

    An answer without bound counts as long as is assumed of those, or as long as it has been: it would else
    be the cheaper the later it is left.
    """
    prompt, output = math.ceil((_number(fields, "prompt") or 0) / BYTES_PER_TOKEN), _number(fields, "output")
    tokens = _number(fields, "tokens") or 0
    if tokens >= NEVER_LEASED:
        embeds = _text(fields, "endpoint") == "embeddings"
        tokens = prompt + (output or (0 if embeds else pool.spec.scheduling.assumed_output_tokens))
    if _number(fields, "stream") == 1 and not output:
        tokens = max(tokens, prompt + answer_bytes // BYTES_PER_STREAMED_TOKEN)
    return min(tokens, MAX_COUNT)


def _tenant(fields: Any, peer: Peer, pool: ModelPool) -> str:
    named = _text(fields, "tenant") if pool.spec.scheduling.tenant_header is not None else ""
    return named if named and named.isprintable() else peer.agent_type


def _provider(headers: Mapping[str, str], common: Any, pool: ModelPool) -> str | None:
    """Who was called: as the answer says, or by the cluster, and how many attempts there were."""
    said = headers.get(PROVIDER_HEADER, "")
    if pool.provider(said) is not None:
        return said
    exact = parse_provider_cluster(common.upstream_cluster)
    if exact is not None and exact[0] == pool.name and pool.provider(exact[1]) is not None:
        return exact[1]
    order = parse_order_cluster(common.upstream_cluster)
    if order is None or order[0] != pool.name or pool.provider(order[1]) is None:
        return None
    attempts = pool.order_from(order[1])
    number = common.upstream_request_attempt_count
    return attempts[number - 1] if 1 <= number <= len(attempts) else None


def _seconds(common: Any, name: str) -> float | None:
    if not common.HasField(name):
        return None
    span = getattr(common, name)
    return float(max(0.0, span.seconds + span.nanos / 1e9))
