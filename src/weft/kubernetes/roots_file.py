"""The mesh's roots in a file, as the control plane or a ConfigMap leaves them there: read, and looked at."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from weft.errors import InvalidRequest
from weft.local.server_trust import MAX_ROOTS_BYTES


def read_roots(file: Path) -> bytes:
    """The roots (PEM) in `file`; none if it is not there yet, or empty.

    Raises InvalidRequest if it holds something else, or too much, OSError if it cannot be read.
    """
    try:
        with file.open("rb") as source:
            roots = source.read(MAX_ROOTS_BYTES + 1)
    except FileNotFoundError:
        return b""
    if len(roots) > MAX_ROOTS_BYTES:
        raise InvalidRequest(f"{file} has more than {MAX_ROOTS_BYTES} bytes")
    if not roots.strip():
        return b""
    try:
        roots.decode("ascii")
        x509.load_pem_x509_certificates(roots)
    except ValueError as error:
        raise InvalidRequest(f"{file} holds no certificates (PEM)") from error
    return roots
