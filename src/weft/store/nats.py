"""The store over NATS JetStream: each bucket is a KV stream with a time to live per key."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from nats.js.api import StreamConfig

from weft.store.broadcast import Broadcast
from weft.store.bucket import Bucket, Codec
from weft.store.journal import DEFAULT_LIMITS, Journal, JournalLimits
from weft.store.keys import check_bucket
from weft.store.nats_broadcast import NatsBroadcast
from weft.store.nats_bucket import NatsBucket
from weft.store.nats_callout import Callout
from weft.store.nats_connection import NatsConnection
from weft.store.nats_copies import copied
from weft.store.nats_journal import NatsJournal, journal_config
from weft.store.nats_login import DEFAULT_INBOX_PREFIX, NatsLogin
from weft.store.nats_signals import NatsSignals
from weft.store.nats_wire import stream_config
from weft.store.signals import Signals

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
        cls,
        servers: Sequence[str],
        *,
        name: str,
        timeout: float = DEFAULT_TIMEOUT,
        replicas: int = 1,
        tls: Callable[[], ssl.SSLContext] | None = None,
        credentials: Path | None = None,
        inbox_prefix: str = DEFAULT_INBOX_PREFIX,
    ) -> NatsStore:
        """Connect to a NATS server, or a cluster of them.

        `servers` are URLs as `tls://host:port`: list all that may be connected to. `nats://`, in plain text,
        is for servers on this machine only. With `tls://` goes `tls`, which is asked for a context at every
        connection, so that new certificates are used; the server must begin with the handshake
        (`handshake_first`). `credentials` is a file with the seed of a user nkey, for who has more rights
        than its certificate says. Answers come in under `inbox_prefix`. `name` is what the servers'
        monitoring calls this client. `timeout`, in seconds, limits the connecting and then each operation.
        `replicas` is how many servers of a cluster keep each bucket and journal: new ones, and those that
        fewer keep. A connection that is lost is made again, for as long as it takes. Raises Unavailable if no
        server answers in time or all refuse this identity, and InvalidRequest if URLs and `tls` do not fit
        together.
        """
        login = NatsLogin(tls, credentials, inbox_prefix)
        connection = await NatsConnection.open(servers, login, name=name, timeout=timeout)
        return cls(connection, replicas=replicas)

    @property
    def connection(self) -> NatsConnection:
        """The connection, for what else is kept in NATS."""
        return self._connection

    @property
    def replicas(self) -> int:
        """How many servers are to keep what is kept."""
        return self._replicas

    @property
    def connected(self) -> bool:
        """Whether a server can be reached now."""
        return self._connection.connected

    async def bucket(self, name: str, codec: Codec[T], *, direct: bool = False) -> Bucket[T]:
        """Open the bucket `name`, making it if it is not there yet.

        Raises InvalidRequest, Unavailable, or Denied if it is not there and this identity may not make it.
        A member of the mesh opens one that is `direct` without a look: what it may not do, or what is not
        there, it is told when it reads or writes.
        """
        check_bucket(name)
        # About a stream a member could also ask which keys there are, those that it may not read included.
        if not (direct and self._connection.is_member):
            await self._provide(stream_config(name, replicas=self._replicas, direct=direct))
        return NatsBucket(self._connection, name, codec, direct=direct)

    async def journal(
        self, name: str, codec: Codec[T], *, limits: JournalLimits = DEFAULT_LIMITS
    ) -> Journal[T]:
        """Open the journal `name`, making it within `limits` if it is not there yet.

        Raises InvalidRequest or Unavailable.
        """
        check_bucket(name)
        await self._provide(journal_config(name, limits, replicas=self._replicas))
        return NatsJournal(self._connection, name, codec)

    async def _provide(self, config: StreamConfig) -> None:
        await self._connection.provide(config)
        if self._replicas > 1:
            await copied(self._connection, config.name or "")

    def signals(self, name: str) -> Signals:
        """Signals of the name `name`. Raises InvalidRequest for a bad one."""
        check_bucket(name)
        return NatsSignals(self._connection, name)

    def broadcast(self, name: str, *, of_members: bool = False) -> Broadcast:
        """Messages of the name `name`. Raises InvalidRequest for a bad one."""
        check_bucket(name)
        return NatsBroadcast(self._connection, name, of_members=of_members)

    def callout(self, issuer: Path) -> Callout:
        """What answers servers that ask about connections; `issuer` is the file with the seed to sign with.

        Raises InvalidRequest if it holds none.
        """
        return Callout(self._connection, issuer)

    async def reconnect(self) -> None:
        """Connect anew, by what `tls` gives now. Raises Unavailable, and then goes on as it was."""
        await self._connection.reconnect()

    async def close(self) -> None:
        """Close the connection; what is written stays."""
        await self._connection.close()
