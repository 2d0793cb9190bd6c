"""The way out of the mesh: hosts that are none of its own are resolved and forwarded as they are."""

from __future__ import annotations

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.extensions.common.dynamic_forward_proxy.v3.dns_cache_pb2 import DnsCacheConfig

FORWARD_FILTER = "envoy.filters.http.dynamic_forward_proxy"
"""The filter that resolves hosts; off, but where a route turns it on."""

MAX_HOSTS = 1024
"""How many outside hosts one sidecar keeps resolved."""


def dns_cache() -> DnsCacheConfig:
    """The cache of resolved hosts: the filter and the cluster must name the same one."""
    cache = DnsCacheConfig(name="forward", dns_lookup_family=Cluster.V4_PREFERRED)
    cache.max_hosts.value = MAX_HOSTS
    return cache
