"""Calls on leases in the access logs, of which there are many: those that ended as they should, added up.

Nothing here decides how a call ended: what is not plain is left to `reports`, which says the same of what is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from weft.controlplane.llm.asks import BYTES_PER_TOKEN, MAX_COUNT, MAX_VALUE_LENGTH
from weft.controlplane.llm.call import LeasedEnds
from weft.controlplane.llm.limits import WINDOW
from weft.controlplane.llm.peers import Peer
from weft.controlplane.llm.reports import BYTES_PER_STREAMED_TOKEN, STILL_RUNS, Pools
from weft.model.llm_wire import METADATA, NEVER_LEASED, PROVIDER_HEADER
from weft.model.model_pool import ModelPool

_Key = tuple[str, str, str, str, str, float]


class LeasedLog:
    """Adds up the calls of one batch of entries, all of one sidecar."""

    def __init__(self, peer: Peer, pools: Pools, now: float) -> None:
        """Nothing yet. The entries have come at `now`, in seconds since 1970."""
        self._peer = peer
        self._pools = pools
        self._now = now
        self._found: dict[_Key, LeasedEnds] = {}

    @property
    def ends(self) -> Iterable[LeasedEnds]:
        """What came together."""
        return self._found.values()

    def take(self, entry: Any) -> bool:
        """Add a call; False if the entry is not about one that is plain, and is to be read by `reports`."""
        common, response = entry.common_properties, entry.response
        fields = _plain(common, response)
        if fields is None:
            return False
        prompt, completion = _count(fields, "prompt_tokens"), _count(fields, "completion_tokens")
        tokens = _count(fields, "tokens")
        took = common.duration.seconds + common.duration.nanos / 1e9
        if not prompt or not 0 < tokens < NEVER_LEASED or not 0 < took < WINDOW:
            return False
        if not completion and _count(fields, "total_tokens") != prompt:  # of embeddings it is
            return False
        ends = self._alike(fields, response.response_headers.get(PROVIDER_HEADER, ""))
        if ends is None:
            return False
        if ends.streaming:
            tokens = _streamed(fields, tokens, response.response_body_bytes)
            _note_begin(ends, fields, common)
        ends.calls += 1
        ends.prompt_tokens += prompt
        ends.completion_tokens += completion
        ends.estimated_tokens += tokens
        ends.beyond += max(0, prompt + completion - tokens)
        ends.lengths.append(completion)
        ends.seconds += took
        ends.last_started = max(ends.last_started, self._now - took)
        if "cached_tokens" in fields:
            ends.cached_tokens += min(_count(fields, "cached_tokens"), prompt)
        return True

    def _alike(self, fields: Any, provider: str) -> LeasedEnds | None:
        """Those which the call is to be added to; None if it is like none that there can be."""
        key = (
            fields["pool"].string_value if "pool" in fields else "",
            provider,
            fields["tenant"].string_value if "tenant" in fields else "",
            fields["model"].string_value if "model" in fields else "",
            fields["context"].string_value if "context" in fields else "",
            fields["stream"].number_value if "stream" in fields else 0.0,
        )
        ends = self._found.get(key)
        if ends is None:
            ends = self._begun(key)
            if ends is not None:
                self._found[key] = ends
        return ends

    def _begun(self, key: _Key) -> LeasedEnds | None:
        """Nothing yet of calls that are alike so; None if these are not to be told apart."""
        name, provider, tenant, model, context, streaming = key
        pool = self._pools.get(name)
        if pool is None or pool.provider(provider) is None or streaming not in {0.0, 1.0}:
            return None
        if any(len(each) > MAX_VALUE_LENGTH for each in (tenant, model, context)):
            return None
        return LeasedEnds(
            pool=name,
            provider=provider,
            sidecar=self._peer.sidecar,
            agent_type=self._peer.agent_type,
            tenant=_tenant(tenant, self._peer, pool),
            model=model or name,
            context=context or None,
            streaming=streaming == 1.0,
            ended=self._now,
        )


def _plain(common: Any, response: Any) -> Any | None:
    """The metadata of a call that ended well on a lease, of which there is nothing else to tell; or None."""
    if (
        common.HasField("response_flags")
        or common.intermediate_log_entry
        or common.access_log_type in STILL_RUNS
        or not 200 <= response.response_code.value < 300
        # More than the provider's name: its limits, or the id of a call that had to ask later.
        or len(response.response_headers) != 1
        or METADATA not in common.metadata.filter_metadata
    ):
        return None
    fields = common.metadata.filter_metadata[METADATA].fields
    return None if "call" in fields or "broken" in fields or "failed" in fields else fields


def _tenant(named: str, peer: Peer, pool: ModelPool) -> str:
    if pool.spec.scheduling.tenant_header is None or not named or not named.isprintable():
        return peer.agent_type
    return named


def _count(fields: Any, name: str) -> int:
    """A number that is written as a number; 0: there is none."""
    value: float = fields[name].number_value if name in fields else 0.0
    return int(value) if 0 <= value <= MAX_COUNT else 0


def _streamed(fields: Any, tokens: int, answer_bytes: int) -> int:
    """The estimate of `reports` for a streamed answer."""
    if _count(fields, "output"):
        return tokens
    prompt = math.ceil(_count(fields, "prompt") / BYTES_PER_TOKEN)
    return max(tokens, prompt + answer_bytes // BYTES_PER_STREAMED_TOKEN)


def _note_begin(ends: LeasedEnds, fields: Any, common: Any) -> None:
    """When a streamed answer began."""
    if "begun_us" in fields:
        ends.seconds_to_begin += _count(fields, "begun_us") / 1e6
    elif common.HasField("time_to_first_upstream_rx_byte"):
        begun, sent = common.time_to_first_upstream_rx_byte, common.time_to_first_upstream_tx_byte
        ends.seconds_to_begin += max(0.0, begun.seconds - sent.seconds + (begun.nanos - sent.nanos) / 1e9)
    else:
        return
    ends.begun += 1
