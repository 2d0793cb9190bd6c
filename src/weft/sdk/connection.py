"""Where a program's sidecar listens."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from weft.errors import InvalidRequest, Unavailable
from weft.sdk.local_mesh import running_mesh

PROXY_VARIABLE = "WEFT_PROXY"
"""Environment variable with the address of the sidecar's outbound listener, `http://127.0.0.1:15001`."""


def find_proxy(environ: Mapping[str, str]) -> str:
    """Return the address of the sidecar's outbound listener that `environ` names, else the local mesh's door.

    Raises Unavailable if there is neither, InvalidRequest if what is named is no address.
    """
    address = environ.get(PROXY_VARIABLE, "")
    if address:
        return check_proxy(address, PROXY_VARIABLE)
    mesh = running_mesh(environ)
    if mesh is not None:
        return mesh.proxy_url
    raise Unavailable(
        "this program has no sidecar, and no mesh runs on this machine. Four ways out: start a mesh with "
        "`weft up`; start this program with `weft run -- COMMAND`; "
        f"set {PROXY_VARIABLE}=http://127.0.0.1:PORT to a running sidecar's outbound listener; "
        "or say so in the code, Mesh(proxy='http://127.0.0.1:PORT')"
    )


def check_proxy(address: str, source: str) -> str:
    """Return `address` as `http://host:port`; raise InvalidRequest, naming `source`, if it is none."""
    try:
        parts = urlsplit(address)
        valid = parts.scheme == "http" and parts.hostname and parts.port and parts.path in {"", "/"}
    except ValueError:
        valid = False
    if not valid:
        raise InvalidRequest(f"{source} must look like http://127.0.0.1:15001, not {address!r}")
    return address.rstrip("/")
