"""Mutual TLS on every hop between sidecars: who may connect, and whom a caller takes for its destination."""

from __future__ import annotations

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.base_pb2 import TransportSocket
from envoy.config.core.v3.config_source_pb2 import ApiVersion
from envoy.config.listener.v3.listener_components_pb2 import Filter, FilterChain
from envoy.config.rbac.v3.rbac_pb2 import RBAC, Action
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as network_rbac
from envoy.extensions.matching.common_inputs.ssl.v3.ssl_inputs_pb2 import (
    DnsSanInput,
    SubjectInput,
    UriSanInput,
)
from envoy.extensions.transport_sockets.tls.v3.common_pb2 import SubjectAltNameMatcher, TlsParameters
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import SdsSecretConfig
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import (
    CommonTlsContext,
    DownstreamTlsContext,
    UpstreamTlsContext,
)
from google.protobuf.message import Message
from xds.type.matcher.v3.matcher_pb2 import Matcher

from weft.controlplane.translate.destination import Destination, DestinationKind
from weft.controlplane.translate.durations import duration
from weft.model.sds import IDENTITY, OWN_TRUST, TRUST, secret_path
from weft.model.spiffe import SCHEME, Role

HANDSHAKE_TIMEOUT = 5.0
"""Seconds a client may take for the TLS handshake: bounds what those hold who never finish one."""

NOT_ONE_IDENTITY = "not-one-spiffe-id"
"""What the log of denials calls the rule that a certificate has one SPIFFE ID, and no other name like it."""

_ALPN_H2 = "h2"
_ALPN_HTTP1 = "http/1.1"
_TLS = "envoy.transport_sockets.tls"


def server_prefix(destination: Destination, trust_domain: str) -> str:
    """How the SPIFFE ID of every server of `destination` begins."""
    agents = f"{SCHEME}{trust_domain}/{Role.AGENT}/"
    # Instances of many types share a capability, and nobody but the authority gives an identity of any.
    return agents if destination.kind is DestinationKind.CAPABILITY else f"{agents}{destination.name}/"


def control_prefix(trust_domain: str) -> str:
    """How the SPIFFE ID of every replica of the control plane begins."""
    return f"{SCHEME}{trust_domain}/{Role.CONTROL}/"


def secure_cluster(cluster: Cluster, prefix: str, *, http2: bool = True) -> None:
    """Have `cluster` connect by mutual TLS, to servers whose SPIFFE ID begins with `prefix` only.

    `http2`: offer the server HTTP/2 and nothing else.
    """
    context = UpstreamTlsContext(common_tls_context=_common(OWN_TRUST, prefix))
    # A resumed session is not verified again: none is.
    context.max_session_keys.value = 0
    if http2:
        context.common_tls_context.alpn_protocols.append(_ALPN_H2)
    cluster.transport_socket.CopyFrom(_transport_socket(context))


def secure_chain(chain: FilterChain) -> None:
    """Have `chain` take connections by mutual TLS only, each from a peer with exactly one SPIFFE ID.

    Call it while `chain` has no filters: the one that looks at the identity must come first.
    """
    context = DownstreamTlsContext(
        common_tls_context=_common(TRUST),
        disable_stateless_session_resumption=True,
        disable_stateful_session_resumption=True,
    )
    context.require_client_certificate.value = True
    context.common_tls_context.alpn_protocols.extend([_ALPN_H2, _ALPN_HTTP1])
    chain.transport_socket.CopyFrom(_transport_socket(context))
    chain.transport_socket_connect_timeout.CopyFrom(duration(HANDSHAKE_TIMEOUT))
    chain.filters.append(_one_identity())


def _common(trust: str, prefix: str | None = None) -> CommonTlsContext:
    context = CommonTlsContext()
    context.tls_params.tls_minimum_protocol_version = TlsParameters.TLSv1_3
    context.tls_params.tls_maximum_protocol_version = TlsParameters.TLSv1_3
    context.tls_certificate_sds_secret_configs.append(_secret(IDENTITY))
    validation = context.combined_validation_context
    validation.default_validation_context.SetInParent()
    if prefix is not None:
        matcher = SubjectAltNameMatcher(san_type=SubjectAltNameMatcher.URI)
        matcher.matcher.prefix = prefix
        validation.default_validation_context.match_typed_subject_alt_names.append(matcher)
    validation.validation_context_sds_secret_config.CopyFrom(_secret(trust))
    return context


def _secret(name: str) -> SdsSecretConfig:
    secret = SdsSecretConfig(name=name)
    secret.sds_config.path_config_source.path = secret_path(name)
    secret.sds_config.resource_api_version = ApiVersion.V3
    return secret


def _transport_socket(context: Message) -> TransportSocket:
    socket = TransportSocket(name=_TLS)
    socket.typed_config.Pack(context)
    return socket


def _one_identity() -> Filter:
    """Refuse a certificate with two URI SANs, or with a DNS name or subject that poses as a SPIFFE ID.

    Envoy verifies the first URI SAN, but its rules look at all of them, and then at the other names: the
    authority of a federated trust domain could else put one of our names second.
    """
    matcher = Matcher()
    allowed = matcher.matcher_list.matchers.add()
    rules = allowed.predicate.and_matcher.predicate
    one = rules.add().single_predicate
    _input(one, "uri-san", UriSanInput())
    # Envoy joins several by a comma, which no SPIFFE ID has.
    one.value_match.safe_regex.regex = rf"{SCHEME}[^,]+"
    one.value_match.safe_regex.google_re2.SetInParent()
    for name, source in (("dns-san", DnsSanInput()), ("subject", SubjectInput())):
        posing = rules.add().not_matcher.single_predicate
        _input(posing, name, source)
        posing.value_match.contains = SCHEME
        posing.value_match.ignore_case = True
    _act(allowed.on_match, "one-spiffe-id", RBAC.ALLOW)
    _act(matcher.on_no_match, NOT_ONE_IDENTITY, RBAC.DENY)
    result = Filter(name="envoy.filters.network.rbac")
    result.typed_config.Pack(network_rbac.RBAC(stat_prefix="identity.", matcher=matcher))
    return result


def _input(predicate: Matcher.MatcherList.Predicate.SinglePredicate, name: str, source: Message) -> None:
    predicate.input.name = name
    predicate.input.typed_config.Pack(source)


def _act(on_match: Matcher.OnMatch, name: str, action: RBAC.Action) -> None:
    on_match.action.name = name
    on_match.action.typed_config.Pack(Action(name=name, action=action))
