"""Who is at the other end of a stream, and that it asks for its own configuration only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from typing import Protocol
from urllib.parse import unquote

from weft.errors import Denied, Unauthenticated
from weft.identity.svid import Svid, parse_svid
from weft.model.node import Node
from weft.model.spiffe import SpiffeId, agent_id

_CERTIFICATE = "x509_pem_cert"
"""Where gRPC tells the certificate that the peer has proved to own."""


class AuthContext(Protocol):
    """The part of a gRPC context that tells of the peer."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """What TLS has made sure of."""
        ...


def peer_svid(context: AuthContext, trust_domain: str, *, now: float) -> Svid:
    """The SVID of the peer, whose chain gRPC verified at the handshake.

    Raises Unauthenticated if it is none by the standard, is of another trust domain than `trust_domain`, or
    has expired by `now` (seconds since 1970): a connection may have been open for long.
    """
    return svid_in(certificate_of(context), trust_domain, now=now)


def certificate_of(context: AuthContext) -> bytes:
    """The certificate of the peer (PEM), its chain verified by gRPC. Raises Unauthenticated without one."""
    shown = list(context.auth_context().get(_CERTIFICATE, ()))
    if len(shown) != 1:
        raise Unauthenticated("the sidecar shows no certificate: its connection must be mutual TLS")
    return shown[0]


def svid_in(shown: bytes, trust_domain: str, *, now: float) -> Svid:
    """The SVID that the certificate `shown` is. Raises Unauthenticated as `peer_svid` does."""
    svid = parse_svid(shown)
    if svid.id.trust_domain != trust_domain:
        raise Unauthenticated(f"{svid.id} is of another trust domain than this mesh's, {trust_domain!r}")
    if now > svid.not_after:
        raise Unauthenticated(f"the certificate of {svid.id} has expired: connect with a new one")
    return svid


def check_node(identity: SpiffeId, node: Node) -> None:
    """Raise Denied unless `identity` is that of `node`: each gets its own configuration, and no other."""
    if not _names(identity, node):
        raise Denied(
            f"{identity} asks for the configuration of {node.key!r}: a sidecar is given its own only; "
            "start it with the type and the id that its identity was issued for"
        )


def _names(identity: SpiffeId, node: Node) -> bool:
    if node.inbound is not None:
        return identity == agent_id(identity.trust_domain, node.inbound.type, node.id)
    match identity.segments:
        case ("operator", _, instance):
            return instance == node.id
    return False


def peer_address(peer: str) -> str:
    """The IP address in what gRPC calls a peer (`ipv4:10.0.0.1:4711`); empty if there is none in it."""
    host = unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")
    try:
        address = ip_address(host)
    except ValueError:
        return ""
    return str(getattr(address, "ipv4_mapped", None) or address)


OnDenied = Callable[[str, Node | None, str], None]
"""Hears of a refused stream: the SPIFFE ID or else the address of the peer, the node that it asked for if it
came that far, and why. Called in the event loop: return at once, and don't raise."""
