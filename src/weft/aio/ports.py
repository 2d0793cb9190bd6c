"""TCP ports that stay ours from the moment they are chosen.

A port taken from the kernel's ephemeral range may serve an outgoing connection by the time a server binds it,
and a port that was merely tried out may be taken by anybody. So a port is chosen outside that range, and held
by a bound socket that never listens. The socket is bound exclusively and only then opened to sharing
(SO_REUSEPORT): a server of the same user that sets SO_REUSEPORT, as Envoy does, can bind it, as often as it
is restarted; nobody else can.
"""

from __future__ import annotations

import secrets
import socket
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

_FIRST_CANDIDATE = 10_000
_LAST_PORT = 65_535
_ATTEMPTS = 200
_EPHEMERAL_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_IANA_EPHEMERAL_RANGE = (49_152, 65_535)

SHARES_HELD_PORTS = sys.platform == "linux"
"""Whether a server can bind a port while it is held. Elsewhere Envoy does not set SO_REUSEPORT for TCP."""


class PortUnavailable(OSError):
    """The port cannot be had; the text says which, why, and what to do."""


class ReservedPort:
    """A port at which nobody else can listen until it is released.

    Where SHARES_HELD_PORTS is false, release it just before the server starts.
    """

    def __init__(self, held: socket.socket) -> None:
        self._socket = held
        address = held.getsockname()
        self.host: str = address[0]
        self.port: int = address[1]

    def release(self) -> None:
        """Let anybody bind the port. Releasing it again does nothing."""
        self._socket.close()

    def take(self) -> socket.socket:
        """The bound socket itself, for a server in this process: its to close."""
        taken = self._socket.dup()
        self._socket.close()
        return taken

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def reserve_port(host: str, port: int | None = None) -> ReservedPort:
    """Hold `port` at the IP address `host`; None chooses a free one outside the ephemeral range.

    Raises PortUnavailable if the port is in use or may not be bound, or if no free one is found.
    """
    if port is None:
        return _reserve_any(host)
    try:
        return ReservedPort(_hold(host, port, reuse_address=True))
    except OSError as error:
        raise _taken(host, port, error) from error


def share_port(host: str, port: int) -> ReservedPort:
    """Hold `port` at the IP address `host` together with others of this user who share it, and only these.

    Raises PortUnavailable if somebody else has the port, or it may not be bound.
    """
    held = _new_socket(host)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, True)
        held.bind((host, port))
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, False)  # as `_hold` does
    except OSError as error:
        held.close()
        raise _taken(host, port, error) from error
    return ReservedPort(held)


def _taken(host: str, port: int, error: OSError) -> PortUnavailable:
    return PortUnavailable(
        f"port {port} at {host} cannot be used ({error.strerror or error}): stop the program that "
        f"listens there, or choose another port"
    )


def _new_socket(host: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)


def _reserve_any(host: str) -> ReservedPort:
    candidates = _outside(_ephemeral_range())
    refusal: OSError | None = None
    for _ in range(_ATTEMPTS):
        try:
            return ReservedPort(_hold(host, secrets.choice(candidates), reuse_address=False))
        except OSError as error:
            refusal = error
    raise PortUnavailable(f"no free port found at {host}: {refusal}") from refusal


def _hold(host: str, port: int, *, reuse_address: bool) -> socket.socket:
    """Bind exclusively, then open to sharing.

    `reuse_address` passes over connections of a previous server that are still closing. It is taken back at
    once, since with it two sockets that don't listen could hold one port.
    """
    held = _new_socket(host)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse_address)
        held.bind((host, port))
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, False)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, True)
    except OSError:
        held.close()
        raise
    return held


def _ephemeral_range() -> tuple[int, int]:
    with suppress(OSError, ValueError):
        first, last = _EPHEMERAL_RANGE_FILE.read_text(encoding="ascii").split()
        return int(first), int(last)
    return _IANA_EPHEMERAL_RANGE


def _outside(ephemeral: tuple[int, int]) -> range:
    """The larger run of unprivileged ports beside the ephemeral ones; any port if they leave too few."""
    below = range(_FIRST_CANDIDATE, max(ephemeral[0], _FIRST_CANDIDATE))
    above = range(ephemeral[1] + 1, _LAST_PORT + 1)
    largest = max(below, above, key=len)
    return largest if len(largest) > _ATTEMPTS else range(_FIRST_CANDIDATE, _LAST_PORT + 1)
