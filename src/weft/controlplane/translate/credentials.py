"""Secrets that Envoy adds to calls to outside hosts, and the clusters of these hosts.

The value comes by SDS, apart from everything else: neither routes nor clusters hold it, and Envoy's own dump
of its configuration masks it. The filter that adds it is the cluster's: it runs behind all others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.config_source_pb2 import ApiVersion
from envoy.config.endpoint.v3.endpoint_components_pb2 import LocalityLbEndpoints
from envoy.extensions.filters.http.credential_injector.v3.credential_injector_pb2 import CredentialInjector
from envoy.extensions.filters.http.upstream_codec.v3.upstream_codec_pb2 import UpstreamCodec
from envoy.extensions.http.injected_credentials.generic.v3.generic_pb2 import Generic
from envoy.extensions.transport_sockets.tls.v3.common_pb2 import SubjectAltNameMatcher, TlsParameters
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import UpstreamTlsContext
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions

from weft.controlplane.translate.clusters import HTTP_OPTIONS, circuit_breakers, static_endpoint
from weft.controlplane.translate.durations import duration
from weft.controlplane.translate.forward import without_empty_trace_state
from weft.model.node import Address
from weft.model.outside_host import is_ip
from weft.model.resource import AnyResource
from weft.model.sds import SYSTEM_ROOTS
from weft.model.secret import Injection, SecretSpec
from weft.model.traffic import CircuitBreaker

CONNECT_TIMEOUT = 5.0
"""Seconds to connect to an outside host, TLS included."""

IDLE_TIMEOUT = 50.0
"""Seconds for which an idle connection is kept: common servers close theirs after 60 or more."""


@dataclass(frozen=True, slots=True)
class Credential:
    """One injection that is in force for a caller. It does not hold the value."""

    secret: str
    """The name of the Secret."""
    injection: Injection
    usable: bool = True
    """Whether the value could be opened."""

    @property
    def cluster(self) -> str:
        """The name of the host's cluster, and of the value in SDS: `outside/api.example.com`."""
        return f"outside/{self.injection.host}"


def credentials_of(caller: str | None, secrets: Iterable[AnyResource]) -> list[Credential]:
    """What is injected into the calls of a type's agents, by host; None: a sidecar without an agent."""
    found = [
        Credential(each.metadata.name, injection)
        for each in secrets
        if isinstance(each.spec, SecretSpec)
        for injection in each.spec.inject
        if injection.is_for(caller)
    ]
    return sorted(found, key=lambda each: each.cluster)


def credential_cluster(credential: Credential) -> Cluster:
    """The cluster of the host, which adds the header to what goes there."""
    injection = credential.injection
    address = injection.address or injection.host
    cluster = Cluster(
        name=credential.cluster,
        type=Cluster.STATIC if is_ip(address) else Cluster.LOGICAL_DNS,
        dns_lookup_family=Cluster.V4_PREFERRED,
        connect_timeout=duration(CONNECT_TIMEOUT),
        circuit_breakers=circuit_breakers(CircuitBreaker()),
    )
    cluster.load_assignment.cluster_name = credential.cluster
    endpoint = static_endpoint(Address(address, injection.port))
    cluster.load_assignment.endpoints.append(LocalityLbEndpoints(lb_endpoints=[endpoint]))
    if injection.tls:
        cluster.transport_socket.name = "envoy.transport_sockets.tls"
        cluster.transport_socket.typed_config.Pack(outside_tls(injection.host, injection.ca))
    options = HttpProtocolOptions()
    options.explicit_http_config.http_protocol_options.SetInParent()
    options.common_http_protocol_options.idle_timeout.CopyFrom(duration(IDLE_TIMEOUT))
    injector = credential_injector(credential.cluster, injection.header)
    options.http_filters.add(name="trace state").typed_config.Pack(without_empty_trace_state())
    options.http_filters.add(name="credential").typed_config.Pack(injector)
    options.http_filters.add(name="codec").typed_config.Pack(UpstreamCodec())
    cluster.typed_extension_protocol_options[HTTP_OPTIONS].Pack(options)
    return cluster


def credential_secret(name: str, value: str) -> Secret:
    """What SDS gives as `name`: the whole value of a header."""
    secret = Secret(name=name)
    secret.generic_secret.secret.inline_string = value
    return secret


def credential_injector(name: str, header: str) -> CredentialInjector:
    """The filter that adds `header`, with the value that SDS gives as `name`."""
    generic = Generic(header=header)
    generic.credential.name = name
    generic.credential.sds_config.ads.SetInParent()
    generic.credential.sds_config.resource_api_version = ApiVersion.V3
    injector = CredentialInjector(overwrite=True)
    injector.credential.name = "envoy.http.injected_credentials.generic"
    injector.credential.typed_config.Pack(generic)
    return injector


def outside_tls(host: str, ca: str | None) -> UpstreamTlsContext:
    """TLS to a `host` outside the mesh, for which `ca` vouches, or whom the sidecar's machine trusts."""
    by_address = is_ip(host)
    context = UpstreamTlsContext(sni="" if by_address else host)
    common = context.common_tls_context
    common.tls_params.tls_minimum_protocol_version = TlsParameters.TLSv1_2
    common.alpn_protocols.append("http/1.1")
    kind = SubjectAltNameMatcher.IP_ADDRESS if by_address else SubjectAltNameMatcher.DNS
    name = SubjectAltNameMatcher(san_type=kind)
    name.matcher.exact = host
    if ca is not None:
        common.validation_context.trusted_ca.inline_string = ca
        common.validation_context.match_typed_subject_alt_names.append(name)
    else:
        combined = common.combined_validation_context
        combined.default_validation_context.match_typed_subject_alt_names.append(name)
        # In the sidecar's bootstrap, since only the sidecar knows whom its machine trusts.
        combined.validation_context_sds_secret_config.name = SYSTEM_ROOTS
    return context
