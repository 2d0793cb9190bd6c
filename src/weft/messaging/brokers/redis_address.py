"""Where a Redis is, and who asks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Connection, SSLConnection

from weft.errors import InvalidRequest

logger = logging.getLogger(__name__)

_DEFAULT_PORT = 6379
_FORM = "write redis://host:6379/0, or rediss://host:6379/0 for TLS, without user, password and options"


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A Redis and a user of it."""

    host: str
    port: int
    database: int
    tls: bool
    username: str = ""
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def connection(self, timeout: float) -> Connection:
        """A connection yet to be made, within `timeout` seconds; it never tries again by itself."""
        options: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "db": self.database,
            "username": self.username or None,
            "password": self.password or None,
            "socket_timeout": None,
            "socket_connect_timeout": timeout,
            "socket_keepalive": True,
            "client_name": "weft",
            "protocol": 2,
        }
        make: Callable[..., Connection] = SSLConnection if self.tls else Connection
        return make(**options)


def parse_redis_url(url: str, *, username: str = "", password: str = "") -> RedisAddress:
    """What `url` says. Raises InvalidRequest, which repeats none of it: it may hold a password."""
    try:
        parts = urlsplit(url)
        port = _DEFAULT_PORT if parts.port is None else parts.port
        database = int(parts.path.strip("/") or 0)
    except ValueError:
        raise InvalidRequest(f"the URL of Redis has no form: {_FORM}") from None
    if parts.scheme not in {"redis", "rediss"} or not parts.hostname or database < 0:
        raise InvalidRequest(f"the URL of Redis has no form: {_FORM}")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InvalidRequest(f"the URL of Redis holds what does not belong there: {_FORM}")
    address = RedisAddress(
        parts.hostname, port, database, parts.scheme == "rediss", username=username, password=password
    )
    if not address.tls and not _is_loopback(address.host):
        logger.warning("Redis at %s is spoken to in plain text, password included: use rediss://", address)
    return address


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
