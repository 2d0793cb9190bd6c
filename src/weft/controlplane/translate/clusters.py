"""Clusters (CDS): how a caller's Envoy balances over a destination and guards against its failures."""

from __future__ import annotations

from collections.abc import Iterable

from envoy.config.cluster.v3.circuit_breaker_pb2 import CircuitBreakers
from envoy.config.cluster.v3.cluster_pb2 import Cluster, LoadBalancingPolicy
from envoy.config.cluster.v3.outlier_detection_pb2 import OutlierDetection
from envoy.config.common.matcher.v3.matcher_pb2 import MatchPredicate
from envoy.config.core.v3.address_pb2 import Address as EnvoyAddress
from envoy.config.core.v3.address_pb2 import SocketAddress
from envoy.config.core.v3.config_source_pb2 import ApiVersion
from envoy.config.endpoint.v3.endpoint_components_pb2 import Endpoint, LbEndpoint, LocalityLbEndpoints
from envoy.extensions.clusters.dynamic_forward_proxy.v3.cluster_pb2 import ClusterConfig
from envoy.extensions.filters.http.upstream_codec.v3.upstream_codec_pb2 import UpstreamCodec
from envoy.extensions.load_balancing_policies.common.v3.common_pb2 import SlowStartConfig
from envoy.extensions.load_balancing_policies.least_request.v3.least_request_pb2 import LeastRequest
from envoy.extensions.load_balancing_policies.maglev.v3.maglev_pb2 import Maglev
from envoy.extensions.load_balancing_policies.random.v3.random_pb2 import Random
from envoy.extensions.load_balancing_policies.ring_hash.v3.ring_hash_pb2 import RingHash
from envoy.extensions.load_balancing_policies.round_robin.v3.round_robin_pb2 import RoundRobin
from envoy.extensions.load_balancing_policies.subset.v3.subset_pb2 import Subset
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import UInt64Value

from weft.controlplane.translate.destination import Destination, DestinationKind
from weft.controlplane.translate.durations import duration
from weft.controlplane.translate.endpoints import INSTANCE_KEY
from weft.controlplane.translate.forward import dns_cache, without_empty_trace_state
from weft.controlplane.translate.replies import REFUSED_HEADER, UNREACHABLE
from weft.controlplane.translate.tls import control_prefix, secure_cluster, server_prefix
from weft.model.node import Address
from weft.model.spiffe import DEFAULT_TRUST_DOMAIN
from weft.model.traffic import BalancingPolicy, LoadBalancing, OutlierDetectionSettings, TrafficPolicySpec
from weft.model.traffic import CircuitBreaker as CircuitBreakerSettings

CONTROL_CLUSTER = "control"
"""The control plane's API, which agents reach at `http://control.mesh/`."""

FORWARD_CLUSTER = "forward"
"""Hosts outside the mesh, forwarded as they are."""

CONNECT_TIMEOUT = 1.0
"""Seconds to connect to an instance's sidecar: a machine that is gone must not eat the call's own time."""

KEEPALIVE_INTERVAL = 10.0
KEEPALIVE_TIMEOUT = 5.0
"""Seconds between HTTP/2 pings, and for their answer: how a peer that is frozen or cut off is noticed."""

IDLE_TIMEOUT = 300.0
"""Seconds for which a connection to another sidecar is kept unused: less than that one keeps it for."""

CONTEXT_TABLE = 4099
"""Places, a prime number, over which conversations are spread: a few KB. Of more instances than that some get
none."""

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def destination_cluster(
    destination: Destination, policy: TrafficPolicySpec, *, trust_domain: str = DEFAULT_TRUST_DOMAIN
) -> Cluster:
    """The cluster of `destination` under the traffic policy in force for it."""
    cluster = balanced_cluster(destination, policy)
    options = http_options()
    use_http2(options)
    cluster.typed_extension_protocol_options[HTTP_OPTIONS].Pack(options)
    secure_cluster(cluster, server_prefix(destination, trust_domain))
    return cluster


