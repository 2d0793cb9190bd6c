"""The ports of a local mesh."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from weft.errors import InvalidRequest, Unavailable
from weft.local.port_holder import port_holder
from weft.local.ports import check_free, free_ports, ports_from


def test_the_ports_follow_each_other_from_the_base() -> None:
    assert list(ports_from(7400).model_dump().values()) == [7400, 7401, 7402, 7403, 7404, 7405]


@pytest.mark.parametrize("base", [-1, 65_531, 70_000])
def test_a_base_without_six_ports_after_it_is_refused(base: int) -> None:
    with pytest.raises(InvalidRequest, match=str(base)):
        ports_from(base)


def test_free_ports_are_six_different_ones_that_can_be_bound() -> None:
    ports = free_ports()
    assert len(set(ports.model_dump().values())) == 6
    check_free(ports)


def test_a_port_in_use_is_named_with_its_purpose_its_holder_and_the_way_out() -> None:
    ports = free_ports()
    with socket.create_server(("127.0.0.1", ports.nats)), pytest.raises(Unavailable) as error:
        check_free(ports)
    assert f"port {ports.nats}, meant for NATS, is in use" in error.value.detail
    assert "--port-base" in error.value.detail
    assert str(ports.api) not in error.value.detail


@pytest.mark.skipif(sys.platform != "linux", reason="the holder of a port is known on Linux only")
def test_the_holder_of_a_port_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        holder = port_holder(port)
    assert holder is not None
    assert f"(pid {os.getpid()})" in holder


def test_nobody_holds_a_free_port() -> None:
    assert port_holder(free_ports().api) is None
