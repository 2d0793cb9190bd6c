"""The clusters (CDS) behind models: the scheduler, the providers, and the orders in which they are tried."""

from __future__ import annotations

from envoy.config.cluster.v3.circuit_breaker_pb2 import CircuitBreakers
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions

from weft.controlplane.translate.clusters import (
    CONNECT_TIMEOUT,
    HTTP_OPTIONS,
    KEEPALIVE_INTERVAL,
    KEEPALIVE_TIMEOUT,
    static_endpoint,
)
from weft.controlplane.translate.credentials import is_ip
from weft.controlplane.translate.durations import duration
from weft.controlplane.translate.tls import control_prefix, secure_cluster
from weft.model.llm_wire import SCHEDULER_CLUSTER
from weft.model.node import Address
from weft.model.spiffe import DEFAULT_TRUST_DOMAIN

MAX_UNDER_WAY = 1_000_000
"""Calls, or questions about them, that may be under way at once: limits are for the scheduler to set."""


def scheduler_cluster(scheduler: Address | None, *, trust_domain: str = DEFAULT_TRUST_DOMAIN) -> Cluster:
    """The replica of the control plane that schedules; None: nobody, which shows at once."""
    resolved = scheduler is not None and not is_ip(scheduler.host)
    cluster = Cluster(
        name=SCHEDULER_CLUSTER,
        type=Cluster.STRICT_DNS if resolved else Cluster.STATIC,
        connect_timeout=duration(CONNECT_TIMEOUT),
        circuit_breakers=_unlimited(),
    )
    cluster.load_assignment.cluster_name = SCHEDULER_CLUSTER
    if scheduler is not None:
        cluster.load_assignment.endpoints.add().lb_endpoints.append(static_endpoint(scheduler))
    options = HttpProtocolOptions()
    http2 = options.explicit_http_config.http2_protocol_options
    # A scheduler whose machine is gone sends no reset: ask, and let those who wait ask another.
    http2.connection_keepalive.interval.CopyFrom(duration(KEEPALIVE_INTERVAL))
    http2.connection_keepalive.timeout.CopyFrom(duration(KEEPALIVE_TIMEOUT))
    cluster.typed_extension_protocol_options[HTTP_OPTIONS].Pack(options)
    secure_cluster(cluster, control_prefix(trust_domain))
    return cluster


def _unlimited() -> CircuitBreakers:
    breakers = CircuitBreakers()
    threshold = breakers.thresholds.add()
    for each in (
        threshold.max_connections,
        threshold.max_pending_requests,
        threshold.max_requests,
        threshold.max_retries,
    ):
        each.value = MAX_UNDER_WAY
    return breakers
