"""`weft kubernetes backup` and `restore`: all that a mesh keeps, out of NATS and into another."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import ValidationError

from weft.controlplane.security import nats_tls
from weft.controlplane.settings import ControlPlaneSettings
from weft.errors import InvalidRequest, Unavailable
from weft.store.nats import NatsStore
from weft.store.nats_backup import back_up
from weft.store.nats_backup import restore as restore_streams

_TIMEOUT = 60.0
"""Seconds for each answer of NATS: a large stream takes a while to be opened again."""


async def backup() -> None:
    """Write all that the mesh keeps in NATS to standard output, where a control plane runs.

    `kubectl exec deploy/weft-control -c control -- weft kubernetes backup > mesh.backup`

    NATS is found by the control plane's own WEFT_CONTROL_NATS and so on. Everything goes on meanwhile. Keys
    and Secrets in it are sealed: keep the Secret weft-sealing-key as well, and elsewhere.
    """
    if sys.stdout.isatty():
        raise InvalidRequest("a backup is no text: send standard output to a file")
    async with _nats() as (store, _):
        try:
            streams = await back_up(store.connection, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        except OSError as error:
            raise Unavailable(f"the backup could not be written: {error}") from error
    print(f"{len(streams)} streams backed up", file=sys.stderr)


async def restore() -> None:
    """Read a backup from standard input into a NATS that is empty, before a control plane is started with it.

    `kubectl exec -i weft-restore -- weft kubernetes restore < mesh.backup`

    NATS is found by WEFT_CONTROL_NATS and so on, as a control plane finds it; WEFT_CONTROL_NATS_REPLICAS
    says how many servers keep each stream from now on.
    """
    async with _nats() as (store, replicas):
        streams = await restore_streams(store.connection, sys.stdin.buffer, replicas=replicas)
    print(f"{len(streams)} streams restored")


@asynccontextmanager
async def _nats() -> AsyncIterator[tuple[NatsStore, int]]:
    try:
        settings = ControlPlaneSettings()
    except ValidationError as error:
        wrong = ["_".join(map(str, each["loc"])).upper() for each in error.errors()]
        names = ", ".join(f"WEFT_CONTROL_{each}" for each in wrong)
        raise InvalidRequest(f"the environment is none of a control plane's: {names}") from error
    store = await NatsStore.connect(
        settings.nats,
        name="weft-backup",
        timeout=_TIMEOUT,
        tls=nats_tls(settings),
        credentials=settings.nats_seed_file,
    )
    try:
        yield store, settings.nats_replicas
    finally:
        await store.close()
