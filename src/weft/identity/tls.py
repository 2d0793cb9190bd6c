"""TLS in Python's own connections: to the control plane's API, to NATS."""

from __future__ import annotations

import ssl
from pathlib import Path

from cryptography import x509

from weft.errors import Unauthenticated
from weft.identity.svid import check_leaf
from weft.model.spiffe import Role


def client_context(
    roots: bytes, credentials: Path | None = None, *, check_hostname: bool = True
) -> ssl.SSLContext:
    """A client's context: TLS 1.3, the server's certificate verified below `roots` (PEM), and nothing else.

    `credentials` is a PEM file with the client's certificates and key; without it the client shows none.
    `check_hostname` false leaves it to the caller to verify who the server is (`check_role`). Raises
    Unauthenticated if the roots or the credentials are none.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = check_hostname
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(cadata=roots.decode("ascii"))
        if credentials is not None:
            context.load_cert_chain(credentials)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise Unauthenticated(f"the mesh's certificates cannot be used: {error}") from error
    return context


def check_role(peer: ssl.SSLObject, trust_domain: str, role: Role) -> None:
    """Raise Unauthenticated unless the peer, whose chain was verified, has `role` in `trust_domain`."""
    certificate = peer.getpeercert(binary_form=True)
    if certificate is None:
        raise Unauthenticated("the peer shows no certificate")
    identity = check_leaf(x509.load_der_x509_certificate(certificate))
    if identity.trust_domain != trust_domain or identity.role is not role:
        raise Unauthenticated(f"the peer is {identity}, not a {role} of {trust_domain}")
