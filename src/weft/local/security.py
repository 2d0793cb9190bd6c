"""What proves who is who in a mesh on one machine: made by `weft up`, kept in the mesh's directory.

| file | what | made |
|---|---|---|
| `identity/sealing.key` | seals the authority's keys and the Secrets in NATS | once |
| `identity/nats/` | NATS's certificate and the control plane's access to it | at every start |
| `token` | the admin token of whoever started the mesh | at every start |
| `bundle.pem` | the mesh's roots, by which its processes are believed | by the control plane |

Only this user can read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from weft.aio.private_file import write_private
from weft.controlplane.sealing import make_key_file
from weft.local.nats_security import NatsSecurity, make_nats_security
from weft.local.server_trust import BUNDLE_FILE
from weft.local.token_file import TOKEN_FILE
from weft.model.operator import new_token

OPERATOR = "local"
"""The name of the operator who started the mesh."""


@dataclass(frozen=True, slots=True)
class LocalSecurity:
    """The files, and what stands in them."""

    directory: Path
    """The mesh's."""
    token: str
    nats: NatsSecurity

    @property
    def bundle(self) -> Path:
        """The mesh's roots, once the control plane has written them."""
        return self.directory / BUNDLE_FILE

    def refresh_nats_trust(self) -> bool:
        """Have NATS believe the holders of certificates below the roots as they are now.

        Whether anything changed: NATS is then to be told. Raises OSError.
        """
        return self.nats.trust(self.bundle.read_bytes() if self.bundle.exists() else b"")

    def control_environment(self) -> Mapping[str, str]:
        """What the control plane is told of it: names of files, no secret."""
        return {
            "WEFT_CONTROL_SEALING_KEY": f"file:{_sealing_key(self.directory)}",
            "WEFT_CONTROL_OPERATOR": OPERATOR,
            "WEFT_CONTROL_OPERATOR_TOKEN_FILE": str(self.directory / TOKEN_FILE),
            "WEFT_CONTROL_BUNDLE_FILE": str(self.bundle),
            **self.nats.control_environment(),
        }


def make_security(directory: Path, *, fresh: bool) -> LocalSecurity:
    """Make what is made at every start; `fresh` forgets what NATS kept, the authority's keys among it.

    Raises OSError.
    """
    identity = directory / "identity"
    identity.mkdir(mode=0o700, exist_ok=True)
    key = _sealing_key(directory)
    if fresh:
        key.unlink(missing_ok=True)
    if not key.exists():
        make_key_file(key)
    # Whoever reads it before the control plane has written it anew would believe an authority of the past.
    (directory / BUNDLE_FILE).unlink(missing_ok=True)
    token = new_token()
    write_private(directory / TOKEN_FILE, f"{token}\n".encode())
    return LocalSecurity(directory, token, make_nats_security(identity / "nats"))


def _sealing_key(directory: Path) -> Path:
    return directory / "identity" / "sealing.key"