def balanced_cluster(
    destination: Destination, policy: TrafficPolicySpec, *, connect_timeout: float = CONNECT_TIMEOUT
) -> Cluster:
    """The same, but for how its endpoints, which come by EDS, are spoken to."""
    cluster = Cluster(
        name=destination.cluster,
        type=Cluster.EDS,
        connect_timeout=duration(connect_timeout),
        load_balancing_policy=_balancing(destination, policy.load_balancing),
        circuit_breakers=circuit_breakers(policy.circuit_breaker),
    )
    cluster.eds_cluster_config.eds_config.ads.SetInParent()
    cluster.eds_cluster_config.eds_config.resource_api_version = ApiVersion.V3
    # No panic mode: with every instance ejected the error must say so, rather than calls reach dead ones.
    cluster.common_lb_config.healthy_panic_threshold.value = 0
    if policy.outlier_detection.enabled:
        cluster.outlier_detection.CopyFrom(_outlier_detection(policy.outlier_detection))
    return cluster


def control_cluster(apis: Iterable[Address], *, trust_domain: str = DEFAULT_TRUST_DOMAIN) -> Cluster:
    """The cluster of the control plane's own API, which speaks HTTP/1.1."""
    cluster = Cluster(
        name=CONTROL_CLUSTER, type=Cluster.STRICT_DNS, connect_timeout=duration(CONNECT_TIMEOUT)
    )
    cluster.load_assignment.cluster_name = CONTROL_CLUSTER
    cluster.load_assignment.endpoints.append(
        LocalityLbEndpoints(lb_endpoints=[static_endpoint(each) for each in apis])
    )
    secure_cluster(cluster, control_prefix(trust_domain), http2=False)
    return cluster


def forward_cluster() -> Cluster:
    """The cluster of everything outside the mesh."""
    cluster = Cluster(
        name=FORWARD_CLUSTER, lb_policy=Cluster.CLUSTER_PROVIDED, connect_timeout=duration(CONNECT_TIMEOUT)
    )
    cluster.cluster_type.name = "envoy.clusters.dynamic_forward_proxy"
    cluster.cluster_type.typed_config.Pack(ClusterConfig(dns_cache_config=dns_cache()))
    options = HttpProtocolOptions()
    options.explicit_http_config.http_protocol_options.SetInParent()
    # Envoy insists, whether there is TLS or not.
    options.upstream_http_protocol_options.auto_sni = True
    options.upstream_http_protocol_options.auto_san_validation = True
    options.http_filters.add(name="trace state").typed_config.Pack(without_empty_trace_state())
    options.http_filters.add(name="codec").typed_config.Pack(UpstreamCodec())
    cluster.typed_extension_protocol_options[HTTP_OPTIONS].Pack(options)
    return cluster


def static_endpoint(address: Address) -> LbEndpoint:
    """The endpoint at `address`."""
    socket = SocketAddress(address=address.host, port_value=address.port)
    return LbEndpoint(endpoint=Endpoint(address=EnvoyAddress(socket_address=socket)))


def http_options() -> HttpProtocolOptions:
    """What is said of all that agents answer, whatever they speak."""
    options = HttpProtocolOptions()
    options.outlier_detection.error_matcher.CopyFrom(_failures())
    return options


def use_http2(options: HttpProtocolOptions) -> None:
    """Speak HTTP/2, and notice peers that are gone."""
    options.common_http_protocol_options.idle_timeout.CopyFrom(duration(IDLE_TIMEOUT))
    http2 = options.explicit_http_config.http2_protocol_options
    http2.connection_keepalive.interval.CopyFrom(duration(KEEPALIVE_INTERVAL))
    http2.connection_keepalive.timeout.CopyFrom(duration(KEEPALIVE_TIMEOUT))


