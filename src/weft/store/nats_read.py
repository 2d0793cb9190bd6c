"""Reading what stands at a key."""

from __future__ import annotations

import nats.js.errors
from nats.js.api import RawStreamMsg

from weft.store.nats_connection import NatsConnection
from weft.store.nats_wire import stream_name, subject


async def last_message(connection: NatsConnection, bucket: str, key: str) -> RawStreamMsg | None:
    """The value or marker that stands at `key`; None if there never was one, or it is forgotten.

    Raises Unavailable or Denied.
    """
    stream = stream_name(bucket)
    try:
        return await connection.call(
            f"read {key!r} in bucket {bucket!r}",
            lambda jetstream: jetstream.get_msg(stream, subject=subject(bucket, key)),
            subjects=[f"{connection.api}.STREAM.MSG.GET.{stream}"],
        )
    except nats.js.errors.NotFoundError:
        return None
