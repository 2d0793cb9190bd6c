"""The embedded NATS server: its configuration, and whether it serves."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path

from weft.errors import Unauthenticated, Unavailable
from weft.identity.tls import client_context
from weft.local.home import MeshHome
from weft.local.nats_security import NatsSecurity
from weft.local.nats_settings import nats_program, secured_settings, server_settings, written
from weft.model.local_state import LOOPBACK

_TIMEOUT = 1.0


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
    settings = {"host": LOOPBACK, "port": port, **server_settings("weft-local", data)}
    if security is not None:
        settings |= secured_settings(security)
    return written(settings)


def _control_tls(security: NatsSecurity) -> ssl.SSLContext:
    return client_context(security.roots.read_bytes(), security.control_credentials)


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
