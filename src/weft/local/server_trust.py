"""Whom a client of the control plane takes for the control plane: whoever a file of roots vouches for."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any

from weft.errors import InvalidRequest, MeshError, Unavailable
from weft.identity.tls import client_context

BUNDLE_FILE = "bundle.pem"
"""In a mesh's directory: the roots (PEM) that vouch for its processes."""

MAX_ROOTS_BYTES = 1024 * 1024


class FollowedRoots(ssl.SSLContext):
    """A client's context that reads its roots anew whenever their file was replaced: roots rotate.

    Make it with `followed_roots`.
    """

    _file: Path
    _seen: tuple[int, ...] = ()
    _current: ssl.SSLContext | None = None

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """A new connection. Raises Unavailable as long as there are no roots to begin with."""
        return self._context().wrap_bio(*arguments, **options)

    def _context(self) -> ssl.SSLContext:
        try:
            with self._file.open("rb") as file:
                status = os.fstat(file.fileno())
                seen = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
                if self._current is None or seen != self._seen:
                    self._current, self._seen = client_context(_limited(file.read(MAX_ROOTS_BYTES + 1))), seen
        except (OSError, MeshError) as error:
            if self._current is None:
                raise Unavailable(
                    f"the roots by which to know the control plane cannot be read from {self._file}: {error}"
                ) from error
        return self._current


def followed_roots(file: Path) -> FollowedRoots:
    """A context with the roots (PEM) in `file`, which need not be there until a connection is made."""
    context = FollowedRoots(ssl.PROTOCOL_TLS_CLIENT)
    context._file = file
    return context


def server_trust(roots: Path | bytes | None) -> ssl.SSLContext:
    """A client's context with roots from a file, which is followed, or as PEM; None: those of this machine.

    Raises Unauthenticated if the PEM holds none.
    """
    if roots is None:
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return context
    return client_context(roots) if isinstance(roots, bytes) else followed_roots(roots)


def _limited(roots: bytes) -> bytes:
    if len(roots) > MAX_ROOTS_BYTES:
        raise InvalidRequest(f"it has more than {MAX_ROOTS_BYTES} bytes")
    return roots