def _failures() -> MatchPredicate:
    """Which answers speak against an instance: errors, but not that it is busy or about to stop.

    Whom they refuse goes elsewhere anyway; to eject the busy under load would leave yet more to the others.
    """
    predicate = MatchPredicate()
    error, refusal = predicate.and_match.rules.add(), predicate.and_match.rules.add().not_match
    status = error.http_response_headers_match.headers.add(name=":status")
    status.string_match.safe_regex.regex = "5.."
    headers = refusal.http_response_headers_match.headers
    headers.add(name=REFUSED_HEADER, present_match=True)
    headers.add(name=REFUSED_HEADER, invert_match=True).string_match.exact = UNREACHABLE
    return predicate


def _balancing(destination: Destination, settings: LoadBalancing) -> LoadBalancingPolicy:
    balancer = _balancer(settings)
    if destination.by_context:
        return _policy(
            "envoy.load_balancing_policies.maglev", Maglev(table_size=UInt64Value(value=CONTEXT_TABLE))
        )
    if destination.kind is DestinationKind.CAPABILITY or destination.version is not None:
        return balancer
    # Calls to `<instance>.<type>.mesh` name one endpoint; all others fall through to the whole set.
    subset = Subset(fallback_policy=Subset.ANY_ENDPOINT, subset_lb_policy=balancer)
    subset.subset_selectors.add(
        keys=[INSTANCE_KEY],
        single_host_per_subset=True,
        fallback_policy=Subset.LbSubsetSelector.NO_FALLBACK,
    )
    return _policy("envoy.load_balancing_policies.subset", subset)


def _balancer(settings: LoadBalancing) -> LoadBalancingPolicy:
    match settings.policy:
        case BalancingPolicy.ROUND_ROBIN | BalancingPolicy.WEIGHTED:
            # Weighted is round robin too: the weights are in the endpoints.
            round_robin = RoundRobin(slow_start_config=_slow_start(settings))
            return _policy("envoy.load_balancing_policies.round_robin", round_robin)
        case BalancingPolicy.LEAST_CONNECTIONS:
            # A full scan: agents take seconds a call, so the least loaded one is worth finding exactly.
            least = LeastRequest(
                selection_method=LeastRequest.FULL_SCAN, slow_start_config=_slow_start(settings)
            )
            return _policy("envoy.load_balancing_policies.least_request", least)
        case BalancingPolicy.CONSISTENT_HASH:
            return _policy("envoy.load_balancing_policies.ring_hash", RingHash())
        case BalancingPolicy.RANDOM:
            return _policy("envoy.load_balancing_policies.random", Random())


def _policy(name: str, config: Message) -> LoadBalancingPolicy:
    result = LoadBalancingPolicy()
    extension = result.policies.add().typed_extension_config
    extension.name = name
    extension.typed_config.Pack(config)
    return result


def _slow_start(settings: LoadBalancing) -> SlowStartConfig | None:
    if not settings.slow_start:
        return None
    return SlowStartConfig(slow_start_window=duration(settings.slow_start))


def circuit_breakers(settings: CircuitBreakerSettings) -> CircuitBreakers:
    """The limits on what is under way towards one cluster."""
    breakers = CircuitBreakers()
    threshold = breakers.thresholds.add()
    threshold.max_connections.value = settings.max_connections
    threshold.max_pending_requests.value = settings.max_pending_requests
    threshold.max_requests.value = settings.max_requests
    threshold.max_retries.value = settings.max_retries
    return breakers


def _outlier_detection(settings: OutlierDetectionSettings) -> OutlierDetection:
    detection = OutlierDetection(
        interval=duration(settings.interval),
        base_ejection_time=duration(settings.ejection_time),
        split_external_local_origin_errors=True,
    )
    detection.consecutive_5xx.value = settings.consecutive_failures
    detection.consecutive_local_origin_failure.value = settings.consecutive_failures
    detection.max_ejection_percent.value = settings.max_ejected_percent
    # A statistical verdict on few calls is a coin toss, and agents get few calls.
    detection.enforcing_success_rate.value = 0
    detection.enforcing_local_origin_success_rate.value = 0
    detection.enforcing_consecutive_gateway_failure.value = 0
    return detection
