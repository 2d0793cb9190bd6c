"""Certificates for tests, good ones and bad ones, made without Weft's own authority."""

from __future__ import annotations

import datetime
import ipaddress
import time
from collections.abc import Iterable

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from weft.identity.bundle import TrustBundle, TrustBundles
from weft.identity.keys import key_pem, new_key
from weft.model.spiffe import DEFAULT_TRUST_DOMAIN, SpiffeId

DAY = 24 * 3600.0


class Pki:
    """A trust domain's root and issuing intermediate."""

    def __init__(self, trust_domain: str = DEFAULT_TRUST_DOMAIN, *, now: float | None = None) -> None:
        """`now` is the time at which it signs, in seconds since 1970; by default always the present."""
        self.trust_domain = trust_domain
        self._now = now
        self.root_key = new_key()
        self.root = self.authority("root", self.root_key)
        self.intermediate_key = new_key()
        self.intermediate = self.authority("intermediate", self.intermediate_key)

    @property
    def now(self) -> float:
        """When it signs."""
        return time.time() if self._now is None else self._now

    def authority(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        *,
        uri: str | None = None,
        pathlen: int | None = None,
        ca: bool = True,
        lifetime: float = 3650 * DAY,
    ) -> x509.Certificate:
        """An authority's certificate: signed by itself if it is the first, by the root from then on."""
        root: x509.Certificate | None = getattr(self, "root", None)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} of {self.trust_domain}")])
        issuer = subject if root is None else root.subject
        builder = self._builder(subject, issuer, key, -DAY, lifetime)
        names = x509.SubjectAlternativeName(
            [x509.UniformResourceIdentifier(uri or f"spiffe://{self.trust_domain}")]
        )
        builder = builder.add_extension(names, critical=False)
        builder = builder.add_extension(
            x509.BasicConstraints(ca=ca, path_length=pathlen if ca else None), critical=True
        )
        builder = builder.add_extension(_usage(sign=not ca, certify=ca), critical=True)
        builder = _with_key_ids(builder, key, key if root is None else self.root_key)
        return builder.sign(key if root is None else self.root_key, hashes.SHA256())

    def svid(
        self,
        spiffe_id: SpiffeId | str,
        *,
        lifetime: float = 3600.0,
        not_before: float = -60.0,
        extra_uris: Iterable[str] = (),
        dns_names: Iterable[str] = ("localhost",),
        ip_addresses: Iterable[str] = ("127.0.0.1", "::1"),
        self_signed: bool = False,
        ca: bool = False,
        key_usage: bool = True,
        usages: Iterable[x509.ObjectIdentifier] = (
            ExtendedKeyUsageOID.SERVER_AUTH,
            ExtendedKeyUsageOID.CLIENT_AUTH,
        ),
        san_critical: bool = True,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> tuple[bytes, bytes]:
        """The chain and the key (both PEM) of an SVID, or of something that only looks like one.

        It is valid from `not_before` to `lifetime` seconds after now: give negative ones for an expired SVID.
        An empty `spiffe_id` leaves the URI out.
        """
        key = key or new_key()
        signer = key if self_signed else self.intermediate_key
        issuer = x509.Name([]) if self_signed else self.intermediate.subject
        builder = self._builder(x509.Name([]), issuer, key, min(not_before, lifetime - 1), lifetime)
        uris = [*([str(spiffe_id)] if str(spiffe_id) else []), *extra_uris]
        names = x509.SubjectAlternativeName(
            [
                *(x509.UniformResourceIdentifier(each) for each in uris),
                *(x509.DNSName(each) for each in dns_names),
                *(x509.IPAddress(ipaddress.ip_address(each)) for each in ip_addresses),
            ]
        )
        builder = builder.add_extension(names, critical=san_critical)
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        if key_usage:
            builder = builder.add_extension(_usage(sign=True, certify=ca), critical=True)
        if usages := list(usages):
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        leaf = _with_key_ids(builder, key, signer).sign(signer, hashes.SHA256())
        chain = [leaf] if self_signed else [leaf, self.intermediate]
        return b"".join(each.public_bytes(Encoding.PEM) for each in chain), key_pem(key)

    def bundle(self) -> TrustBundle:
        """The bundle of this trust domain."""
        return TrustBundle(self.trust_domain, (self.root.public_bytes(Encoding.DER),))

    def bundles(self, *federated: Pki, revision: int = 1) -> TrustBundles:
        """What members of this trust domain trust, when it is federated with those others."""
        return TrustBundles(self.bundle(), {each.trust_domain: each.bundle() for each in federated}, revision)

    def _builder(
        self,
        subject: x509.Name,
        issuer: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        not_before: float,
        not_after: float,
    ) -> x509.CertificateBuilder:
        return x509.CertificateBuilder(
            subject_name=subject,
            issuer_name=issuer,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=_moment(self.now + not_before),
            not_valid_after=_moment(self.now + not_after),
        )


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)


def _usage(*, sign: bool, certify: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certify,
        crl_sign=certify,
        encipher_only=False,
        decipher_only=False,
    )


def _with_key_ids(
    builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    issuers = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    return builder.add_extension(own, critical=False).add_extension(issuers, critical=False)
