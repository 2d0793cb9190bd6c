"""The connection to NATS: made again for ever, its errors translated into Weft's.

nats-py's own reconnection is left off. It has neither back-off nor jitter, and sends what was written during
an outage after the writer was told that it failed. Here a connection that breaks is given up for a new one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import TypeVar

import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext
from nats.js.api import StreamConfig

from weft.aio.backoff import backoff
from weft.aio.poll import until
from weft.aio.reminder import Reminder
from weft.aio.tasks import TaskOwner
from weft.errors import MeshError, Unavailable
from weft.store.nats_accounts import MEMBER_API
from weft.store.nats_address import ServerOrder, check_servers, without_credentials
from weft.store.nats_attempts import attempted
from weft.store.nats_client import FAILURES, TellingClient, give_up, unsubscribe
from weft.store.nats_failures import HUNG_UP, Failures
from weft.store.nats_login import NatsLogin
from weft.store.nats_operations import Operation, Operations
from weft.store.nats_requests import NotPermitted, Requests
from weft.store.nats_streams import acknowledged, have, have_all

logger = logging.getLogger(__name__)

T = TypeVar("T")

_PING_INTERVAL = 2
"""Seconds between pings; a server that leaves two of them unanswered is given up."""

_LONGEST_PAUSE = 1.0
"""Seconds, at most, between two attempts to connect: well under a lease, so that a restart costs none."""

_LOST = "the connection was lost"


class NatsConnection:
    """A connection to one of `servers` and its JetStream. Open it with `open`."""

    def __init__(self, servers: Sequence[str], login: NatsLogin, *, name: str, timeout: float) -> None:
        self._several = len(servers) > 1
        self._order = ServerOrder(servers)
        self._login = login
        self._name = name
        self._timeout = timeout
        self._where = ", ".join(without_credentials(server) for server in servers)
        self._failures = Failures(self._where, name, timeout=timeout, encrypted=login.tls is not None)
        self._client: Client | None = None
        self._requests: Requests | None = None
        self._up = asyncio.Event()
        self._down = asyncio.Event()
        self._leaving = asyncio.Event()
        self._connecting = asyncio.Lock()
        self._streams: dict[str | None, StreamConfig] = {}
        self._operations = Operations()
        self._loss_listeners: set[Callable[[], None]] = set()
        self._tasks = TaskOwner("nats")

    @classmethod
    async def open(
        cls, servers: Sequence[str], login: NatsLogin | None = None, *, name: str, timeout: float
    ) -> NatsConnection:
        """Connect. Raises Unavailable if none of `servers` answers within `timeout` seconds.

        Raises InvalidRequest if the login would go over a network in plain text.
        """
        login = login or NatsLogin()
        check_servers(servers, encrypted=login.tls is not None)
        connection = cls(servers, login, name=name, timeout=timeout)
        await connection._connect()
        connection._tasks.start(connection._keep_connected(), name="stay connected", endless=True)
        connection._tasks.start(connection._leave(), name="leave servers that stop", endless=True)
        return connection

    @property
    def connected(self) -> bool:
        """Whether the server can be reached now."""
        return self._up.is_set()

    @property
    def clustered(self) -> bool:
        """Whether there are several servers, so that a stream may be between two leaders for a while."""
        return self._failures.clustered or self._several

    @property
    def timeout(self) -> float:
        """Seconds that an operation may take."""
        return self._timeout

    async def call(
        self,
        what: str,
        operation: Callable[[JetStreamContext], Awaitable[T]],
        *,
        subjects: Collection[str],
        again: bool = False,
    ) -> T:
        """Do `operation`, which publishes to `subjects`, within the time limit; waits for a lost connection.

        With `again`, what one of several servers does not answer is asked again: it must do no harm.
        Raises Unavailable, saying that Weft cannot `what`; Denied if the server does not permit it to this
        identity; WrongRevision; or nats-py's NotFoundError.
        """
        pending = Operation({each.lower() for each in subjects}, asyncio.timeout(self._timeout))
        try:
            async with pending.limit:
                client = await self.client()
                with self._operations.until_done(pending):
                    return await attempted(
                        lambda limit: operation(self.jetstream(client, timeout=limit)),
                        self._timeout,
                        again=again and self.clustered,
                    )
        except nats.js.errors.NotFoundError:
            raise
        except nats.js.errors.APIError as error:
            raise self._failures.refusal(what, error) from error
        except FAILURES as error:
            raise self._failures.failure(what, error, pending.denied) from error

    async def request(
        self,
        what: str,
        subject: str,
        data: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        patient: bool = False,
        again: bool = False,
    ) -> Msg:
        """The answer to a request, within the time limit; waits for a lost connection.

        One that is `patient` waits for somebody to take it, too; `again` as for `call`. Raises Unavailable,
        saying that Weft cannot `what`, its cause nats-py's NoRespondersError where nobody takes such a
        request; Denied if the server does not permit `subject` to this identity.
        """
        try:
            requests = self._requests or await self._next_requests()
            return await attempted(
                lambda limit: requests.ask(subject, data, headers, limit, patient=patient),
                self._timeout,
                again=again and self.clustered,
            )
        except NotPermitted as error:
            raise self._failures.failure(what, error, error.subject) from error
        except FAILURES as error:
            raise self._failures.failure(what, error) from error

    async def publish(
        self, what: str, subject: str, data: bytes, headers: dict[str, str] | None = None
    ) -> int:
        """Have a stream take a message; return its sequence. Raises as `request` does, and WrongRevision.

        A stream between two leaders is waited for. Where it refuses the message the cause of Unavailable is
        nats-py's APIError, with the code.
        """
        answer = await self.request(what, subject, data, headers, patient=self.clustered)
        try:
            return acknowledged(answer)
        except nats.js.errors.APIError as error:
            raise self._failures.refusal(what, error) from error
        except ValueError as error:
            raise self.unavailable(what, error) from error

    async def subscribe(
        self, what: str, subjects: Sequence[str], receive: Callable[[Msg], Awaitable[None]]
    ) -> list[Subscription]:
        """Have `receive` called for messages to `subjects`, from when this returns until the connection ends.

        Raises Unavailable, saying that Weft cannot `what`, or Denied.
        """
        made: list[Subscription] = []
        async with AsyncExitStack() as stack:
            stack.push_async_callback(unsubscribe, made)
            try:
                async with asyncio.timeout(self._timeout):
                    requests = self._requests or await self._next_requests()
                    for each in subjects:
                        made += [await requests.client.subscribe(each, cb=receive)]
                    await requests.settle(subjects, self._timeout)
            except NotPermitted as error:
                raise self._failures.failure(what, error, error.subject) from error
            except FAILURES as error:
                raise self._failures.failure(what, error) from error
            stack.pop_all()
        return made

    @property
    def is_member(self) -> bool:
        """Whether it is in the account of the mesh's members."""
        return self._login.api == MEMBER_API

    @property
    def sender(self) -> Client | None:
        """The client that is connected now, if one is."""
        return self._client

    @property
    def api(self) -> str:
        """The subject under which JetStream takes questions."""
        return self._login.api

    def jetstream(self, client: Client, *, timeout: float | None = None) -> JetStreamContext:
        """JetStream through `client`; `timeout` in seconds, if not the connection's."""
        return client.jetstream(prefix=self.api, timeout=timeout or self._timeout)

    async def client(self) -> Client:
        """The client that is connected now; waits for one."""
        while self._client is None:
            await self._up.wait()
        return self._client

    async def provide(self, config: StreamConfig) -> None:
        """Have a stream: now, and again should the server come back without it. Raises Unavailable."""
        await self.call(
            f"open stream {config.name}",
            lambda jetstream: have(jetstream, config),
            subjects=[f"{self.api}.STREAM.{each}.{config.name}" for each in ("INFO", "CREATE")],
            again=True,
        )
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
        return self._failures.unavailable(what, error)

    async def reconnect(self) -> None:
        """Connect anew, by what proves the identity now, and only then let go of the connection there is.

        For servers end a connection with the certificate that it was opened with. What is under way is
        waited for. While the connection is lost nothing is done: the next one is a new one anyway. Raises
        Unavailable if there is none to be had; then it goes on as it was.
        """
        async with self._connecting:
            former, requests = self._client, self._requests
            if former is None:
                return
            await self._connect()
            under_way = self._operations.now()

        async def settled() -> bool:
            return under_way.isdisjoint(self._operations.now()) and not (requests and requests.under_way)

        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                await until(settled)
        for act in tuple(self._loss_listeners):
            act()
        await give_up(former)

    async def close(self) -> None:
        """Close the connection. A second time it does nothing."""
        await self._tasks.close()
        client = self._client
        self._note_loss()
        if client is not None:
            await give_up(client)

    async def _connect(self) -> None:
        """Connect to any server and see that all streams are there. Raises Unavailable."""
        client = TellingClient()
        requests = Requests(client)
        self._failures.reason = ""

        async def lost() -> None:
            requests.lose(self._failures.reason or _LOST)
            if self._client is client:
                self._note_loss()

        async def leave() -> None:
            self._leaving.set()

        async with AsyncExitStack() as stack:
            stack.push_async_callback(give_up, client)
            try:
                async with asyncio.timeout(self._timeout):
                    await client.connect(
                        self._order.next(),
                        dont_randomize=True,
                        name=self._name,
                        allow_reconnect=False,
                        max_reconnect_attempts=1,
                        reconnect_time_wait=0,
                        ping_interval=_PING_INTERVAL,
                        error_cb=self._note_error,
                        closed_cb=lost,
                        lame_duck_mode_cb=leave,
                        **self._login.options(),
                    )
                    await requests.open()
                    # Of several servers one may still miss others, with which some streams are.
                    await have_all(self.jetstream(client), () if client.clustered else self._streams.values())
            except FAILURES as error:
                raise self.unavailable("connect", None if self._failures.reason else error) from error
            # nats-py takes a server that hangs up in place of a welcome for one that welcomes.
            if not client.is_connected:
                raise self.unavailable("connect", None if self._failures.reason else ConnectionError(HUNG_UP))
            stack.pop_all()
        if client.connected_url is not None:
            self._order.put_last(client.connected_url.geturl())
        self._client = client
        self._requests = requests
        self._failures.reason = ""
        self._failures.clustered = client.clustered
        self._down.clear()
        self._up.set()

    async def _keep_connected(self) -> None:
        while True:
            await self._down.wait()
            logger.warning("lost the connection to NATS at %s; connecting again", self._where)
            await self._reconnect()
            logger.info("connected to NATS at %s again", self._where)
            await self._restore()

    async def _leave(self) -> None:
        """Go to another server when this one says that it is about to stop, before it does."""
        while True:
            await self._leaving.wait()
            self._leaving.clear()
            # Where there is no other, the connection is made again after the stop.
            with suppress(MeshError):
                await self.reconnect()

    async def _restore(self) -> None:
        """See that several servers still have all streams, for as long as the connection is there."""
        for pause in backoff(longest=_LONGEST_PAUSE):
            client = self._client
            if client is None or not self.clustered:
                return
            with suppress(*FAILURES):
                async with asyncio.timeout(self._timeout):
                    await have_all(self.jetstream(client), self._streams.values())
                    return
            await asyncio.sleep(pause)

    async def _reconnect(self) -> None:
        clock = asyncio.get_running_loop().time
        reminder = Reminder(clock())
        for pause in backoff(longest=_LONGEST_PAUSE):
            await asyncio.sleep(pause)
            try:
                async with self._connecting:
                    if self._client is None:
                        await self._connect()
            except MeshError as error:
                if reminder.due(clock()):
                    logger.warning("%s; trying on", error.detail)
            else:
                return

    def _note_loss(self) -> None:
        requests, self._client, self._requests = self._requests, None, None
        if requests is not None:
            requests.lose(self._failures.reason or _LOST)
        self._up.clear()
        self._down.set()
        self._operations.lose()
        for act in tuple(self._loss_listeners):
            act()

    async def _note_error(self, error: Exception) -> None:
        denied = self._failures.note(error)
        logger.debug("NATS at %s: %s", self._where, self._failures.reason)
        # What the server does not permit it drops: there will be no answer.
        if denied:
            self._operations.deny(denied)
            if self._requests is not None:
                self._requests.deny(denied)

    async def _next_requests(self) -> Requests:
        """Waits for a connection. Raises TimeoutError."""
        async with asyncio.timeout(self._timeout):
            while self._requests is None:
                await self._up.wait()
            return self._requests
