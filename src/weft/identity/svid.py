"""X509-SVIDs: certificates that say who a process is, by the X509-SVID standard.

https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from weft.errors import InvalidRequest, Unauthenticated
from weft.identity.bundle import TrustBundle, TrustBundles
from weft.identity.certificate import UNREADABLE, check_authority, check_readable, extension, uri_names
from weft.model.spiffe import SpiffeId, parse_spiffe_id

MAX_CHAIN_BYTES = 64 * 1024
"""Size of a chain of certificates, as PEM."""

MAX_CHAIN_LENGTH = 5
"""Certificates in a chain, the leaf included."""


class Reason(StrEnum):
    """Why an SVID is refused, in words that hold for every one refused so."""

    MALFORMED = "malformed"
    """It is no X509-SVID by the standard, or too large."""
    NO_SPIFFE_ID = "no SPIFFE ID"
    TWO_URI_SANS = "two URI SANs"
    CA_AS_LEAF = "an authority's certificate"
    """An authority's certificate signs others; nobody proves with it who they are."""
    EXPIRED = "expired"
    NOT_YET_VALID = "not yet valid"
    WRONG_TRUST_DOMAIN = "wrong trust domain"
    """No bundle vouches for its trust domain."""
    UNKNOWN_AUTHORITY = "unknown authority"
    """No root that vouches for its trust domain has signed it, directly or through its chain."""


class InvalidSvid(Unauthenticated):
    """A certificate does not prove who presents it. `reason` tells why, `detail` in full."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"the X509-SVID is refused ({reason}): {detail}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Svid:
    """An X509-SVID: who it is for, and its certificates. Made by `parse_svid`, it is of the standard's form.

    That says nothing of whether it is to be believed: `verify_svid` does.
    """

    id: SpiffeId
    chain: tuple[x509.Certificate, ...]
    """The leaf, then each one's issuer; the root is not in it."""

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate of the holder's own key."""
        return self.chain[0]

    @property
    def chain_pem(self) -> bytes:
        """The chain as PEM, the leaf first."""
        return b"".join(each.public_bytes(Encoding.PEM) for each in self.chain)

    @property
    def not_before(self) -> float:
        """When it begins to be valid, in seconds since 1970."""
        return self.leaf.not_valid_before_utc.timestamp()

    @property
    def not_after(self) -> float:
        """When it ends to be valid, in seconds since 1970."""
        return self.leaf.not_valid_after_utc.timestamp()

    @property
    def serial(self) -> str:
        """The leaf's serial number, in lower-case hexadecimal digits."""
        return f"{self.leaf.serial_number:x}"


def parse_svid(chain_pem: bytes) -> Svid:
    """The X509-SVID whose chain of certificates, the leaf first, is in `chain_pem`. Raises InvalidSvid."""
    if len(chain_pem) > MAX_CHAIN_BYTES:
        raise InvalidSvid(Reason.MALFORMED, f"its chain has more than {MAX_CHAIN_BYTES} bytes")
    try:
        chain = tuple(x509.load_pem_x509_certificates(chain_pem))
    except UNREADABLE:
        raise InvalidSvid(Reason.MALFORMED, "it is not a chain of certificates in PEM") from None
    if len(chain) != chain_pem.count(b"-----BEGIN "):
        raise InvalidSvid(Reason.MALFORMED, "its chain holds more than certificates")
    if len(chain) > MAX_CHAIN_LENGTH:
        raise InvalidSvid(Reason.MALFORMED, f"its chain has more than {MAX_CHAIN_LENGTH} certificates")
    return Svid(check_leaf(chain[0]), chain)


def check_leaf(certificate: x509.Certificate) -> SpiffeId:
    """Whom `certificate` names, if it is a leaf by the X509-SVID standard. Raises InvalidSvid if not.

    It looks at the form only: neither at the time nor at who signed it.
    """
    try:
        check_readable(certificate)
    except InvalidRequest as problem:
        raise InvalidSvid(Reason.MALFORMED, problem.detail) from None
    _check_not_an_authority(certificate)
    _check_usage(certificate)
    return _spiffe_id(certificate)


def verify_svid(svid: Svid, bundles: TrustBundles, *, now: float) -> SpiffeId:
    """Who presents `svid`, proved by `bundles` at `now` (seconds since 1970). Raises InvalidSvid.

    A bundle vouches for its own trust domain only. That the presenter has the key is for TLS to prove.
    """
    spiffe_id = check_leaf(svid.leaf)
    bundle = bundles.of(spiffe_id.trust_domain)
    if bundle is None:
        raise InvalidSvid(
            Reason.WRONG_TRUST_DOMAIN,
            f"{spiffe_id} is of a trust domain that {bundles.own.trust_domain!r} does not know; "
            "federate the two, or take an identity from its own authority",
        )
    _check_times(spiffe_id, svid.leaf, "it", now)
    _check_chain(svid, spiffe_id, bundle, now)
    return spiffe_id


