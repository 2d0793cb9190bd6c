"""How a process says to NATS who it is."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.store.nats_accounts import API, MEMBER_API

DEFAULT_INBOX_PREFIX = "_INBOX"

_ADMISSION_LIMIT = 4
"""Seconds for the handshake and for the server to ask the control plane, for which it takes up to three."""


@dataclass(frozen=True, slots=True)
class NatsLogin:
    """How a connection proves who it is, and where answers to it go."""

    tls: Callable[[], ssl.SSLContext] | None = None
    """Asked for a context at every connection, so that new certificates are used. It must verify servers."""
    credentials: Path | None = None
    """A file with the seed of a user nkey, read at every connection; None if the certificate says it all."""
    inbox_prefix: str = DEFAULT_INBOX_PREFIX
    """The subjects under which answers come in: those that the server permits this identity."""

    @property
    def api(self) -> str:
        """Where JetStream takes this client's questions: a certificate alone makes it a member."""
        return API if self.tls is None or self.credentials is not None else MEMBER_API

    def options(self) -> dict[str, Any]:
        """What nats-py is to be told of it for one connection."""
        options: dict[str, Any] = {"inbox_prefix": self.inbox_prefix}
        if self.tls is not None:
            # The handshake comes first: a client that waits to be told that TLS is required can be told
            # otherwise by whoever sits in between.
            options |= {
                "tls": self.tls(),
                "tls_handshake_first": True,
                "connect_timeout": _ADMISSION_LIMIT,
            }
        if self.credentials is not None:
            options["nkeys_seed"] = str(self.credentials)
        return options
