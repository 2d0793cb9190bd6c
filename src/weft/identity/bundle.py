"""Trust bundles: the root certificates of a trust domain, and those of the domains it is federated with.

A bundle vouches for its own trust domain only: a root of `b.example` says nothing about `spiffe://a.example/…`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from weft.errors import InvalidRequest
from weft.identity.certificate import UNREADABLE, check_authority
from weft.model.spiffe import check_trust_domain

MAX_ROOTS = 32
"""Roots in one bundle."""

MAX_FEDERATED = 256
"""Trust domains that one can be federated with."""

MAX_BUNDLE_BYTES = 256 * 1024
"""Size of one bundle, as PEM."""

MAX_BUNDLES_BYTES = 4 * 1024 * 1024
"""Size of all bundles, as JSON."""


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """The roots of one trust domain."""

    trust_domain: str
    roots: tuple[bytes, ...]
    """Each a certificate in DER."""

    @property
    def certificates(self) -> tuple[x509.Certificate, ...]:
        """The roots, parsed."""
        return tuple(x509.load_der_x509_certificate(root) for root in self.roots)

    @property
    def pem(self) -> bytes:
        """The roots as PEM, one after the other."""
        return b"".join(each.public_bytes(Encoding.PEM) for each in self.certificates)


@dataclass(frozen=True, slots=True)
class TrustBundles:
    """All that a member of a trust domain trusts, at one moment."""

    own: TrustBundle
    federated: Mapping[str, TrustBundle] = field(default_factory=dict)
    """The bundles of other trust domains, by the domain's name."""
    revision: int = 0
    """Grows with every change."""

    def of(self, trust_domain: str) -> TrustBundle | None:
        """The bundle that vouches for `trust_domain`; None if there is none."""
        return self.own if trust_domain == self.own.trust_domain else self.federated.get(trust_domain)

    @property
    def all(self) -> tuple[TrustBundle, ...]:
        """The own bundle, then the federated ones, sorted by their trust domains' names."""
        return (self.own, *(self.federated[name] for name in sorted(self.federated)))

    def to_json(self) -> str:
        """These bundles as a JSON object."""
        return json.dumps(
            {
                "revision": self.revision,
                "own": _document(self.own),
                "federated": [_document(each) for each in self.all[1:]],
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> TrustBundles:
        """The bundles that `to_json` made `text` of. Raises InvalidRequest if it is anything else."""
        if len(text) > MAX_BUNDLES_BYTES:
            raise InvalidRequest(f"trust bundles of more than {MAX_BUNDLES_BYTES} bytes are refused")
        try:
            document = json.loads(text)
            own = _bundle(document["own"])
            others = [_bundle(each) for each in document["federated"]]
            revision = document["revision"]
        except (KeyError, TypeError, RecursionError, *UNREADABLE):
            raise InvalidRequest("not trust bundles in Weft's JSON form") from None
        if type(revision) is not int or revision < 0:
            raise InvalidRequest("the revision of trust bundles is a whole number that is not negative")
        return cls(own, federated_bundles(own.trust_domain, others), revision)


def federated_bundles(own: str, bundles: list[TrustBundle]) -> Mapping[str, TrustBundle]:
    """`bundles` by trust domain.

    Raises InvalidRequest if they are too many, or one is of the domain `own`, or two are of the same.
    """
    by_domain = {each.trust_domain: each for each in bundles}
    if len(bundles) > MAX_FEDERATED:
        raise InvalidRequest(f"a trust domain can be federated with at most {MAX_FEDERATED} others")
    if len(by_domain) != len(bundles) or own in by_domain:
        raise InvalidRequest("a trust domain has one bundle only, and its own is not a federated one")
    return by_domain


def parse_bundle(trust_domain: str, pem: bytes) -> TrustBundle:
    """The bundle of `trust_domain` whose roots are in `pem`.

    Raises InvalidRequest if `pem` is too large, holds no certificate or something besides certificates, or a
    certificate that is no authority's or names another trust domain.
    """
    if len(pem) > MAX_BUNDLE_BYTES:
        raise InvalidRequest(f"a trust bundle of more than {MAX_BUNDLE_BYTES} bytes is refused")
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except UNREADABLE:
        raise InvalidRequest(f"the trust bundle for {trust_domain!r} holds no certificates in PEM") from None
    if len(certificates) != pem.count(b"-----BEGIN "):
        raise InvalidRequest(f"the trust bundle for {trust_domain!r} holds more than certificates")
    return _checked(trust_domain, tuple(each.public_bytes(Encoding.DER) for each in certificates))


def _checked(trust_domain: str, roots: tuple[bytes, ...]) -> TrustBundle:
    check_trust_domain(trust_domain)
    if not 0 < len(roots) <= MAX_ROOTS:
        raise InvalidRequest(
            f"a trust bundle has 1 to {MAX_ROOTS} roots, that of {trust_domain!r} {len(roots)}"
        )
    bundle = TrustBundle(trust_domain, tuple(dict.fromkeys(roots)))
    for root in bundle.certificates:
        check_authority(root, trust_domain)
    return bundle


def _document(bundle: TrustBundle) -> dict[str, object]:
    return {
        "trustDomain": bundle.trust_domain,
        "roots": [base64.b64encode(root).decode() for root in bundle.roots],
    }


def _bundle(document: dict[str, object]) -> TrustBundle:
    trust_domain, roots = document["trustDomain"], document["roots"]
    if not isinstance(trust_domain, str) or not isinstance(roots, list):
        raise TypeError("not a trust bundle")
    return _checked(trust_domain, tuple(base64.b64decode(root, validate=True) for root in roots))