def _check_not_an_authority(certificate: x509.Certificate) -> None:
    constraints = extension(certificate, x509.BasicConstraints)
    if constraints is not None and constraints.value.ca:
        raise InvalidSvid(Reason.CA_AS_LEAF, "its basicConstraints say cA: true")
    usage = extension(certificate, x509.KeyUsage)
    if usage is not None and (usage.value.key_cert_sign or usage.value.crl_sign):
        raise InvalidSvid(Reason.CA_AS_LEAF, "its keyUsage allows to sign certificates or revocation lists")


def _check_usage(certificate: x509.Certificate) -> None:
    usage = extension(certificate, x509.KeyUsage)
    if usage is None or not usage.critical or not usage.value.digital_signature:
        raise InvalidSvid(Reason.MALFORMED, "it has no critical keyUsage with digitalSignature")
    extended = extension(certificate, x509.ExtendedKeyUsage)
    wanted = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    if extended is not None and not wanted <= set(extended.value):
        raise InvalidSvid(Reason.MALFORMED, "its extendedKeyUsage lacks serverAuth or clientAuth")


def _spiffe_id(certificate: x509.Certificate) -> SpiffeId:
    names = uri_names(certificate)
    if not names:
        raise InvalidSvid(Reason.NO_SPIFFE_ID, "it has no URI SAN")
    if len(names) > 1:
        raise InvalidSvid(Reason.TWO_URI_SANS, f"it has {len(names)} URI SANs, exactly one is allowed")
    alternatives = extension(certificate, x509.SubjectAlternativeName)
    if not list(certificate.subject) and alternatives is not None and not alternatives.critical:
        raise InvalidSvid(Reason.MALFORMED, "it has no subject, so its SAN must be critical, and is not")
    try:
        spiffe_id = parse_spiffe_id(names[0])
    except InvalidRequest as problem:
        raise InvalidSvid(Reason.NO_SPIFFE_ID, problem.detail) from None
    if not spiffe_id.path:
        raise InvalidSvid(Reason.NO_SPIFFE_ID, f"{spiffe_id} is a whole trust domain's: a path is missing")
    return spiffe_id


def _check_times(spiffe_id: SpiffeId, certificate: x509.Certificate, what: str, now: float) -> None:
    begin = certificate.not_valid_before_utc
    end = certificate.not_valid_after_utc
    if now < begin.timestamp():
        early = math.ceil(begin.timestamp() - now)
        raise InvalidSvid(
            Reason.NOT_YET_VALID,
            f"that of {spiffe_id}: {what} is valid from {begin:%Y-%m-%dT%H:%M:%SZ}, in {early} s; "
            "check the clocks",
        )
    if now > end.timestamp():
        late = math.ceil(now - end.timestamp())
        raise InvalidSvid(
            Reason.EXPIRED,
            f"that of {spiffe_id}: {what} was valid until {end:%Y-%m-%dT%H:%M:%SZ}, {late} s ago; "
            "check the clocks, and that the control plane can be reached",
        )


def _check_chain(svid: Svid, spiffe_id: SpiffeId, bundle: TrustBundle, now: float) -> None:
    """Raise InvalidSvid unless every certificate is signed by the next, and the last by a root."""
    if len(svid.chain) > MAX_CHAIN_LENGTH:
        raise InvalidSvid(Reason.MALFORMED, f"its chain has more than {MAX_CHAIN_LENGTH} certificates")
    for below, (certificate, issuer) in enumerate(zip(svid.chain, svid.chain[1:], strict=False)):
        _check_issuer(spiffe_id, certificate, issuer, below)
        _check_times(spiffe_id, issuer, "an issuer in its chain", now)
    last = svid.chain[-1]
    for root in bundle.certificates:
        if last == root and len(svid.chain) > 1:
            return  # some send it along; as an issuer it is checked above
        if _signed(last, root):
            _check_issuer(spiffe_id, last, root, len(svid.chain) - 1)
            _check_times(spiffe_id, root, "its root", now)
            return
    raise InvalidSvid(
        Reason.UNKNOWN_AUTHORITY,
        f"that of {spiffe_id} is signed by no root in the bundle of {bundle.trust_domain!r}",
    )


def _check_issuer(
    spiffe_id: SpiffeId, certificate: x509.Certificate, issuer: x509.Certificate, below: int
) -> None:
    """Raise InvalidSvid unless `issuer`, with `below` authorities between it and the leaf, signed rightly."""
    try:
        check_authority(issuer, spiffe_id.trust_domain)
    except InvalidRequest as problem:
        raise InvalidSvid(Reason.UNKNOWN_AUTHORITY, f"that of {spiffe_id}: {problem.detail}") from None
    constraints = extension(issuer, x509.BasicConstraints)
    longest = constraints.value.path_length if constraints is not None else 0
    if longest is not None and below > longest:
        raise InvalidSvid(Reason.UNKNOWN_AUTHORITY, f"that of {spiffe_id}: an issuer's pathlen is exceeded")
    if not _signed(certificate, issuer):
        raise InvalidSvid(
            Reason.UNKNOWN_AUTHORITY,
            f"that of {spiffe_id}: a certificate in its chain is not signed by the next",
        )


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (TypeError, InvalidSignature, *UNREADABLE):
        return False
    return True
