"""What the ADS server proves itself with, and by which roots it believes sidecars; both may change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """A certificate chain with its key, and roots; all PEM."""

    chain: bytes
    """The leaf first, the root left out."""
    key: bytes = field(repr=False)
    roots: bytes
    """Of the own trust domain: sidecars of no other are served."""


def server_credentials(current: Callable[[], ServerIdentity]) -> grpc.ServerCredentials:
    """Credentials that ask `current` at every handshake, and want a certificate from every client.

    `current` is called in threads of gRPC, and must be quick. If it raises, what it returned last is used.
    """
    last = current()

    def fetch() -> Any:  # None is allowed, whatever the stubs say: nothing has changed
        nonlocal last
        now = current()
        if now == last:
            return None
        last = now
        return _configuration(now)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(last), fetch, require_client_authentication=True
    )


def _configuration(identity: ServerIdentity) -> grpc.ServerCertificateConfiguration:
    pair = (identity.key, identity.chain)
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=identity.roots)
