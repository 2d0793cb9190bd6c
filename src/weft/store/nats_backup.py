"""All streams of a mesh's NATS into a file, and from it into a NATS that is empty.

Each stream is what it was at a moment of its own, while everything goes on; its consumers are part of it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any, Final

from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.errors import Error
from nats.errors import TimeoutError as NatsTimeout
from pydantic_core import from_json

from weft.errors import Conflict, InvalidRequest, MeshError, Unavailable
from weft.store.backup_archive import BackupWriter, StreamBegins, StreamEnds, read_backup
from weft.store.nats_connection import NatsConnection
from weft.store.nats_wire import STATUS

_PIECE_BYTES: Final = 128 * 1024
_WINDOW_BYTES: Final = 8 * 1024 * 1024
_PIECE_LIMIT: Final = 60.0
"""Seconds until the next piece of a snapshot has come."""
_MAX_PAGES: Final = 10_000


async def back_up(connection: NatsConnection, file: IO[bytes]) -> list[str]:
    """Write all streams to `file`; return their names.

    Raises Unavailable if NATS cannot be reached or breaks off, OSError where `file` cannot be written.
    """
    writer = BackupWriter(file)
    names = await _stream_names(connection)
    for name in names:
        await _snapshot(connection, name, writer)
    await asyncio.to_thread(writer.complete)
    return names


async def restore(connection: NatsConnection, file: IO[bytes], *, replicas: int) -> list[str]:
    """Make all streams of a backup in a NATS that has none, each kept by `replicas` servers; their names.

    Raises Conflict if there are streams already, Unavailable, and InvalidRequest where `file` is no whole
    backup: then those that were made are taken away again, as far as NATS can be reached.
    """
    there = await _stream_names(connection)
    if there:
        raise Conflict(
            f"NATS is not empty: it has {len(there)} streams, {there[0]} among them. A backup is restored "
            f"into a new NATS, before a control plane is started with it"
        )
    made: list[str] = []
    try:
        await _restore_streams(connection, file, replicas, made)
    except MeshError:
        with suppress(MeshError):
            for name in made:
                await _asked(
                    connection, f"delete stream {name}", f"{connection.api}.STREAM.DELETE.{name}", b""
                )
        raise
    return made


async def _restore_streams(
    connection: NatsConnection, file: IO[bytes], replicas: int, made: list[str]
) -> None:
    """Add to `made` the names of streams as they are begun."""
    parts = read_backup(file)
    while isinstance(part := await asyncio.to_thread(_next, parts), StreamBegins):
        made.append(part.name)
        await _restore_stream(connection, part, parts, replicas)


def _next(parts: Iterator[StreamBegins | bytes | StreamEnds]) -> StreamBegins | bytes | StreamEnds | None:
    return next(parts, None)


async def _stream_names(connection: NatsConnection) -> list[str]:
    names: list[str] = []
    for _ in range(_MAX_PAGES):
        asked = json.dumps({"offset": len(names)}).encode()
        answer = await _asked(connection, "list streams", f"{connection.api}.STREAM.NAMES", asked)
        names += answer.get("streams") or []
        if len(names) >= int(answer["total"]) or not answer.get("streams"):
            break
    return sorted(names)


async def _snapshot(connection: NatsConnection, stream: str, writer: BackupWriter) -> None:
    what = f"back up stream {stream}"
    client = await connection.client()
    inbox = client.new_inbox()
    try:
        pieces = await client.subscribe(inbox, pending_bytes_limit=4 * _WINDOW_BYTES)
        try:
            wanted = {"deliver_subject": inbox, "chunk_size": _PIECE_BYTES, "window_size": _WINDOW_BYTES}
            subject = f"{connection.api}.STREAM.SNAPSHOT.{stream}"
            about = await _asked(connection, what, subject, json.dumps(wanted).encode())
            kept = {"config": about["config"], "state": about["state"]}
            await asyncio.to_thread(writer.begin, stream, kept)
            await _write_pieces(pieces, writer, what)
        finally:
            await _forget(client, pieces)
    except NatsTimeout as error:
        raise Unavailable(f"cannot {what}: NATS sent nothing more for {_PIECE_LIMIT:g} s") from error
    except Error as error:
        raise Unavailable(f"cannot {what}: {str(error) or type(error).__name__}") from error
    await asyncio.to_thread(writer.end)


async def _write_pieces(pieces: Subscription, writer: BackupWriter, what: str) -> None:
    while True:
        piece = await pieces.next_msg(timeout=_PIECE_LIMIT)
        if not piece.data:
            status = (piece.headers or {}).get(STATUS, "")
            if status not in ("", "204"):
                described = (piece.headers or {}).get("Description", "")
                raise Unavailable(f"cannot {what}: NATS broke off with {status} {described}".rstrip())
            return
        await asyncio.to_thread(writer.piece, piece.data)
        if piece.reply:
            # NATS sends so much ahead of what was acknowledged, and no more.
            await piece.respond(b"")


async def _forget(client: Client, pieces: Subscription) -> None:
    if not client.is_closed:
        await pieces.unsubscribe()


async def _restore_stream(
    connection: NatsConnection,
    stream: StreamBegins,
    parts: Iterator[StreamBegins | bytes | StreamEnds],
    replicas: int,
) -> None:
    what = f"restore stream {stream.name}"
    config = stream.about.get("config")
    if not isinstance(config, dict) or config.get("name") != stream.name:
        raise InvalidRequest(f"the backup cannot be read: {stream.name} is set up as another stream")
    wanted = {"config": config | {"num_replicas": replicas}, "state": stream.about.get("state")}
    subject = f"{connection.api}.STREAM.RESTORE.{stream.name}"
    answer = await _asked(connection, what, subject, json.dumps(wanted).encode())
    to = str(answer["deliver_subject"])
    while isinstance(part := await asyncio.to_thread(_next, parts), bytes):
        # Answered with nothing, or with what is wrong.
        reply = await connection.request(what, to, part)
        if reply.data:
            _checked(what, reply.data)
    await _asked(connection, what, to, b"")


async def _asked(connection: NatsConnection, what: str, subject: str, data: bytes) -> dict[str, Any]:
    return _checked(what, (await connection.request(what, subject, data)).data)


def _checked(what: str, data: bytes) -> dict[str, Any]:
    """What JetStream answers. Raises Unavailable where that is an error."""
    try:
        answer = dict(from_json(data))
    except (ValueError, TypeError) as error:
        raise Unavailable(f"cannot {what}: the answer is none of JetStream's") from error
    if "error" in answer:
        described = answer["error"].get("description", "") if isinstance(answer["error"], dict) else ""
        raise Unavailable(f"cannot {what}: NATS says {described or 'no more'}")
    return answer
