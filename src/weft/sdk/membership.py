"""How a program of the mesh gets to topics, queues and tasks.

Calls go through the sidecar; messages do not. The program connects by itself to NATS, and to another broker
where the mesh has one, with the certificate that its sidecar leaves for it and renews.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from weft.aio.tasks import TaskOwner
from weft.errors import InvalidRequest, MeshError, Unavailable
from weft.identity.svid import parse_svid
from weft.identity.tls import client_context
from weft.messaging.control import Directory
from weft.messaging.opening import open_broker
from weft.model.local_state import mesh_directory, mesh_name
from weft.model.membership import (
    CREDENTIALS_FILE,
    DOOR_DIRECTORY,
    IDENTITY_VARIABLE,
    NATS_ROOTS_FILE,
    NATS_SERVERS_FILE,
)
from weft.model.spiffe import Role, SpiffeId
from weft.model.subjects import inbox_prefix
from weft.sdk.calls import fetch
from weft.sdk.destination import CONTROL_HOST
from weft.sdk.local_mesh import running_mesh
from weft.sdk.transport import Call, Transport
from weft.sdk.wire import INBOXES_PATH, JSON
from weft.store.nats import NatsStore
from weft.work.membership import Membership, join

logger = logging.getLogger("weft.mesh")

ASK_TIMEOUT = 10.0
"""Seconds that the control plane has to answer."""

RENEWAL_INTERVAL = 5.0
"""Seconds between two looks for a renewed certificate."""


async def join_as_program(transport: Transport, environ: Mapping[str, str]) -> Membership:
    """The membership of this program, with the files that its sidecar, or the local mesh's door, left for it.

    Raises Unavailable, with the way out, if there are none, or if NATS or the broker cannot be reached.
    """
    files = _IdentityFiles(identity_directory(environ))
    ask = partial(_ask, transport)
    async with AsyncExitStack() as stack:
        identity = files.identity
        store = await NatsStore.connect(
            files.servers,
            name=f"program {'.'.join(identity.segments[1:])}",
            tls=files.tls if files.roots else None,
            inbox_prefix=inbox_prefix(identity),
        )
        stack.push_async_callback(store.close)
        owner = await stack.enter_async_context(TaskOwner("membership"))
        owner.start(_follow_renewals(files, store), name="follow the certificate", endless=True)
        broker = await open_broker(await Directory(ask).broker(), store)
        stack.push_async_callback(broker.aclose)
        return await join(store, broker, ask, identity=identity, resources=stack.pop_all())
    raise AssertionError("an exit stack swallows nothing")


def identity_directory(environ: Mapping[str, str]) -> Path:
    """Where the files of this program's identity are. Raises Unavailable if nobody left any."""
    named = environ.get(IDENTITY_VARIABLE)
    if named:
        return Path(named)
    mesh = running_mesh(environ)
    if mesh is not None:
        return mesh_directory(environ, mesh_name(environ)) / DOOR_DIRECTORY
    raise Unavailable(
        "this program has no identity, so it can use no topics and queues: start it with "
        "`weft run -- COMMAND`, declare it as an Agent that `weft up` runs, or start a mesh with `weft up`"
    )


def own_agent_type(environ: Mapping[str, str]) -> str | None:
    """The type of the agent that this program is, by the identity that its sidecar has left for it.

    None if it has none, or is no agent.
    """
    named = environ.get(IDENTITY_VARIABLE)
    try:
        identity = _IdentityFiles(Path(named)).identity if named else None
    except MeshError:
        return None
    return identity.segments[1] if identity is not None and identity.role is Role.AGENT else None


class _IdentityFiles:
    """The files that a sidecar leaves for its program."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @property
    def identity(self) -> SpiffeId:
        return parse_svid(self._read(CREDENTIALS_FILE).partition(b"-----BEGIN PRIVATE KEY")[0]).id

    @property
    def servers(self) -> list[str]:
        return self._read(NATS_SERVERS_FILE).decode().split(",")

    @property
    def roots(self) -> bytes:
        return self._read(NATS_ROOTS_FILE)

    @property
    def version(self) -> int:
        """Differs whenever the certificate was renewed."""
        try:
            return (self._directory / CREDENTIALS_FILE).stat().st_mtime_ns
        except OSError:
            return 0

    def tls(self) -> Any:
        return client_context(self.roots, self._directory / CREDENTIALS_FILE)

    def _read(self, name: str) -> bytes:
        try:
            return (self._directory / name).read_bytes()
        except OSError as error:
            raise Unavailable(
                f"the identity of this program cannot be read from {self._directory} ({error.strerror}): "
                "is its sidecar still running?"
            ) from error


async def _follow_renewals(files: _IdentityFiles, store: NatsStore) -> None:
    """Connect to NATS anew with every renewed certificate, before the old one ends."""
    known = files.version
    while True:
        await asyncio.sleep(RENEWAL_INTERVAL)
        version = files.version
        if version in {0, known}:
            continue
        try:
            await store.reconnect()
            known = version
        except MeshError as error:
            logger.warning("the connection to NATS is that of the old certificate yet: %s", error.detail)


async def open_inbox(transport: Transport, agent_type: str) -> None:
    """Have a queue for what agents of this type, which this program is of, are sent by A2A.

    Raises Denied, Unavailable.
    """
    await _ask(transport, "PUT", f"{INBOXES_PATH}/{agent_type}", None)


async def _ask(transport: Transport, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
    content = b"" if body is None else json.dumps(body).encode()
    headers = {"accept": JSON, **({"content-type": JSON} if body is not None else {})}
    answer = await fetch(transport, Call(method, CONTROL_HOST, path, headers, content), ASK_TIMEOUT)
    try:
        return json.loads(answer)
    except ValueError as error:
        raise InvalidRequest("the control plane's answer is no JSON") from error
