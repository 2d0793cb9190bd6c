"""Whom this machine trusts: the certificate authorities by which hosts outside the mesh are believed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

VARIABLE = "SSL_CERT_FILE"
"""Environment variable that names the file, as for OpenSSL."""

_USUAL = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/ca-bundle.pem"),
    Path("/etc/ssl/cert.pem"),
)
"""Where the systems keep them: Debian and Alpine, Red Hat, SUSE, macOS and BSD."""


def system_roots(environ: Mapping[str, str]) -> Path | None:
    """The file with their certificates in PEM; None if this machine has none."""
    named = environ.get(VARIABLE)
    candidates = (Path(named),) if named else _USUAL
    return next((each.absolute() for each in candidates if each.is_file()), None)
