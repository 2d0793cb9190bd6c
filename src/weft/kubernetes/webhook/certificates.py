"""By which certificate the webhooks prove themselves to API servers, and whom API servers believe.

An API server knows nothing of the mesh's roots: it believes what stands in the webhook's configuration
(`caBundle`). That is an authority of its own, made once by `weft kubernetes bootstrap`.
"""

from __future__ import annotations

import base64
import binascii
import ssl
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from weft.errors import InvalidRequest
from weft.identity.one_time_authority import OneTimeAuthority

AUTHORITY: Final = "ca.crt"
CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"

MAX_AUTHORITIES: Final = 4
"""In a configuration: the newest, and those before it, which some pods may still have."""

_MAX_FILE_BYTES: Final = 64 * 1024


def webhook_keys(hosts: Collection[str]) -> Mapping[str, bytes]:
    """New keys for webhooks that are reached at `hosts`: an authority, a certificate and its key."""
    authority = OneTimeAuthority("weft webhooks")
    certificate, key = authority.issue("weft webhooks", (ExtendedKeyUsageOID.SERVER_AUTH,), hosts)
    return {AUTHORITY: authority.pem, CERTIFICATE: certificate, KEY: key}


class ServingKeys:
    """The keys in a directory, which may be replaced by others while they are in use."""

    def __init__(self, directory: Path) -> None:
        """Read them. Raises InvalidRequest if they are not there, or do not go together."""
        self._directory = directory
        self._contents = self._read()
        self.tls = _server_context(directory)
        """For a server; new connections get what was read last."""

    @property
    def authority(self) -> bytes:
        """By which the certificate is believed (PEM)."""
        return self._contents[0]

    def refresh(self) -> bool:
        """Read them anew; whether there were others. Raises as above, and goes on with those it had."""
        contents = self._read()
        if contents == self._contents:
            return False
        # First on its own: of keys that are being replaced half may be old.
        _server_context(self._directory)
        self.tls.load_cert_chain(self._directory / CERTIFICATE, self._directory / KEY)
        self._contents = contents
        return True

    def _read(self) -> tuple[bytes, ...]:
        contents = tuple(_content(self._directory / name) for name in (AUTHORITY, CERTIFICATE, KEY))
        if not authorities(contents[0]):
            raise InvalidRequest(f"{self._directory / AUTHORITY} holds no certificates (PEM)")
        return contents


def _server_context(directory: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(directory / CERTIFICATE, directory / KEY)
    except (ssl.SSLError, OSError) as error:
        raise InvalidRequest(
            f"{CERTIFICATE} and {KEY} in {directory} are no certificate and its key: delete the Secret, and "
            f"run the Job of `weft kubernetes bootstrap` again"
        ) from error
    return context


def _content(file: Path) -> bytes:
    try:
        with file.open("rb") as source:
            return source.read(_MAX_FILE_BYTES)
    except OSError as error:
        raise InvalidRequest(
            f"{file} cannot be read ({error.strerror or error}): mount the Secret that `weft kubernetes "
            f"bootstrap` makes for webhooks"
        ) from error


def authorities(pem: bytes) -> list[x509.Certificate]:
    """The certificates in `pem`; none where it cannot be read."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        return []


def believed(bundle: str, authority: bytes) -> str | None:
    """What is to stand in a `caBundle` so that API servers believe `authority`; None: it does already.

    What stood there stays behind it, as much as there is room for: while keys are being replaced, pods with
    the old ones must be believed as well as those with the new.
    """
    [own, *_] = authorities(authority)
    before = read_bundle(bundle)
    if own in before:
        return None
    kept = [own, *before][:MAX_AUTHORITIES]
    return base64.b64encode(b"".join(each.public_bytes(Encoding.PEM) for each in kept)).decode()


def read_bundle(bundle: str) -> list[x509.Certificate]:
    """The certificates in a `caBundle`; none where it cannot be read."""
    try:
        return authorities(base64.b64decode(bundle, validate=True))
    except (binascii.Error, ValueError):
        return []
