"""Reading what stands at a key."""

from __future__ import annotations

import nats.errors
import nats.js.errors
from nats.js.api import RawStreamMsg

from weft.errors import Unavailable
from weft.store.nats_connection import NatsConnection
from weft.store.nats_wire import NOT_FOUND_STATUS, SEQUENCE, STATUS, stream_name, subject


async def last_message(
    connection: NatsConnection, bucket: str, key: str, *, direct: bool = False
) -> RawStreamMsg | None:
    """The value or marker that stands at `key`; None if there never was one, or it is forgotten.

    With `direct` any replica may answer. Raises Unavailable or Denied.
    """
    if not direct:
        return await _from_leader(connection, bucket, key)
    try:
        return await _from_any(connection, bucket, key)
    except Unavailable as error:
        # A bucket may have been made so that its leader alone answers; that members may not ask.
        if connection.is_member or not isinstance(error.__cause__, nats.errors.NoRespondersError):
            raise
    return await _from_leader(connection, bucket, key)


async def _from_leader(connection: NatsConnection, bucket: str, key: str) -> RawStreamMsg | None:
    stream = stream_name(bucket)
    try:
        return await connection.call(
            _what(bucket, key),
            lambda jetstream: jetstream.get_msg(stream, subject=subject(bucket, key)),
            subjects=[f"{connection.api}.STREAM.MSG.GET.{stream}"],
            again=True,
        )
    except nats.js.errors.NotFoundError:
        return None


async def _from_any(connection: NatsConnection, bucket: str, key: str) -> RawStreamMsg | None:
    place = f"{connection.api}.DIRECT.GET.{stream_name(bucket)}.{subject(bucket, key)}"
    found = await connection.request(_what(bucket, key), place, again=True)
    headers = found.headers or {}
    if headers.get(STATUS) == NOT_FOUND_STATUS:
        return None
    sequence = headers.get(SEQUENCE, "")
    if not sequence.isdecimal():
        raise connection.unavailable(_what(bucket, key), ValueError("the answer is none of JetStream's"))
    return RawStreamMsg(subject=subject(bucket, key), seq=int(sequence), data=found.data, headers=headers)


def _what(bucket: str, key: str) -> str:
    return f"read {key!r} in bucket {bucket!r}"
