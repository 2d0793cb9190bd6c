"""Which version of A2A a request speaks, more strictly than a2a-sdk reads it.

It takes 1.1 for 1.0, does not read the version from the query, where clients may put it, and fails on methods
of 0.3 in requests of 1.0.
"""

from __future__ import annotations

import re

from a2a.utils.constants import VERSION_HEADER
from a2a.utils.errors import VersionNotSupportedError
from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.types import Scope

V1 = "1.0"
V03 = "0.3"
SUPPORTED = (V1, V03)

_VERSION = re.compile(r"(\d{1,4}\.\d{1,4})(?:\.\d{1,4})?")


def version_of(scope: Scope) -> str:
    """The version, major and minor; 0.3 if a request does not say. Raises VersionNotSupportedError."""
    said = Headers(scope=scope).get(VERSION_HEADER) or QueryParams(scope["query_string"]).get(VERSION_HEADER)
    if not said:
        return V03
    match = _VERSION.fullmatch(said)
    if match is None or match[1] not in SUPPORTED:
        raise VersionNotSupportedError(f"this agent speaks A2A {' and '.join(SUPPORTED)}, not {said[:32]!r}")
    return match[1]


def with_version(scope: Scope, version: str) -> Scope:
    """The same request, whose header says the version."""
    scope = {**scope, "headers": list(scope["headers"])}
    MutableHeaders(scope=scope)[VERSION_HEADER] = version
    return scope
