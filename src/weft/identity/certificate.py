"""What one certificate says, read strictly: whatever is not understood is refused.

Errors here are InvalidRequest; `weft.identity.svid` says what they mean for who presents the certificate.
"""

from __future__ import annotations

from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtensionOID

from weft.errors import InvalidRequest
from weft.identity.keys import check_public_key
from weft.model.spiffe import parse_spiffe_id

E = TypeVar("E", bound=x509.ExtensionType)

UNREADABLE = (
    ValueError,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    UnsupportedAlgorithm,
)
"""What the library raises for certificates and requests that it cannot read."""

_UNDERSTOOD = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


def extension(certificate: x509.Certificate, kind: type[E]) -> x509.Extension[E] | None:
    """The extension of that kind; None if there is none."""
    try:
        return certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


def check_readable(certificate: x509.Certificate) -> None:
    """Raise InvalidRequest unless the certificate's key, signature and critical extensions are understood."""
    try:
        unknown = [
            each.oid.dotted_string
            for each in certificate.extensions
            if each.critical and each.oid not in _UNDERSTOOD
        ]
        algorithm = certificate.signature_hash_algorithm
        key = certificate.public_key()
    except UNREADABLE as problem:
        raise InvalidRequest("the certificate cannot be read") from problem
    if unknown:
        raise InvalidRequest(f"the certificate has critical extensions unknown here: {', '.join(unknown)}")
    if algorithm is not None and not isinstance(algorithm, _HASHES):
        raise InvalidRequest(f"the certificate is signed with {algorithm.name}, which is too weak")
    check_public_key(key)


def uri_names(certificate: x509.Certificate) -> list[str]:
    """The URIs among the certificate's subject alternative names."""
    names = extension(certificate, x509.SubjectAlternativeName)
    return names.value.get_values_for_type(x509.UniformResourceIdentifier) if names else []


def check_authority(certificate: x509.Certificate, trust_domain: str) -> None:
    """Raise InvalidRequest unless `certificate` may sign others in `trust_domain`.

    Its SPIFFE ID, if it has one, must be the trust domain's own, without a path.
    """
    check_readable(certificate)
    constraints = extension(certificate, x509.BasicConstraints)
    if constraints is None or not constraints.value.ca:
        raise InvalidRequest("the certificate is not an authority's (basicConstraints: cA is not true)")
    usage = extension(certificate, x509.KeyUsage)
    if usage is None or not usage.value.key_cert_sign:
        raise InvalidRequest("the certificate's key may not sign others (keyUsage: no keyCertSign)")
    _check_authority_id(uri_names(certificate), trust_domain)


def _check_authority_id(names: list[str], trust_domain: str) -> None:
    if not names:
        return  # allowed by the standard
    if len(names) > 1:
        raise InvalidRequest(f"the authority's certificate has {len(names)} URI SANs; one is allowed")
    spiffe_id = parse_spiffe_id(names[0])
    if spiffe_id.path:
        raise InvalidRequest(
            f"the authority's SPIFFE ID {spiffe_id} has a path, which authorities' do not have"
        )
    if spiffe_id.trust_domain != trust_domain:
        raise InvalidRequest(
            f"the authority is one of the trust domain {spiffe_id.trust_domain!r}, not of {trust_domain!r}"
        )
