"""The secrets in a sidecar's runtime directory: what they are called by those who write and who use them."""

from __future__ import annotations

IDENTITY = "identity"
"""The sidecar's own certificate chain and private key."""

TRUST = "trust"
"""The roots by which callers are believed: the own trust domain's and the federated ones'."""

OWN_TRUST = "own-trust"
"""The roots by which servers are believed: the own trust domain's alone, whose all servers are."""

SYSTEM_ROOTS = "system-roots"
"""The roots by which hosts outside the mesh are believed: those of the machine. Without a file here."""


def secret_file(name: str) -> str:
    """The file of the secret `name`, relative to the sidecar's runtime directory."""
    return f"{name}.json"


def secret_path(name: str) -> str:
    """The same as Envoy wants it: relative to its working directory, which is that runtime directory."""
    return f"./{secret_file(name)}"
