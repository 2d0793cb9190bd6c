"""Leases in Envoy (ECDS): what a sidecar may send to models without asking.

The filter refuses nothing. It marks what exceeds the lease, and what is marked is asked for. A bucket holds
what was granted and does not fill again before the next lease, which comes with buckets of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from envoy.config.core.v3.config_source_pb2 import ApiVersion
from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.extensions.common.ratelimit.v3.ratelimit_pb2 import LocalRateLimitDescriptor
from envoy.extensions.filters.http.local_ratelimit.v3.local_rate_limit_pb2 import LocalRateLimit
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpFilter
from envoy.type.v3.token_bucket_pb2 import TokenBucket

from weft.controlplane.translate.durations import duration
from weft.controlplane.translate.replies import header
from weft.model.llm_lease import Grant, Lease
from weft.model.llm_wire import ASK_HEADER, LEASE_FILTER, POOL_HEADER, TOKENS_HEADER

NO_POOL = "-"
"""Value of POOL_HEADER for what is no call to a pool: a question which models there are, or a mistake."""

_NEVER = 3600.0
"""Seconds until a bucket fills again: by then it is long replaced, or its sidecar has lost the mesh."""

_REQUESTS = "requests"
_TOKENS = "tokens"

_UNASKED = "unasked"
_ENDLESS = 2**32 - 1
_TOO_FEW = 1
"""Tokens of which every call needs more."""


def lease_filter() -> HttpFilter:
    """The filter, off until a route turns it on; before it has been given a lease, nothing is leased."""
    result = HttpFilter(name=LEASE_FILTER, disabled=True)
    discovery = result.config_discovery
    discovery.config_source.ads.SetInParent()
    discovery.config_source.resource_api_version = ApiVersion.V3
    discovery.apply_default_config_without_warming = True
    discovery.default_config.Pack(_limits("0", {}))
    discovery.type_urls.append(f"type.googleapis.com/{LocalRateLimit.DESCRIPTOR.full_name}")
    return result


def lease_config(pools: Iterable[str], lease: Lease | None) -> TypedExtensionConfig:
    """What ECDS gives to a sidecar that has these `pools`; None: nothing is leased."""
    granted = {} if lease is None else {each.pool: each for each in lease.grants}
    # The number is in it, since Envoy keeps its buckets, however empty, when it gets what it has.
    limits = _limits("0" if lease is None else str(lease.number), {each: granted.get(each) for each in pools})
    result = TypedExtensionConfig(name=LEASE_FILTER)
    result.typed_config.Pack(limits)
    return result


def _limits(number: str, grants: Mapping[str, Grant | None]) -> LocalRateLimit:
    limits = LocalRateLimit(stat_prefix="llm_lease")
    limits.filter_enabled.default_value.numerator = 100
    limits.filter_enforced.default_value.numerator = 0
    limits.always_consume_default_token_bucket.value = False
    # For pools that it has not heard of.
    limits.token_bucket.CopyFrom(_bucket(_TOO_FEW))
    limits.request_headers_to_add_when_not_enforced.append(header(ASK_HEADER, number))
    for what in (_REQUESTS, _TOKENS):
        rule = limits.rate_limits.add()
        action = rule.actions.add().request_headers
        action.header_name, action.descriptor_key = POOL_HEADER, what
        # What is asked for in any case does not use up the lease.
        unasked = rule.actions.add().header_value_match
        unasked.descriptor_value, unasked.expect_match.value = _UNASKED, False
        unasked.headers.add(name=ASK_HEADER, present_match=True)
        if what == _TOKENS:
            rule.hits_addend.format = f"%REQ({TOKENS_HEADER})%"
    limits.descriptors.append(_descriptor(_REQUESTS, NO_POOL, _ENDLESS))
    limits.descriptors.append(_descriptor(_TOKENS, NO_POOL, _ENDLESS))
    for pool, grant in grants.items():
        if grant is not None and grant.requests > 0:
            limits.descriptors.append(_descriptor(_REQUESTS, pool, grant.requests))
            limits.descriptors.append(_descriptor(_TOKENS, pool, max(grant.tokens, _TOO_FEW)))
        else:
            limits.descriptors.append(_descriptor(_TOKENS, pool, _TOO_FEW))
    return limits


def _descriptor(what: str, pool: str, amount: int) -> LocalRateLimitDescriptor:
    result = LocalRateLimitDescriptor(token_bucket=_bucket(amount))
    result.entries.add(key=what, value=pool)
    result.entries.add(key="header_match", value=_UNASKED)
    return result


def _bucket(amount: int) -> TokenBucket:
    bucket = TokenBucket(max_tokens=min(amount, _ENDLESS), fill_interval=duration(_NEVER))
    bucket.tokens_per_fill.value = 1
    return bucket
