"""The ports of gateways on one machine."""

from __future__ import annotations

import pytest

from weft.aio.ports import SHARES_HELD_PORTS, reserve_port, share_port
from weft.local.doors import Doors
from weft.model.node import Address

HOST = "127.0.0.1"


@pytest.mark.skipif(not SHARES_HELD_PORTS, reason="held ports cannot be shared here")
def test_a_gateways_port_is_shared_by_its_instances_and_not_with_another_mesh() -> None:
    with reserve_port(HOST) as free:
        door = Address(HOST, free.port)
    one, other = Doors(), Doors()
    assert one.hold(door) == one.hold(door) == ""
    with share_port(HOST, door.port), share_port(HOST, door.port):
        assert f"port {door.port} at {HOST} cannot be used" in other.hold(door)
    one.keep([door])
    assert other.hold(door)
    one.keep([])
    assert other.hold(door) == ""
    other.keep([])
