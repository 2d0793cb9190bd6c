"""Where NATS servers are: what their URLs may be, and how they are shown."""

from __future__ import annotations

import random
from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from weft.errors import InvalidRequest


def check_servers(servers: Sequence[str], *, encrypted: bool) -> None:
    """Raise InvalidRequest unless what is said to `servers` is encrypted, or stays on this machine."""
    for each in servers:
        scheme, separator, _ = each.partition("://")
        address = each if separator else f"nats://{each}"
        where = without_credentials(address)
        if separator and scheme not in {"nats", "tls"}:
            raise InvalidRequest(
                f"{where} is no NATS server: write tls://host:port, or nats:// on this machine"
            )
        if encrypted != address.startswith("tls://"):
            way_out = (
                "write tls://" if encrypted else "give it a certificate, or write nats:// on this machine"
            )
            raise InvalidRequest(f"NATS at {where}: the URL and whether there is TLS do not agree; {way_out}")
        if not encrypted and not _is_loopback(address):
            raise InvalidRequest(
                f"NATS at {where} would be spoken to in plain text over a network: write tls://, "
                f"and give this process an identity of the mesh"
            )


def without_credentials(server: str) -> str:
    """What of a server's URL may be shown: host and port."""
    return urlsplit(server).netloc.rpartition("@")[2] or server.rpartition("@")[2]


def _is_loopback(address: str) -> bool:
    try:
        host = urlsplit(address).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class ServerOrder:
    """The servers, in the order in which they are tried next."""

    def __init__(self, servers: Sequence[str]) -> None:
        self._servers = random.sample(servers, len(servers))

    def next(self) -> list[str]:
        """All of them; the first comes last the next time, unless it is the one that can be reached."""
        servers = list(self._servers)
        self.put_last(servers[0])
        return servers

    def put_last(self, server: str) -> None:
        """Have `server` come last the next time: should it be gone, to wait for it takes most of the time."""
        self._servers.sort(key=lambda each: without_credentials(each) == without_credentials(server))
