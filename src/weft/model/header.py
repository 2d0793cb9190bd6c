"""Names and values of HTTP headers in resources."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_PROTECTED = _HOP_BY_HOP | {"host", "content-length"}


def _header_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(f"{value!r} is not the name of a header")
    return value


def _changeable(name: str) -> str:
    lower = name.lower()
    if lower in _PROTECTED or lower.startswith("x-weft-"):
        raise ValueError(f"header {name!r} is the mesh's own to set: a Route cannot change it")
    return name


HeaderName = Annotated[str, StringConstraints(max_length=128), AfterValidator(_header_name)]
"""The name of a header; its case makes no difference."""

ChangeableHeader = Annotated[HeaderName, AfterValidator(_changeable)]
"""The name of a header that a Route may change."""

HeaderValue = Annotated[str, StringConstraints(max_length=4096, pattern=r"^[\t\x20-\x7e\x80-\xff]*$")]
"""The value of a header: no control characters, at most 4,096 characters."""
