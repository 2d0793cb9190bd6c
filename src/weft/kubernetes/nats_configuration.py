"""The configuration of one of a cluster's NATS servers.

They know each other by the certificate that they share: the keys of `bootstrap` hold one for all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from weft.errors import Conflict, InvalidRequest
from weft.kubernetes.first_keys import CONTROL_USER, ISSUER
from weft.local.nats_security import NatsSecurity
from weft.local.nats_settings import MAX_STORE_BYTES, secured_settings, server_settings, written
from weft.model.local_state import LOOPBACK
from weft.model.node import Address
from weft.store.nats_accounts import CONTROL_ACCOUNT, SYSTEM_ACCOUNT

CLIENT_PORT = 4222
CLUSTER_PORT = 6222
MONITOR_PORT = 8222

LAME_DUCK_SECONDS = 30
"""Within so many seconds a server that stops has its clients go elsewhere; NATS takes no fewer."""
LEADERS_LEAVE_SECONDS = 5
"""For so long before that others take over what it leads."""

_CLUSTER = "weft"
_ROUTE_TIMEOUT_SECONDS = 10
_ROUTE_PING = "1s"
"""Between servers; one that leaves two of them unanswered is given up."""
_CLIENT_PING = "3s"
"""To clients that are silent, and Weft's never are for so long. A control plane whose host is gone would be
asked about connections for minutes."""
_MAX_KEY_BYTES = 256


@dataclass(frozen=True, slots=True)
class NatsPlace:
    """Which server it is, and where."""

    name: str
    """The same at every start, and no other server's: the pod's."""
    store: Path
    """The directory for what it keeps."""
    listen: str
    """An IP address, for clients and the other servers."""
    advertise: str
    """The host by which clients and other servers reach it; it stands in the certificate."""
    peers: Sequence[Address] = ()
    """All servers' ports for each other, its own included. None: it is the only one."""
    client_port: int = CLIENT_PORT
    cluster_port: int = CLUSTER_PORT
    monitor_port: int = MONITOR_PORT
    """On loopback only: whoever reaches it may read who is connected, and which streams there are."""
    max_store: int = MAX_STORE_BYTES
    """Bytes of `store` that may be used."""


def nats_keys(keys: Path, runtime: Path) -> NatsSecurity:
    """The keys in `keys`, as a Secret of `bootstrap` is mounted; `runtime` is where there may be written.

    Raises InvalidRequest if they are not all there.
    """
    security = NatsSecurity(
        keys, _public(keys / CONTROL_USER, "U"), _public(keys / ISSUER, "A"), runtime=runtime
    )
    for file in (security.certificate, security.key, security.roots):
        try:
            file.open("rb").close()
        except OSError as error:
            raise InvalidRequest(_unreadable(file, error.strerror or str(error))) from error
    return security


def nats_configuration(place: NatsPlace, security: NatsSecurity) -> str:
    """The text of the server's configuration. Raises InvalidRequest where the certificate is none."""
    settings = {
        "host": place.listen,
        "port": place.client_port,
        "http": f"{LOOPBACK}:{place.monitor_port}",
        "ping_interval": _CLIENT_PING,
        "client_advertise": str(Address(place.advertise, place.client_port)),
        "lame_duck_duration": f"{LAME_DUCK_SECONDS}s",
        "lame_duck_grace_period": f"{LEADERS_LEAVE_SECONDS}s",
        **server_settings(place.name, place.store, max_store=place.max_store),
        **secured_settings(security),
    }
    if place.peers:
        settings["cluster"] = _cluster(place, security)
    return written(settings)


def check_store(place: NatsPlace) -> None:
    """Raise Conflict if several servers are to go on with what a single one kept: NATS would pass over it."""
    if place.peers and _kept_alone(place.store / "jetstream"):
        raise Conflict(
            f"{place.store} was kept by a NATS server that was alone; several servers do not take it over: "
            "back it up (`weft kubernetes backup`), and restore it into servers that begin with empty "
            "directories, or go on with the one server"
        )


def _cluster(place: NatsPlace, security: NatsSecurity) -> dict[str, Any]:
    return {
        "name": _CLUSTER,
        "host": place.listen,
        "port": place.cluster_port,
        # Addresses stand in no certificate; names do.
        "cluster_advertise": str(Address(place.advertise, place.cluster_port)),
        "routes": [f"tls://{each}" for each in place.peers],
        # Else it takes half a minute to notice that another's host is gone; questions go there meanwhile.
        "ping_interval": _ROUTE_PING,
        "tls": {
            "cert_file": str(security.certificate),
            "key_file": str(security.key),
            "ca_file": str(security.roots),
            "verify": True,
            "min_version": "1.3",
            "timeout": _ROUTE_TIMEOUT_SECONDS,
            # The control plane's certificate is of the same authority, and must make it no server.
            "pinned_certs": [_fingerprint(security.certificate)],
        },
    }


def _kept_alone(jetstream: Path) -> bool:
    """Whether there are streams, and nothing of what servers agree upon among each other."""
    agreed = jetstream / SYSTEM_ACCOUNT / "_js_" / "_meta_"
    streams = jetstream / CONTROL_ACCOUNT / "streams"
    return streams.is_dir() and any(streams.iterdir()) and not agreed.is_dir()


def _fingerprint(certificate: Path) -> str:
    """The SHA-256 of a certificate's public key, as NATS pins it."""
    try:
        key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    except (OSError, ValueError) as error:
        raise InvalidRequest(_unreadable(certificate, str(error))) from error
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _public(file: Path, kind: str) -> str:
    """The public nkey in a file, of a user (`U`) or an account (`A`)."""
    try:
        with file.open(encoding="ascii") as source:
            key = source.read(_MAX_KEY_BYTES).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(_unreadable(file, str(error))) from error
    if not key.startswith(kind) or not key.isalnum():
        raise InvalidRequest(_unreadable(file, "it holds no public nkey"))
    return key


def _unreadable(file: Path, why: str) -> str:
    return f"{file} cannot be used ({why}): mount the Secret there that `weft kubernetes bootstrap` makes"
