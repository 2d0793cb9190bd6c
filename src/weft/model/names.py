"""Names, and the host names that are made of them.

Every name (type, instance, capability) is an RFC 1123 DNS label, since it becomes part of a host name.
"""

from __future__ import annotations

import re

from weft.errors import InvalidRequest

MESH_DOMAIN = "mesh"
"""Suffix of the hosts that an agent reaches through its sidecar: `http://summarizer.mesh/`."""

LOCALHOST_DOMAIN = "mesh.localhost"
"""The same hosts for clients that ignore HTTP_PROXY and address the sidecar's listener directly."""

CAPABILITY_DOMAIN = "cap"
"""Second-level suffix of the hosts that name a capability: `http://summarize.cap.mesh/`."""

RESERVED_TYPES = frozenset({CAPABILITY_DOMAIN, "caller", "control", "llm", "tools", "localhost", MESH_DOMAIN})
"""Names that a type cannot have, because the mesh itself answers at them."""

MAX_NAME_LENGTH = 63

NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
"""What a name of at most so many characters looks like, for schemas."""

_LABEL = re.compile(NAME_PATTERN)


def check_name(name: str, what: str = "name") -> str:
    """Return `name` if it is a DNS label (RFC 1123), else raise InvalidRequest.

    `what` says in the error which name it is: "type", "instance", "capability".
    """
    if len(name) <= MAX_NAME_LENGTH and _LABEL.fullmatch(name):
        return name
    raise InvalidRequest(
        f"{what} {name!r} is not a valid name: use 1 to {MAX_NAME_LENGTH} lower-case letters, digits and "
        f"hyphens, beginning and ending with a letter or digit"
    )


def check_type(name: str) -> str:
    """Return `name` if an agent type may have it, else raise InvalidRequest."""
    if name in RESERVED_TYPES:
        raise InvalidRequest(f"type {name!r} is reserved: the mesh itself answers at http://{name}.mesh/")
    return check_name(name, "type")
