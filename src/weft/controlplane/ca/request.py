"""Certificate signing requests (PKCS #10) from outside, read strictly."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from weft.errors import Denied, InvalidRequest
from weft.identity.certificate import UNREADABLE
from weft.identity.keys import PublicKey, check_public_key
from weft.model.spiffe import SpiffeId

MAX_REQUEST_BYTES = 16 * 1024
"""A larger request is refused unread."""

_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


def requested_key(csr_pem: bytes, spiffe_id: SpiffeId) -> PublicKey:
    """The public key that the request wants certified for `spiffe_id`, whose private key the requester has.

    Whatever else it asks for is ignored, but for a URI: one that is not `spiffe_id` raises Denied. Raises
    InvalidRequest if it is too large, no request in PEM, not signed with its own key, or the key is of a kind
    that is not certified.
    """
    request = _parse(csr_pem)
    try:
        key = check_public_key(request.public_key())
        algorithm = request.signature_hash_algorithm
        signed = request.is_signature_valid
        names = _uris(request)
    except UNREADABLE:
        raise InvalidRequest("the certificate signing request cannot be read") from None
    if not signed or (algorithm is not None and not isinstance(algorithm, _HASHES)):
        raise InvalidRequest("the certificate signing request is not signed with its own key, or too weakly")
    for name in names:
        if name != str(spiffe_id):
            raise Denied(
                f"the certificate signing request is for {name[:300]!r}, but who sent it is {spiffe_id}; "
                "the authority decides the SPIFFE ID: leave it out, or name your own"
            )
    return key


def _parse(csr_pem: bytes) -> x509.CertificateSigningRequest:
    if len(csr_pem) > MAX_REQUEST_BYTES:
        raise InvalidRequest(f"a certificate signing request has at most {MAX_REQUEST_BYTES} bytes")
    try:
        request = x509.load_pem_x509_csr(csr_pem)
    except UNREADABLE:
        raise InvalidRequest("not a certificate signing request (PKCS #10) in PEM") from None
    if csr_pem.count(b"-----BEGIN ") != 1:
        raise InvalidRequest("there is more than one certificate signing request, or something besides it")
    return request


def _uris(request: x509.CertificateSigningRequest) -> list[str]:
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return names.value.get_values_for_type(x509.UniformResourceIdentifier)
