"""Where push notifications may go: callers name the addresses, and agents stand where callers may not go.

Within the mesh a caller has its own agents told, and nobody else: a call of this agent's must not do what the
caller itself may not. Outside of it Egress resources decide; link-local addresses, where clouds hand out
credentials, are refused in any case. Who comes in by a gateway reaches neither this machine nor its networks,
so it has nobody told there: what it names is a host name or a public address.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from weft.errors import InvalidRequest
from weft.model.names import LOCALHOST_DOMAIN, MESH_DOMAIN
from weft.model.spiffe import Role, parse_spiffe_id

MAX_URL_LENGTH = 2048

_LOCALHOST = ".localhost"
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


def check_push_url(url: str, caller: str, *, outside: bool = False) -> None:
    """Raise InvalidRequest unless events of a task of `caller`'s (a SPIFFE ID, or empty) may go to `url`.

    `outside`: it is somebody who came in by a gateway, whatever `caller` is.
    """
    if len(url) > MAX_URL_LENGTH or not (url.isascii() and url.isprintable()) or " " in url:
        raise InvalidRequest(f"a push notification's url is ASCII, {MAX_URL_LENGTH} characters at most")
    try:
        parts = urlsplit(url)
        named = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        named = False
    if not named:
        raise InvalidRequest("a push notification's url is http or https, with a host")
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise InvalidRequest("a push notification's url names no user: use `authentication` for that")
    _check_host((parts.hostname or "").rstrip(".").lower(), "" if outside else caller, outside=outside)


def _check_host(host: str, caller: str, *, outside: bool) -> None:
    for domain in (LOCALHOST_DOMAIN, MESH_DOMAIN):
        if host == domain or host.endswith(f".{domain}"):
            _check_own(host.removesuffix(domain).removesuffix("."), caller)
            return
    if not _may_be_told(host, outside=outside):
        raise InvalidRequest("push notifications do not go to that address")


def _check_own(name: str, caller: str) -> None:
    """Raise InvalidRequest unless `name`, of a host in the mesh, is the caller's type or instance."""
    own = _type_of(caller)
    if own is None or name.rpartition(".")[2] != own or name.count(".") > 1:
        raise InvalidRequest("within the mesh push notifications go to agents of the caller's own type only")


def _type_of(caller: str) -> str | None:
    try:
        identity = parse_spiffe_id(caller)
    except InvalidRequest:
        return None
    return identity.segments[1] if identity.role is Role.AGENT else None


def _may_be_told(host: str, *, outside: bool) -> bool:
    if outside and f".{host}".endswith(_LOCALHOST):
        return False
    try:
        address = ip_address(host)
    except ValueError:
        # Resolvers take numbers in other notations for addresses, too.
        return _NUMBER.fullmatch(host.rpartition(".")[2]) is None
    address = getattr(address, "ipv4_mapped", None) or address
    if outside and not address.is_global:
        return False
    return not (address.is_link_local or address.is_multicast or address.is_unspecified)
