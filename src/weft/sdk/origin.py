"""Pages of other origins, which a browser on this machine might have call what listens on loopback."""

from __future__ import annotations

import re

from starlette.types import Scope

_LOCAL = re.compile(r"https?://(127\.0\.0\.1|localhost|\[::1\]|([a-z0-9-]+\.)+mesh(\.localhost)?)(:\d+)?")
"""This machine, and hosts of the mesh, which nobody else can have."""


def from_elsewhere(scope: Scope) -> bool:
    """Whether a page of another machine's asks: programs send no `Origin`."""
    origins = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
    return not all(_LOCAL.fullmatch(each) for each in origins)
