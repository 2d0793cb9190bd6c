"""Making certificates: a root, an intermediate below it, SVIDs below that. Pure: the time is passed in."""

from __future__ import annotations

import datetime
import ipaddress
import math
from collections.abc import Collection
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from weft.controlplane.ca.lifetimes import CLOCK_SKEW
from weft.errors import InvalidRequest, Unavailable
from weft.identity.keys import PublicKey, new_key
from weft.model.spiffe import SpiffeId

MAX_NAMES = 32
"""DNS names and IP addresses in one SVID."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An authority: its certificate, and the private key that goes with it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def der(self) -> bytes:
        """The certificate in DER."""
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def not_before(self) -> float:
        """When it begins to be valid, in seconds since 1970."""
        return self.certificate.not_valid_before_utc.timestamp()

    @property
    def not_after(self) -> float:
        """When it ends to be valid, in seconds since 1970."""
        return self.certificate.not_valid_after_utc.timestamp()


def make_root(trust_domain: str, now: float, lifetime: float) -> SigningKey:
    """A new root of `trust_domain`, with a new key."""
    key = new_key()
    name = _authority_name("root", key)
    builder = _builder(name, name, key.public_key(), now - CLOCK_SKEW, now + lifetime)
    builder = _as_authority(builder, trust_domain, path_length=1)
    return SigningKey(_with_key_ids(builder, key.public_key(), key).sign(key, hashes.SHA256()), key)


def make_intermediate(root: SigningKey, trust_domain: str, now: float, lifetime: float) -> SigningKey:
    """A new intermediate below `root`, with a new key. It ends no later than the root."""
    key = new_key()
    begin, end = _within(root, now, lifetime)
    builder = _builder(
        _authority_name("intermediate", key), root.certificate.subject, key.public_key(), begin, end
    )
    builder = _as_authority(builder, trust_domain, path_length=0)
    return SigningKey(_with_key_ids(builder, key.public_key(), root.key).sign(root.key, hashes.SHA256()), key)


def make_svid(
    issuer: SigningKey,
    key: PublicKey,
    spiffe_id: SpiffeId,
    *,
    now: float,
    lifetime: float,
    dns_names: Collection[str] = (),
    ip_addresses: Collection[str] = (),
) -> x509.Certificate:
    """A leaf by the X509-SVID standard for the holder of `key`. It ends no later than its issuer.

    Raises InvalidRequest where a name is none, and Unavailable if the issuer itself is not valid at `now`.
    """
    begin, end = _within(issuer, now, lifetime)
    names = _names(spiffe_id, dns_names, ip_addresses)
    builder = _builder(x509.Name([]), issuer.certificate.subject, key, begin, end)
    builder = builder.add_extension(names, critical=True)  # as there is no subject
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(leaf=True), critical=True)
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = builder.add_extension(purposes, critical=False)
    return _with_key_ids(builder, key, issuer.key).sign(issuer.key, hashes.SHA256())


def _within(issuer: SigningKey, now: float, lifetime: float) -> tuple[float, float]:
    """From when to when a certificate is valid that `issuer` signs now."""
    if not issuer.not_before <= now <= issuer.not_after:
        ends = issuer.certificate.not_valid_after_utc
        raise Unavailable(
            f"the authority's certificate, valid until {ends:%Y-%m-%dT%H:%M:%SZ}, is not valid now; "
            "check the clock of the control plane"
        )
    return max(now - CLOCK_SKEW, issuer.not_before), min(now + lifetime, issuer.not_after)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, begin: float, end: float
) -> x509.CertificateBuilder:
    # Whole seconds, rounded so that it lies within its issuer's time: theirs are whole seconds too.
    return x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=issuer,
        public_key=key,
        serial_number=x509.random_serial_number(),
        not_valid_before=datetime.datetime.fromtimestamp(math.floor(begin), datetime.UTC),
        not_valid_after=datetime.datetime.fromtimestamp(math.floor(end), datetime.UTC),
    )


def _authority_name(what: str, key: ec.EllipticCurvePrivateKey) -> x509.Name:
    """A name of its own for every key: verifiers look for an issuer by its name."""
    digest = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Weft"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{what} {digest[:16]}"),
        ]
    )


def _as_authority(
    builder: x509.CertificateBuilder, trust_domain: str, *, path_length: int
) -> x509.CertificateBuilder:
    name = x509.UniformResourceIdentifier(str(SpiffeId(trust_domain)))
    builder = builder.add_extension(x509.SubjectAlternativeName([name]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    return builder.add_extension(_usage(leaf=False), critical=True)


def _names(
    spiffe_id: SpiffeId, dns_names: Collection[str], ip_addresses: Collection[str]
) -> x509.SubjectAlternativeName:
    if len(dns_names) + len(ip_addresses) > MAX_NAMES:
        raise InvalidRequest(f"an SVID has at most {MAX_NAMES} DNS names and IP addresses")
    try:
        return x509.SubjectAlternativeName(
            [
                x509.UniformResourceIdentifier(str(spiffe_id)),
                *(x509.DNSName(each) for each in dns_names),
                *(x509.IPAddress(ipaddress.ip_address(each)) for each in ip_addresses),
            ]
        )
    except ValueError as problem:
        raise InvalidRequest(f"not a name for the SVID of {spiffe_id}: {problem}") from None


def _usage(*, leaf: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=leaf,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not leaf,
        crl_sign=not leaf,
        encipher_only=False,
        decipher_only=False,
    )


def _with_key_ids(
    builder: x509.CertificateBuilder, key: PublicKey, signer: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    own = x509.SubjectKeyIdentifier.from_public_key(key)
    issuers = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    return builder.add_extension(own, critical=False).add_extension(issuers, critical=False)
