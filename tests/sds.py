"""What an Envoy in a test proves itself with."""

from __future__ import annotations

from pathlib import Path

from tests.pki import Pki
from weft.sidecar.sds import write_identity, write_trust


def write_secrets(directory: Path, pki: Pki, identity: str, *federated: Pki) -> None:
    """Have the Envoy that runs in `directory` be `identity`, and trust `pki` and those others."""
    write_identity(directory, *pki.svid(identity))
    write_trust(directory, pki.bundles(*federated))
