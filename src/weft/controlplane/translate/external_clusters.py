"""Clusters (CDS) of agents without a sidecar: balanced and guarded as any, but without the mesh's TLS."""

from __future__ import annotations

from dataclasses import dataclass

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_components_pb2 import LbEndpoint
from envoy.extensions.transport_sockets.tls.v3.common_pb2 import TlsParameters
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import UpstreamTlsContext

from weft.controlplane.translate.clusters import (
    HTTP_OPTIONS,
    balanced_cluster,
    http_options,
    static_endpoint,
    use_http2,
)
from weft.controlplane.translate.destination import Destination
from weft.controlplane.translate.durations import duration
from weft.model.external_agent import ExternalProtocol, ExternalTls
from weft.model.node import Address
from weft.model.sds import SYSTEM_ROOTS
from weft.model.traffic import TrafficPolicySpec

CONNECT_TIMEOUT = 5.0
"""Seconds to connect, TLS included."""

IDLE_TIMEOUT = 1.5
"""Seconds for which an idle connection of HTTP/1 is kept: servers people run themselves (uvicorn, say) close
theirs after 5 or 2, and a call that meets that is lost."""

_HTTP_PORT = 80


@dataclass(frozen=True, slots=True)
class ExternalForm:
    """How the agents behind a destination are reached."""

    protocol: ExternalProtocol
    tls: ExternalTls
    named: tuple[Address, ...] = ()
    """Where they are, if any of it is a name, which each caller's Envoy resolves; else that comes by EDS."""


def external_cluster(destination: Destination, policy: TrafficPolicySpec, form: ExternalForm) -> Cluster:
    """The cluster of `destination`, under the traffic policy in force for it."""
    cluster = balanced_cluster(destination, policy, connect_timeout=CONNECT_TIMEOUT)
    if form.named:
        cluster.ClearField("eds_cluster_config")
        cluster.type = Cluster.STRICT_DNS
        cluster.dns_lookup_family = Cluster.V4_PREFERRED
        cluster.respect_dns_ttl = True
        cluster.load_assignment.cluster_name = cluster.name
        group = cluster.load_assignment.endpoints.add()
        group.lb_endpoints.extend(_endpoint(each, form.tls) for each in form.named)
    options = http_options()
    if form.protocol is ExternalProtocol.H2C:
        use_http2(options)
    else:
        options.explicit_http_config.http_protocol_options.SetInParent()
        options.common_http_protocol_options.idle_timeout.CopyFrom(duration(IDLE_TIMEOUT))
    cluster.typed_extension_protocol_options[HTTP_OPTIONS].Pack(options)
    if form.tls is ExternalTls.SERVER:
        cluster.transport_socket.name = "envoy.transport_sockets.tls"
        cluster.transport_socket.typed_config.Pack(_tls(form.protocol))
    return cluster


def _endpoint(address: Address, tls: ExternalTls) -> LbEndpoint:
    """With the name by which it is called, which goes into `host`, and with TLS is what the server shows."""
    result = static_endpoint(address)
    by_name_alone = tls is ExternalTls.SERVER or address.port == _HTTP_PORT
    result.endpoint.hostname = address.host if by_name_alone else str(address)
    return result


def _tls(protocol: ExternalProtocol) -> UpstreamTlsContext:
    context = UpstreamTlsContext(auto_host_sni=True, auto_sni_san_validation=True)
    common = context.common_tls_context
    common.tls_params.tls_minimum_protocol_version = TlsParameters.TLSv1_2
    common.alpn_protocols.append("h2" if protocol is ExternalProtocol.H2C else "http/1.1")
    # In the sidecar's bootstrap, since only the sidecar knows whom its machine trusts.
    common.validation_context_sds_secret_config.name = SYSTEM_ROOTS
    return context
