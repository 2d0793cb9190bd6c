"""The store over NATS JetStream: each bucket is a KV stream with a time to live per key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from weft.store.bucket import Bucket, Codec
from weft.store.keys import check_bucket
from weft.store.nats_bucket import NatsBucket
from weft.store.nats_connection import NatsConnection
from weft.store.nats_wire import stream_config

T = TypeVar("T")

DEFAULT_TIMEOUT = 5.0
"""Seconds after which an operation on an unreachable store fails."""


class NatsStore:
    """A Store in NATS JetStream. Open it with `connect`."""

    def __init__(self, connection: NatsConnection, *, replicas: int) -> None:
        self._connection = connection
        self._replicas = replicas

    @classmethod
    async def connect(
        cls, servers: Sequence[str], *, name: str, timeout: float = DEFAULT_TIMEOUT, replicas: int = 1
    ) -> NatsStore:
        """Connect to a NATS server, or a cluster of them.

        `servers` are URLs as `nats://host:port`: list all that may be connected to. `name` is what their
        monitoring calls this client. `timeout`, in seconds, limits the connecting and then each operation.
        `replicas` is how many servers of a cluster keep each bucket that is new. A connection that is lost is
        made again, for as long as it takes. Raises Unavailable if no server answers in time.
        """
        connection = await NatsConnection.open(servers, name=name, timeout=timeout)
        return cls(connection, replicas=replicas)

    @property
    def connected(self) -> bool:
        """Whether a server can be reached now."""
        return self._connection.connected

    async def bucket(self, name: str, codec: Codec[T]) -> Bucket[T]:
        """Open the bucket `name`, making it if it is not there yet. Raises InvalidRequest or Unavailable."""
        check_bucket(name)
        await self._connection.provide(stream_config(name, replicas=self._replicas))
        return NatsBucket(self._connection, name, codec)

    async def close(self) -> None:
        """Close the connection; what is written stays."""
        await self._connection.close()
