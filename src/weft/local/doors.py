"""The ports of the gateways that run here, which their instances share, and with nobody else.

Gateways of another mesh on this machine would else share them too, if it is the same user's: callers would
come to one or the other, with keys that are good at one.
"""

from __future__ import annotations

from collections.abc import Collection

from weft.aio.ports import SHARES_HELD_PORTS, PortUnavailable, ReservedPort, reserve_port
from weft.model.node import Address


class Doors:
    """Holds ports."""

    def __init__(self) -> None:
        self._held: dict[Address, ReservedPort] = {}

    def hold(self, door: Address) -> str:
        """Hold a port, if it is not held yet. Why that cannot be; empty if it can."""
        if door not in self._held and SHARES_HELD_PORTS:
            try:
                self._held[door] = reserve_port(door.host, door.port)
            except PortUnavailable as error:
                return str(error)
        return ""

    def keep(self, doors: Collection[Address]) -> None:
        """Let go of all others."""
        for each in self._held.keys() - set(doors):
            self._held.pop(each).release()
