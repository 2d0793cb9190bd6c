from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from weft.aio.ports import SHARES_HELD_PORTS, PortUnavailable, reserve_port, share_port

LOOPBACK = "127.0.0.1"
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def bound(port: int, *options: int) -> socket.socket:
    server = socket.socket()
    try:
        for option in options:
            server.setsockopt(socket.SOL_SOCKET, option, 1)
        server.bind((LOOPBACK, port))
    except OSError:
        server.close()
        raise
    return server


def test_ports_chosen_are_free_distinct_and_held() -> None:
    reserved = [reserve_port(LOOPBACK) for _ in range(20)]
    try:
        assert len({each.port for each in reserved}) == 20
        for each in reserved:
            with pytest.raises(OSError, match="in use") as refused:
                bound(each.port, socket.SO_REUSEADDR)
            assert refused.value.errno == errno.EADDRINUSE
    finally:
        for each in reserved:
            each.release()


@pytest.mark.skipif(not EPHEMERAL.exists(), reason="only Linux tells its ephemeral range in a file")
def test_ports_chosen_are_none_that_an_outgoing_connection_may_get() -> None:
    first, last = map(int, EPHEMERAL.read_text().split())
    for _ in range(20):
        with reserve_port(LOOPBACK) as reserved:
            assert not first <= reserved.port <= last


@pytest.mark.skipif(not SHARES_HELD_PORTS, reason="held ports cannot be shared here")
def test_a_server_that_shares_its_port_can_listen_while_it_is_held_and_again_after_it_died() -> None:
    with reserve_port(LOOPBACK) as reserved:
        for _ in range(3):
            with (
                bound(reserved.port, socket.SO_REUSEADDR, socket.SO_REUSEPORT) as server,
                socket.socket() as client,
            ):
                server.listen()
                client.connect((LOOPBACK, reserved.port))
                server.accept()[0].close()


def test_a_held_port_refuses_connections_while_its_server_is_down() -> None:
    with reserve_port(LOOPBACK) as reserved, pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK, reserved.port), timeout=1)


def test_a_released_port_is_anybodys() -> None:
    with reserve_port(LOOPBACK) as reserved:
        pass
    bound(reserved.port).close()


def test_a_port_in_use_is_refused_by_name_even_if_its_owner_would_share_it() -> None:
    with bound(0, socket.SO_REUSEADDR, socket.SO_REUSEPORT) as owner:
        owner.listen()
        port = owner.getsockname()[1]
        with pytest.raises(PortUnavailable, match=rf"port {port} at 127\.0\.0\.1 .*choose another port"):
            reserve_port(LOOPBACK, port)


def test_a_given_port_can_be_held_once() -> None:
    with reserve_port(LOOPBACK) as chosen:
        port = chosen.port
    with reserve_port(LOOPBACK, port) as held:
        assert held.port == port
        with pytest.raises(PortUnavailable):
            reserve_port(LOOPBACK, port)


def test_connections_of_a_former_server_that_still_close_do_not_hinder() -> None:
    with bound(0, socket.SO_REUSEADDR) as server, socket.socket() as client:
        server.listen()
        port = server.getsockname()[1]
        client.connect((LOOPBACK, port))
        # The side that closes first is left with the connection in TIME_WAIT.
        server.accept()[0].close()
    with reserve_port(LOOPBACK, port) as reserved:
        assert reserved.port == port


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(PortUnavailable, match=r"192\.0\.2\.1"):
        reserve_port("192.0.2.1")


def test_a_shared_port_is_held_by_several_but_not_where_somebody_else_listens() -> None:
    with reserve_port(LOOPBACK) as chosen:
        port = chosen.port
    with share_port(LOOPBACK, port), share_port(LOOPBACK, port), pytest.raises(OSError, match="in use"):
        bound(port, socket.SO_REUSEADDR)
    with bound(port, socket.SO_REUSEADDR) as server:
        server.listen()
        with pytest.raises(PortUnavailable, match=f"port {port} at {LOOPBACK} cannot be used"):
            share_port(LOOPBACK, port)
