"""A connection to RabbitMQ that is made anew when it is needed, and what its errors mean."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TypeGuard

import aiormq
from aiormq.abc import AbstractChannel
from aiormq.exceptions import (
    AMQPError,
    AMQPException,
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionInternalError,
    ConnectionNotAllowed,
    ProbableAuthenticationError,
)
from pamqp.exceptions import PAMQPException
from yarl import URL

from weft.aio.tasks import TaskOwner
from weft.errors import Conflict, Denied, MeshError, NotFound, Unavailable

HEARTBEAT = 10
"""Seconds. A client of which the broker hears nothing for twice as long is gone, and so is what it held."""

_GOODBYE = 3.0

_NOT_DECLARED = re.compile(r"\bno (queue|exchange|binding) ")
"""In a NOT_FOUND. Of what is there, but whose process does not run (yet), it says that it is down."""

# Its own log says less than our errors do, and says it at every attempt.
logging.getLogger("aiormq").setLevel(logging.CRITICAL)


class Locked(Conflict):
    """Another connection has the exclusive queue."""


class Link:
    """One connection. It is not kept up: whoever needs it connects it."""

    def __init__(self, url: URL, *, name: str, timeout: float) -> None:
        """`url` has user and password; `name` is for RabbitMQ's logs; `timeout`: seconds for an answer."""
        self._url = url.update_query(heartbeat=str(HEARTBEAT), name=name)
        self.place = f"RabbitMQ at {url.host}:{url.port or url.scheme}"
        """What errors call it."""
        self.timeout = timeout
        self._connection: aiormq.Connection | None = None
        self._connecting = asyncio.Lock()
        self._closed = False
        self._goodbyes = TaskOwner(self.place)

    async def channel(self, *, confirms: bool = False) -> AbstractChannel:
        """A new channel. Publishing waits for confirmation if `confirms`. Raises Unavailable, Denied."""
        with self.translated("opening a channel"):
            connection = await self._connected()
            async with asyncio.timeout(self.timeout):
                return await connection.channel(publisher_confirms=confirms)

    async def reach(self) -> None:
        """Connect, if that is to be done. Raises Unavailable, Denied."""
        with self.translated("connecting"):
            await self._connected()

    @asynccontextmanager
    async def errand(
        self, what: str, *, confirms: bool = False, timed: bool = True
    ) -> AsyncIterator[AbstractChannel]:
        """A channel for a few requests, whose errors are translated.

        They take `timeout` at most together, unless they are not `timed`.
        """
        channel = await self.channel(confirms=confirms)
        try:
            with self.translated(what):
                async with asyncio.timeout(self.timeout if timed else None):
                    yield channel
        finally:
            with suppress(AMQPException, OSError, RuntimeError, TimeoutError):
                async with asyncio.timeout(self.timeout):
                    await channel.close()

    @contextmanager
    def translated(self, what: str) -> Iterator[None]:
        """Raise errors of the client as what they mean; `what` says what was asked for, of which thing."""
        try:
            yield
        except MeshError:
            raise
        except TimeoutError as error:
            self.drop()
            raise Unavailable(f"{what}: {self.place} did not answer within {self.timeout:g} s") from error
        except (AMQPError, PAMQPException, OSError, RuntimeError, EOFError) as error:
            raise self._meaning(what, error) from error
        except asyncio.CancelledError as error:
            # The client cancels what waits when its connection ends.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise Unavailable(f"{what}: the connection to {self.place} was lost") from error

    def _meaning(self, what: str, error: Exception) -> MeshError:
        kind: type[MeshError] = Unavailable
        match error:
            case ChannelNotFoundEntity() if _NOT_DECLARED.search(str(error)):
                kind, why = NotFound, "it is not there (any more); declare it"
            case ChannelNotFoundEntity():
                why = f"{self.place} has it, but has not started it yet; it is tried again"
            case ChannelLockedResource():
                kind, why = Locked, "another client has it"
            case ChannelPreconditionFailed():
                kind = Conflict
                why = (
                    f"it is there with other settings, which RabbitMQ cannot change ({error}): remove it and "
                    "declare it again"
                )
            case ChannelAccessRefused() | ConnectionNotAllowed() | ProbableAuthenticationError():
                kind, why = Denied, f"{self.place} does not permit it: check user, password and rights"
            case ConnectionInternalError():
                why = (
                    f"{self.place} broke down over it (its log says how); it is tried again, but if this "
                    "goes on, RabbitMQ has to be started anew"
                )
            case _:
                why = f"{self.place} cannot be reached; it is tried again"
        return kind(f"{what}: {why}")

    def is_open(self, channel: AbstractChannel | None) -> TypeGuard[AbstractChannel]:
        """Whether a channel can be used: it is not told that its connection was lost, or given up."""
        if channel is None or channel.is_closed:
            return False
        return channel.connection is self._connection and channel.connection.is_opened

    async def blocked(self) -> bool:
        """Whether RabbitMQ takes no messages because of an alarm (memory, disk)."""
        if self._connection is None or self._connection.is_closed:
            return False
        try:
            async with asyncio.timeout(0):
                await self._connection.ready()
        except TimeoutError:
            return True
        return False

    async def ready(self) -> None:
        """Wait until RabbitMQ takes messages; there is no time limit."""
        connection = self._connection
        if connection is not None:
            await connection.ready()

    def drop(self) -> None:
        """Give the connection up: the next who needs one makes a new one."""
        connection, self._connection = self._connection, None
        if connection is not None and not self._closed:
            self._goodbyes.start(_part(connection), name="parting")

    async def aclose(self) -> None:
        """Close it for good."""
        self._closed = True
        connection, self._connection = self._connection, None
        if connection is not None:
            await _part(connection)
        await self._goodbyes.close()

    async def _connected(self) -> aiormq.Connection:
        async with self._connecting:
            if self._closed:
                raise Unavailable(f"this client of {self.place} is closed; open another one")
            if self._connection is None or not self._connection.is_opened:
                self._connection = await self._connect()
            return self._connection

    async def _connect(self) -> aiormq.Connection:
        connection = aiormq.Connection(self._url)
        try:
            async with asyncio.timeout(self.timeout):
                await connection.connect()
        except BaseException:
            if connection.is_opened:
                await _part(connection)
            raise
        return connection


async def _part(connection: aiormq.Connection) -> None:
    with suppress(AMQPException, OSError, RuntimeError, TimeoutError):
        async with asyncio.timeout(_GOODBYE):
            await connection.close(None)
