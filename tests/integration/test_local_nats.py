"""The embedded NATS server, with the configuration that `weft up` writes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from weft.aio.guard import Guard
from weft.local.home import MeshHome
from weft.local.logs import ProcessLog
from weft.local.nats import nats_command, nats_serves
from weft.local.ports import free_ports
from weft.local.service import Service, ServiceSpec


async def test_the_server_takes_its_configuration_and_serves_on_loopback_with_jetstream(
    tmp_path: Path,
) -> None:
    home = MeshHome(tmp_path / "one")
    port = free_ports().nats
    with home.held():
        security = home.secure(fresh=True).nats
        async with asyncio.timeout(60), Guard() as guard, asyncio.TaskGroup() as tasks:
            spec = ServiceSpec(
                "nats",
                nats_command(home, port, security),
                dict(os.environ),
                home.directory,
                lambda _: nats_serves(port, security),
            )
            log = ProcessLog("nats", home.logs, lambda _name, _line: None)
            service = Service(
                spec, guard=guard, log=log, turn=asyncio.Semaphore(1), changed=lambda _state: None
            )
            tasks.create_task(service.run())
            await service.wait_ready()
            assert (home.nats / "jetstream").is_dir()
            await service.stop()
            assert not await nats_serves(port, security)


async def test_what_is_no_nats_server_is_not_taken_for_one() -> None:
    async def babble(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(babble, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert not await nats_serves(port)
