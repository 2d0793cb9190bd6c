"""Private keys, and requests to have their public half certified.

A private key never leaves the machine that made it: what travels is a signing request (PKCS #10).
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from weft.errors import InvalidRequest
from weft.model.spiffe import SpiffeId

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
"""The public keys that Weft certifies and takes from others."""

MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192
"""Verifying with a larger RSA key takes so long that it would be a way to attack."""

MAX_KEY_BYTES = 16 * 1024
"""A larger file is not a private key."""

_CURVES = (ec.SECP256R1, ec.SECP384R1)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A new private key: ECDSA with P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """`key` as PEM (PKCS #8), in the clear: only for a file that nobody else can read, or to be sealed."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def parse_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """The elliptic-curve private key in `pem`. Raises InvalidRequest, which does not repeat any of it."""
    try:
        if len(pem) > MAX_KEY_BYTES:
            raise ValueError("too large")  # noqa: TRY301 -- one way out, which says nothing of the content
        key = serialization.load_pem_private_key(pem, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError("another kind of key")  # noqa: TRY301
        check_public_key(key.public_key())
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidRequest):
        raise InvalidRequest("not a private key on P-256 or P-384 in PEM, without a password") from None
    return key


def check_public_key(key: object) -> PublicKey:
    """Return `key` if it is strong enough and of a kind that is understood, else raise InvalidRequest."""
    match key:
        case ec.EllipticCurvePublicKey() if isinstance(key.curve, _CURVES):
            return key
        case rsa.RSAPublicKey() if MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            return key
        case ed25519.Ed25519PublicKey():
            return key
    raise InvalidRequest(
        f"a key must be ECDSA on P-256 or P-384, Ed25519, or RSA with {MIN_RSA_BITS} to {MAX_RSA_BITS} bits"
    )


def signing_request(key: ec.EllipticCurvePrivateKey, spiffe_id: SpiffeId | None = None) -> bytes:
    """A request (PKCS #10, PEM) to certify `key`'s public half.

    `spiffe_id` is who the requester takes itself for. It decides nothing, but the authority refuses a request
    that names another than the one it would give.
    """
    builder = x509.CertificateSigningRequestBuilder(x509.Name([]))
    if spiffe_id is not None:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(spiffe_id))])
        builder = builder.add_extension(names, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
