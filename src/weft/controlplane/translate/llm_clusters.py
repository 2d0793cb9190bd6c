"""The clusters (CDS) behind models: the scheduler, the providers, and the orders in which they are tried."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from envoy.config.cluster.v3.circuit_breaker_pb2 import CircuitBreakers
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.extensions.filters.http.header_mutation.v3.header_mutation_pb2 import HeaderMutation
from envoy.extensions.filters.http.lua.v3.lua_pb2 import Lua
from envoy.extensions.filters.http.upstream_codec.v3.upstream_codec_pb2 import UpstreamCodec
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions
from google.protobuf.message import Message

from weft.controlplane.translate.clusters import (
    CONNECT_TIMEOUT,
    HTTP_OPTIONS,
    KEEPALIVE_INTERVAL,
    KEEPALIVE_TIMEOUT,
    static_endpoint,
)
from weft.controlplane.translate.composite_cluster import composite_of
from weft.controlplane.translate.credentials import CONNECT_TIMEOUT as OUTSIDE_CONNECT_TIMEOUT
from weft.controlplane.translate.credentials import IDLE_TIMEOUT, credential_injector, outside_tls
from weft.controlplane.translate.durations import duration
from weft.controlplane.translate.llm_asking import ATTEMPT_HEADER, ask_for_attempts, by_attempt
from weft.controlplane.translate.llm_pools import is_adapted, key_name, renamed
from weft.controlplane.translate.llm_scripts import provider_script
from weft.controlplane.translate.tls import control_prefix, secure_cluster
from weft.controlplane.translate.tracing import WANTED_HEADER
from weft.model.llm_wire import METADATA, SCHEDULER_CLUSTER, order_cluster, provider_cluster
from weft.model.model_pool import ModelPool, Preset, Provider
from weft.model.node import Address
from weft.model.outside_host import is_ip
from weft.model.spiffe import DEFAULT_TRUST_DOMAIN

MAX_UNDER_WAY = 1_000_000
"""Calls, or questions about them, that may be under way at once: limits are for the scheduler to set."""

AZURE_API_VERSION = "2024-10-21"
"""The `api-version` of Azure OpenAI where a provider does not say another."""

_OWN_IDLE_TIMEOUT = 1.5
"""Seconds for which an idle connection without TLS is kept: the servers people run themselves (uvicorn, say)
close theirs after 5 or 2, and a call that meets that is lost."""

_NOWHERE = Address("127.0.0.1", 0)
"""Connecting to it fails at once."""

_STRIPPED = (
    "authorization",
    "api-key",
    "x-api-key",
    "proxy-authorization",
    "cookie",
    # The agent's own account, which is not that of the key.
    "openai-organization",
    "openai-project",
    # What is compressed cannot be looked at.
    "accept-encoding",
    "x-request-id",
    "tracestate",
    WANTED_HEADER,
)
"""Whatever key the agent, or the attempt before, has put there; and what else is not for a provider."""

_STRIPPED_PREFIXES = ("x-weft-", "x-forwarded-", "x-envoy-external-", "x-envoy-internal")


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


def provider_clusters(pool: ModelPool, usable: Collection[str]) -> Iterator[Cluster]:
    """The clusters of a pool's providers, and one for each order in which they may be tried.

    A single provider's cluster is the order, too: a cluster of clusters costs each call something.
    `usable`: the names in SDS of the keys that could be opened; without its key no provider is reached.
    """
    alone = len(pool.providers) == 1
    for each in pool.providers:
        reached = each.key is None or key_name(pool.name, each.name) in usable
        options = HttpProtocolOptions()
        options.explicit_http_config.http_protocol_options.SetInParent()
        if alone:
            _add_filters(options, pool, [each])
            yield _provider_cluster(order_cluster(pool.name, each.name), each, options, usable=reached)
        else:
            yield _provider_cluster(provider_cluster(pool.name, each.name), each, options, usable=reached)
            yield _order_cluster(pool, each.name)


def _provider_cluster(
    name: str, provider: Provider, options: HttpProtocolOptions, *, usable: bool
) -> Cluster:
    at = _Location.of(provider)
    resolved = usable and not is_ip(at.connect)
    cluster = Cluster(
        name=name,
        type=Cluster.STRICT_DNS if resolved else Cluster.STATIC,
        dns_lookup_family=Cluster.V4_PREFERRED,
        connect_timeout=duration(OUTSIDE_CONNECT_TIMEOUT),
        circuit_breakers=_unlimited(),
    )
    cluster.common_lb_config.healthy_panic_threshold.value = 0
    cluster.load_assignment.cluster_name = name
    places = [Address(at.connect, at.port)] if usable else []
    # A cluster without any host fails a call at once; one that cannot be connected to leaves it to the next.
    for priority, address in enumerate([*places, *([] if usable and not resolved else [_NOWHERE])]):
        endpoint = static_endpoint(address)
        endpoint.endpoint.hostname = at.authority
        endpoint.metadata.filter_metadata[METADATA].update({"provider": provider.name})
        group = cluster.load_assignment.endpoints.add(priority=priority)
        group.lb_endpoints.append(endpoint)
    if at.tls:
        cluster.transport_socket.name = "envoy.transport_sockets.tls"
        cluster.transport_socket.typed_config.Pack(outside_tls(at.host, provider.ca))
    idle = IDLE_TIMEOUT if at.tls else _OWN_IDLE_TIMEOUT
    options.common_http_protocol_options.idle_timeout.CopyFrom(duration(idle))
    cluster.typed_extension_protocol_options[HTTP_OPTIONS].Pack(options)
    return cluster


def _order_cluster(pool: ModelPool, first: str) -> Cluster:
    """The nth attempt goes to the nth provider; what is done to requests must stand here, not at theirs."""
    order = pool.order_from(first)
    cluster = Cluster(
        name=order_cluster(pool.name, first),
        lb_policy=Cluster.CLUSTER_PROVIDED,
        connect_timeout=duration(OUTSIDE_CONNECT_TIMEOUT),
        circuit_breakers=_unlimited(),
    )
    cluster.cluster_type.name = "envoy.clusters.composite"
    tried = (provider_cluster(pool.name, each) for each in order)
    cluster.cluster_type.typed_config.CopyFrom(composite_of(tried))
    options = HttpProtocolOptions()
    options.explicit_http_config.http_protocol_options.SetInParent()
    _add_filters(options, pool, [each for name in order if (each := pool.provider(name)) is not None])
    cluster.typed_extension_protocol_options[HTTP_OPTIONS].Pack(options)
    return cluster


def _add_filters(options: HttpProtocolOptions, pool: ModelPool, providers: Sequence[Provider]) -> None:
    for name, config in _on_the_way(pool, providers):
        options.http_filters.add(name=name).typed_config.Pack(config)


def _on_the_way(pool: ModelPool, providers: Sequence[Provider]) -> Iterator[tuple[str, Message]]:
    """What is done to a request for each attempt, of which the nth goes to the nth of `providers`."""
    if len(providers) > 1:
        yield "ask", ask_for_attempts(pool.name, [each.name for each in providers])
    adapted = is_adapted(pool)
    # The filters between go by the number of the attempt.
    counted = len(providers) > 1 or adapted
    yield "strip", _without(_STRIPPED if counted else (*_STRIPPED, ATTEMPT_HEADER), _STRIPPED_PREFIXES)
    keys = {
        number: credential_injector(key_name(pool.name, each.name), key_header(each))
        for number, each in enumerate(providers, 1)
        if each.key is not None
    }
    if keys:
        yield "key", by_attempt(keys) if len(providers) > 1 else keys[1]
    if adapted:
        script = Lua()
        script.default_source_code.inline_string = provider_script(
            [_adapted(pool, each) for each in providers]
        )
        yield "adapt", script
    if counted:
        yield "uncount", _without((ATTEMPT_HEADER,))
    yield "codec", UpstreamCodec()


def key_header(provider: Provider) -> str:
    """The header in which a provider wants its key."""
    return "api-key" if provider.preset is Preset.AZURE else "authorization"


def key_value(provider: Provider, key: str) -> str:
    """What that header says where the key is `key`."""
    return key if provider.preset is Preset.AZURE else f"Bearer {key}"


def _without(names: Iterable[str], prefixes: Iterable[str] = ()) -> HeaderMutation:
    """Take headers away."""
    mutation = HeaderMutation()
    for name in names:
        mutation.mutations.request_mutations.add().remove = name
    for prefix in prefixes:
        mutation.mutations.request_mutations.add().remove_on_match.key_matcher.prefix = prefix
    return mutation


def _adapted(pool: ModelPool, provider: Provider) -> Mapping[str, str | bool | None]:
    """What of a request is another for this provider than as the agent gave it."""
    path, query = urlsplit(provider.base_url).path, None
    if provider.preset is Preset.AZURE:
        path = f"{path}/openai/deployments/{quote(provider.model or '', safe='')}"
        query = f"api-version={provider.api_version or AZURE_API_VERSION}"
    model = renamed(pool, provider)
    any_renamed = any(renamed(pool, each) is not None for each in pool.spec.providers)
    return {"path": path, "query": query, "model": model, "renamed": any_renamed}


@dataclass(frozen=True, slots=True)
class _Location:
    """Where a provider is."""

    host: str
    """As its certificate says."""
    port: int
    tls: bool
    connect: str
    """What to connect to."""

    @classmethod
    def of(cls, provider: Provider) -> _Location:
        parts = urlsplit(provider.base_url)
        host, tls = parts.hostname or "", parts.scheme == "https"
        port = parts.port or (443 if tls else 80)
        return cls(host, port, tls, provider.address or host)

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


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
