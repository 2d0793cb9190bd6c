"""The connection to NATS: made again for ever, its errors translated into Weft's.

nats-py's own reconnection is left off. It has neither back-off nor jitter, and sends what was written during
an outage after the writer was told that it failed. Here a connection that breaks is given up for a new one.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import TypeVar
from urllib.parse import urlsplit

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import StreamConfig

from weft.aio.backoff import backoff
from weft.aio.reminder import Reminder
from weft.aio.tasks import TaskOwner
from weft.errors import Conflict, MeshError, Unavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")

_PING_INTERVAL = 2
"""Seconds between pings; a server that leaves two of them unanswered is given up."""

_LONGEST_PAUSE = 1.0
"""Seconds, at most, between two attempts to connect: well under a lease, so that a restart costs none."""

_WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
_OTHER_CONFIGURATION = 10058

_FAILURES = (nats.errors.Error, OSError, EOFError, ValueError, TimeoutError)
"""What nats-py raises when a server is away, breaks off, answers garbage, or has a URL that is none."""


class WrongRevision(Conflict):
    """The key does not stand at the revision that was expected."""


class NatsConnection:
    """A connection to one of `servers` and its JetStream. Open it with `open`."""

    def __init__(self, servers: Sequence[str], *, name: str, timeout: float) -> None:
        self._servers = list(servers)
        self._name = name
        self._timeout = timeout
        self._where = ", ".join(_without_credentials(server) for server in servers)
        self._reason = ""
        self._client: Client | None = None
        self._up = asyncio.Event()
        self._down = asyncio.Event()
        self._streams: dict[str | None, StreamConfig] = {}
        self._in_flight: set[asyncio.Timeout] = set()
        self._loss_listeners: set[Callable[[], None]] = set()
        self._tasks = TaskOwner("nats")

    @classmethod
    async def open(cls, servers: Sequence[str], *, name: str, timeout: float) -> NatsConnection:
        """Connect. Raises Unavailable if none of `servers` answers within `timeout` seconds."""
        connection = cls(servers, name=name, timeout=timeout)
        await connection._connect()
        connection._tasks.start(connection._keep_connected(), name="stay connected", endless=True)
        return connection

    @property
    def connected(self) -> bool:
        """Whether the server can be reached now."""
        return self._up.is_set()

    @property
    def timeout(self) -> float:
        """Seconds that an operation may take."""
        return self._timeout

    async def call(self, what: str, operation: Callable[[JetStreamContext], Awaitable[T]]) -> T:
        """Do `operation` within the time limit, waiting for the connection if it is lost.

        Raises Unavailable, saying that Weft cannot `what`; WrongRevision; or nats-py's NotFoundError.
        """
        try:
            async with asyncio.timeout(self._timeout) as limit:
                client = await self.client()
                with self._in_flight_until(limit):
                    return await operation(client.jetstream(timeout=self._timeout))
        except nats.js.errors.NotFoundError:
            raise
        except nats.js.errors.APIError as error:
            if error.err_code in _WRONG_LAST_SEQUENCE:
                raise WrongRevision(f"cannot {what}: it was written by somebody else meanwhile") from error
            raise self.unavailable(what, error) from error
        except _FAILURES as error:
            raise self.unavailable(what, error) from error

    async def client(self) -> Client:
        """The client that is connected now; waits for one."""
        while self._client is None:
            await self._up.wait()
        return self._client

    async def provide(self, config: StreamConfig) -> None:
        """Have a stream: now, and again should the server come back without it. Raises Unavailable."""
        await self.call(f"open stream {config.name}", lambda jetstream: _have(jetstream, config))
        self._streams[config.name] = config

    @contextmanager
    def on_loss(self, act: Callable[[], None]) -> Iterator[None]:
        """Within the context, have `act` called as soon as the connection is lost."""
        self._loss_listeners.add(act)
        try:
            yield
        finally:
            self._loss_listeners.discard(act)

    def unavailable(self, what: str, error: BaseException | None = None) -> Unavailable:
        """The error that tells that Weft could not do `what`."""
        reason = str(error or "") or self._reason or f"no answer within {self._timeout:g} s"
        return Unavailable(
            f"cannot {what}: NATS at {self._where} cannot be reached or cannot do it ({reason}); "
            f"see that nats-server runs there with JetStream on"
        )

    async def close(self) -> None:
        """Close the connection. A second time it does nothing."""
        await self._tasks.close()
        client, self._client = self._client, None
        self._note_loss()
        if client is not None:
            await client.close()

    async def _connect(self) -> None:
        """Connect to any server and see that all streams are there. Raises Unavailable."""
        client = Client()
        self._reason = ""

        async def lost() -> None:
            if self._client is client:
                self._client = None
                self._note_loss()

        async with AsyncExitStack() as stack:
            stack.push_async_callback(client.close)
            try:
                async with asyncio.timeout(self._timeout):
                    await client.connect(
                        random.sample(self._servers, len(self._servers)),
                        name=self._name,
                        allow_reconnect=False,
                        max_reconnect_attempts=1,
                        reconnect_time_wait=0,
                        ping_interval=_PING_INTERVAL,
                        error_cb=self._note_error,
                        closed_cb=lost,
                    )
                    for config in self._streams.values():
                        await _have(client.jetstream(timeout=self._timeout), config)
            except _FAILURES as error:
                raise self.unavailable("connect", None if self._reason else error) from error
            if client.is_closed:
                raise self.unavailable("connect")
            stack.pop_all()
        self._client = client
        self._reason = ""
        self._down.clear()
        self._up.set()

    async def _keep_connected(self) -> None:
        while True:
            await self._down.wait()
            logger.warning("lost the connection to NATS at %s; connecting again", self._where)
            await self._reconnect()
            logger.info("connected to NATS at %s again", self._where)

    async def _reconnect(self) -> None:
        clock = asyncio.get_running_loop().time
        reminder = Reminder(clock())
        for pause in backoff(longest=_LONGEST_PAUSE):
            await asyncio.sleep(pause)
            try:
                await self._connect()
            except MeshError as error:
                if reminder.due(clock()):
                    logger.warning("%s; trying on", error.detail)
            else:
                return

    def _note_loss(self) -> None:
        self._up.clear()
        self._down.set()
        now = asyncio.get_running_loop().time()
        # Nobody will answer what is on its way: let it fail now rather than at its time limit.
        for limit in self._in_flight:
            limit.reschedule(now)
        for act in tuple(self._loss_listeners):
            act()

    async def _note_error(self, error: Exception) -> None:
        self._reason = str(error) or type(error).__name__
        logger.debug("NATS at %s: %s", self._where, self._reason)

    @contextmanager
    def _in_flight_until(self, limit: asyncio.Timeout) -> Iterator[None]:
        self._in_flight.add(limit)
        try:
            yield
        finally:
            self._in_flight.discard(limit)


async def _have(jetstream: JetStreamContext, config: StreamConfig) -> None:
    try:
        await jetstream.add_stream(config)
    except nats.js.errors.BadRequestError as error:
        # An operator may have changed it, to have more replicas, say: it is taken as it is.
        if error.err_code != _OTHER_CONFIGURATION:
            raise


def _without_credentials(server: str) -> str:
    return urlsplit(server).netloc.rpartition("@")[2] or server.rpartition("@")[2]
