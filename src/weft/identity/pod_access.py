"""As whom a pod comes to the API of its cluster, and where that is."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from weft.errors import InvalidRequest
from weft.model.node import Address

CREDENTIALS = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds the token of its service account, the roots of the API server, and its namespace."""

_MAX_FILE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class PodAccess:
    """Where the API server is, and as whom this pod comes.

    Kubernetes replaces the token every hour or so: whoever runs for long makes a new one for each use.
    """

    url: str
    token: str = field(repr=False)
    trust: ssl.SSLContext
    namespace: str

    @classmethod
    def of(cls, environ: Mapping[str, str], credentials: Path = CREDENTIALS) -> Self:
        """What a pod is given. Raises InvalidRequest if this process is in none, or was not given all."""
        host = environ.get("KUBERNETES_SERVICE_HOST", "")
        port = environ.get("KUBERNETES_SERVICE_PORT", "")
        if not host or not port.isdecimal():
            raise InvalidRequest(
                "this runs in a pod of a cluster only: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT "
                "do not say where its API is"
            )
        authority = credentials / "ca.crt"
        try:
            trust = ssl.create_default_context(cadata=_read(authority))
        except ssl.SSLError as error:
            raise InvalidRequest(f"{authority} holds no certificates (PEM)") from error
        trust.minimum_version = ssl.TLSVersion.TLSv1_2
        return cls(
            f"https://{Address(host, int(port))}",
            pod_token(credentials),
            trust,
            _read(credentials / "namespace").strip(),
        )


def pod_token(credentials: Path = CREDENTIALS) -> str:
    """The pod's token as it is now. Raises InvalidRequest if there is none."""
    return _read(credentials / "token").strip()


def _read(file: Path) -> str:
    try:
        with file.open(encoding="ascii") as source:
            return source.read(_MAX_FILE_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            f"{file}, which a pod has, cannot be read ({error}): is its service account's token mounted?"
        ) from error
