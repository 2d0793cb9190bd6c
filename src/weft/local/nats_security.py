"""How the NATS of a mesh proves itself, and tells who may connect.

On one machine it is made anew at every start; in a cluster once, by `weft kubernetes bootstrap`.

| file | what | who reads it |
|---|---|---|
| `server.pem`, `server.key` | NATS's certificate and key | NATS |
| `roots.pem` | the authority of that certificate | whoever connects |
| `clients.pem` | the authorities of clients' certificates: that one, and the mesh's own | NATS |
| `control.pem` | the control plane's certificate and key | the control plane |
| `control.seed` | the control plane's NATS user | the control plane |
| `issuer.seed` | what answers to NATS's questions about connections are signed with | the control plane |

The authority is needed before there is a control plane that could be one. Its key is never stored: it signs
the two certificates and is forgotten.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.x509.oid import ExtendedKeyUsageOID

from weft.aio.private_file import write_private
from weft.identity.one_time_authority import OneTimeAuthority
from weft.model.local_state import LOOPBACK
from weft.store.nats_callout import account_seed, public_nkey, user_seed

THIS_MACHINE = ("localhost", LOOPBACK)
"""Where clients connect to the NATS of a mesh on one machine."""


@dataclass(frozen=True, slots=True)
class NatsSecurity:
    """The files, and the public halves of the nkeys, which stand in NATS's configuration."""

    directory: Path
    control_user: str
    issuer: str
    runtime: Path | None = None
    """Where `clients.pem` is, if not in `directory`, which need not be writable then."""

    @property
    def certificate(self) -> Path:
        """NATS's certificate."""
        return self.directory / "server.pem"

    @property
    def key(self) -> Path:
        """Its key."""
        return self.directory / "server.key"

    @property
    def roots(self) -> Path:
        """By which clients believe NATS."""
        return self.directory / "roots.pem"

    @property
    def clients(self) -> Path:
        """By which NATS believes clients."""
        return (self.runtime or self.directory) / "clients.pem"

    @property
    def control_credentials(self) -> Path:
        """The control plane's certificate and key."""
        return self.directory / "control.pem"

    @property
    def control_seed(self) -> Path:
        """The seed of the control plane's user."""
        return self.directory / "control.seed"

    @property
    def issuer_seed(self) -> Path:
        """The seed that the answers to NATS's questions are signed with."""
        return self.directory / "issuer.seed"

    def trust(self, roots: bytes) -> bool:
        """Have NATS believe clients with certificates below `roots` (PEM), the mesh's; whether that is news.

        NATS reads it when it starts, and upon SIGHUP; then all members have to connect anew. Raises OSError.
        """
        trusted = self.roots.read_bytes() + roots
        if self.clients.exists() and self.clients.read_bytes() == trusted:
            return False
        write_private(self.clients, trusted)
        return True

    def control_environment(self) -> Mapping[str, str]:
        """What the control plane is told of it: names of files, no secret."""
        return {
            "WEFT_CONTROL_NATS_ROOTS_FILE": str(self.roots),
            "WEFT_CONTROL_NATS_CREDENTIALS_FILE": str(self.control_credentials),
            "WEFT_CONTROL_NATS_SEED_FILE": str(self.control_seed),
            "WEFT_CONTROL_NATS_ISSUER_FILE": str(self.issuer_seed),
        }


_CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)
_SERVER_AND_PEER = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
"""To the other servers of its cluster a server is a client; to the control plane no member of the mesh."""


def make_nats_security(directory: Path, hosts: Collection[str] = THIS_MACHINE) -> NatsSecurity:
    """Make everything anew in `directory`, which only this user will be able to enter.

    `hosts` are the names and addresses by which clients connect; `*` may stand for a first label.
    Raises OSError.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    control, issuer = user_seed(), account_seed()
    security = NatsSecurity(directory, public_nkey(control), public_nkey(issuer))
    authority = OneTimeAuthority("weft local nats")
    certificate, key = authority.issue("nats", _SERVER_AND_PEER, hosts)
    write_private(security.certificate, certificate)
    write_private(security.key, key)
    write_private(
        security.control_credentials, b"".join(authority.issue("weft-control", _CLIENT, THIS_MACHINE))
    )
    write_private(security.roots, authority.pem)
    write_private(security.control_seed, control)
    write_private(security.issuer_seed, issuer)
    security.trust(b"")
    return security
