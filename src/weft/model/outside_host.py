"""Hosts outside the mesh, as resources name them."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

from weft.model.names import LOCALHOST_DOMAIN, MESH_DOMAIN

MAX_HOST_LENGTH = 253

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*")


def _name(value: str) -> str:
    if _HOST.fullmatch(value) is None:
        raise ValueError(
            "must be a host's name in lower case, without scheme, port and trailing dot, or IPv4"
        )
    if value.rpartition(".")[2].isdecimal() and not _is_ipv4(value):
        raise ValueError("ends in a number, but is no IPv4 address in its usual form")
    if f".{value}".endswith((f".{MESH_DOMAIN}", f".{LOCALHOST_DOMAIN}")):
        raise ValueError("is in the mesh's own domain: this is about hosts outside of it")
    return value


def _pattern(value: str) -> str:
    if value.startswith("*."):
        rest = _name(value.removeprefix("*."))
        if _is_ipv4(rest):
            raise ValueError("is an address: only names have hosts below them")
        return value
    return _name(value)


def is_ip(host: str) -> bool:
    """Whether `host` is an IP address rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_ipv4(value: str) -> bool:
    try:
        ipaddress.IPv4Address(value)
    except ValueError:
        return False
    return True


OutsideName = Annotated[str, StringConstraints(max_length=MAX_HOST_LENGTH), AfterValidator(_name)]
"""The name of a host outside the mesh, in lower case, or its IPv4 address."""

OutsidePattern = Annotated[str, StringConstraints(max_length=MAX_HOST_LENGTH), AfterValidator(_pattern)]
"""The same, or `*.` and a name: all hosts below it, but not itself."""
