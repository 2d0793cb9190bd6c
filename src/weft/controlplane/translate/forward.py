"""The way out of the mesh: hosts that are none of its own are resolved and forwarded as they are."""

from __future__ import annotations

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.base_pb2 import HeaderValueOption
from envoy.extensions.common.dynamic_forward_proxy.v3.dns_cache_pb2 import DnsCacheConfig
from envoy.extensions.filters.http.header_mutation.v3.header_mutation_pb2 import HeaderMutation

from weft.controlplane.translate.replies import header

FORWARD_FILTER = "envoy.filters.http.dynamic_forward_proxy"
"""The filter that resolves hosts; off, but where a route turns it on."""

MAX_HOSTS = 1024
"""How many outside hosts one sidecar keeps resolved."""


def dns_cache() -> DnsCacheConfig:
    """The cache of resolved hosts: the filter and the cluster must name the same one."""
    cache = DnsCacheConfig(name="forward", dns_lookup_family=Cluster.V4_PREFERRED)
    cache.max_hosts.value = MAX_HOSTS
    return cache


_TRACE_STATE = "tracestate"
_KEPT = "x-weft-tracestate"


def without_empty_trace_state() -> HeaderMutation:
    """A filter of clusters outside the mesh: Envoy's tracer sends an empty `tracestate` where there is none.

    It says nothing, and some of those who are not ours cannot read a header without a value.
    """
    mutation = HeaderMutation()
    changes = mutation.mutations
    changes.request_mutations.add().append.CopyFrom(_moved(_TRACE_STATE, _KEPT))
    changes.request_mutations.add().remove = _TRACE_STATE
    changes.request_mutations.add().append.CopyFrom(_moved(_KEPT, _TRACE_STATE))
    changes.request_mutations.add().remove = _KEPT
    return mutation


def _moved(name: str, to: str) -> HeaderValueOption:
    """Have the value of a header, if it has one, under another name."""
    return header(to, f"%REQ({name})%")
