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
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from weft.aio.private_file import write_private
from weft.identity.keys import key_pem, new_key
from weft.model.local_state import LOOPBACK
from weft.store.nats_callout import account_seed, public_nkey, user_seed

THIS_MACHINE = ("localhost", LOOPBACK)
"""Where clients connect to the NATS of a mesh on one machine."""

_LIFETIME = timedelta(days=3650)
"""Longer than any mesh runs without a start: nobody but this user can read the keys."""
_CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class NatsSecurity:
    """The files, and the public halves of the nkeys, which stand in NATS's configuration."""

    directory: Path
    control_user: str
    issuer: str

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
        return self.directory / "clients.pem"

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
    authority = _Authority()
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


class _Authority:
    """Signs a few certificates and is forgotten."""

    def __init__(self) -> None:
        self._key = new_key()
        self._name = _name("weft local nats")
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = _builder(self._name, self._name, self._key)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        certificate = builder.add_extension(usage, critical=True).sign(self._key, hashes.SHA256())
        self.pem = certificate.public_bytes(Encoding.PEM)

    def issue(
        self, name: str, usages: Collection[x509.ObjectIdentifier], hosts: Collection[str]
    ) -> tuple[bytes, bytes]:
        """A certificate for `name` at `hosts`, and its key, both PEM."""
        key = new_key()
        names = x509.SubjectAlternativeName([_host(each) for each in hosts])
        builder = _builder(_name(name), self._name, key)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(names, critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(issuer, critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM), key_pem(key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
