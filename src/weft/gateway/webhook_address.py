"""Where webhooks may go: to addresses of the public Internet, and to networks that the gateway allows.

A URL comes from outside, and the gateway stands inside: where only it could go (its own loopback, the private
network, a cloud's metadata service) it is not sent, by address and not by name. The addresses of a name are
looked up once for each attempt, all of them are checked, and the connection goes to just those.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from weft.errors import InvalidRequest, Unavailable
from weft.model.gateway import WebhookSpec

MAX_URL_LENGTH = 2048

MAX_ADDRESSES = 16
"""Of a name; further ones are not tried."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]
"""Gives the addresses of a host name (for a port). Raises OSError."""

_VISIBLE = re.compile(r"[!-~]+")
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")
_MAX_HOST = 253

# IANA's registries of special addresses, written out: `is_global` says different things in each Python.
_NOT_PUBLIC_4 = tuple(
    ipaddress.IPv4Network(each)
    for each in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; clouds have services there
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's own, on every machine there
        "169.254.0.0/16",  # link-local; metadata services of clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    ipaddress.IPv6Network(each)
    for each in (
        "2001::/23",  # Teredo, which has an IPv4 address within, and others
        "2001:db8::/32",
        "2002::/16",  # 6to4, likewise
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where a webhook's URL points."""

    host: str
    """A name in lower case, or an address."""
    port: int
    tls: bool
    target: str
    """Path and query."""

    @property
    def authority(self) -> str:
        """For the header `Host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def parse_receiver(url: str, rules: WebhookSpec) -> Receiver:
    """Where `url` points. Raises InvalidRequest if no webhook may be sent to such a URL."""
    if len(url) > MAX_URL_LENGTH or not _VISIBLE.fullmatch(url) or "\\" in url:
        raise InvalidRequest(f"the webhook is not a URL of at most {MAX_URL_LENGTH} visible ASCII characters")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidRequest("the webhook is not a URL") from error
    if parts.scheme not in {"https", "http"} or not host:
        raise InvalidRequest("the webhook's URL must begin with https:// and a host")
    if parts.scheme == "http" and not rules.allow_http:
        raise InvalidRequest(
            "the webhook's URL must begin with https://: this gateway sends none in plain text"
        )
    if "@" in parts.netloc or "#" in url:
        raise InvalidRequest("the webhook's URL must not have a user, password or fragment")
    tls = parts.scheme == "https"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Receiver(_checked_host(host), port or (443 if tls else 80), tls, target)


def _checked_host(host: str) -> str:
    address = _as_address(host)
    if address is not None:
        return str(address)
    if len(host) > _MAX_HOST or not _HOST.fullmatch(host):
        raise InvalidRequest("the webhook's host is neither a name nor an address")
    return host


def _as_address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def is_permitted(address: Address, rules: WebhookSpec) -> bool:
    """Whether a webhook may go to `address`."""
    inner = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    real = inner or address
    for network in map(ipaddress.ip_network, rules.allow_networks):
        if real.version == network.version and real in network:
            return True
    if isinstance(real, ipaddress.IPv4Address):
        return not any(real in network for network in _NOT_PUBLIC_4)
    scoped = real.scope_id is not None
    return not scoped and real in _PUBLIC_6 and not any(real in network for network in _NOT_PUBLIC_6)


async def system_lookup(host: str, port: int) -> Sequence[str]:
    """The addresses of `host`, as the system finds them. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(each[4][0]) for each in found]


async def permitted_addresses(
    receiver: Receiver, rules: WebhookSpec, lookup: Lookup = system_lookup
) -> Sequence[str]:
    """The addresses of `receiver`, to which the connection must go.

    There is no time limit. Raises InvalidRequest if one of them is not permitted, Unavailable if there are
    none to be found.
    """
    literal = _as_address(receiver.host)
    if literal is not None:
        found: Sequence[str] = [receiver.host]
    else:
        try:
            found = await lookup(receiver.host, receiver.port)
        except (OSError, UnicodeError) as error:
            raise Unavailable(f"the address of the webhook's host {receiver.host} cannot be found") from error
    addresses = [_as_address(each) for each in dict.fromkeys(found)]
    if not addresses:
        raise Unavailable(f"the webhook's host {receiver.host} has no address")
    if any(each is None or not is_permitted(each, rules) for each in addresses):
        # Not which one: names of the network inside are not for asking what they stand for.
        raise InvalidRequest(
            f"the webhook's host {receiver.host} is at an address that is not public, and not in the "
            "gateway's webhooks.allowNetworks"
        )
    return [str(each) for each in addresses[:MAX_ADDRESSES]]
