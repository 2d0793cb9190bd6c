"""The connection to NATS: made again for ever, its errors translated into Weft's.

nats-py's own reconnection is left off. It has neither back-off nor jitter, and sends what was written during
an outage after the writer was told that it failed. Here a connection that breaks is given up for a new one.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import ssl
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext
from nats.js.api import StreamConfig
from pydantic_core import from_json

from weft.aio.backoff import backoff
from weft.aio.poll import until
from weft.aio.reminder import Reminder
from weft.aio.tasks import TaskOwner
from weft.errors import Conflict, Denied, InvalidRequest, MeshError, Unavailable
from weft.store.nats_accounts import API, MEMBER_API
from weft.store.nats_requests import NotPermitted, Requests

logger = logging.getLogger(__name__)

T = TypeVar("T")

_PING_INTERVAL = 2
"""Seconds between pings; a server that leaves two of them unanswered is given up."""

_LONGEST_PAUSE = 1.0
"""Seconds, at most, between two attempts to connect: well under a lease, so that a restart costs none."""

_ADMISSION_LIMIT = 4
"""Seconds for the handshake and for the server to ask the control plane, for which it takes up to three."""

_GOODBYE_LIMIT = 0.5
"""Seconds for the closing of a connection that was never made."""

_WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
_OTHER_CONFIGURATION = 10058

_FAILURES = (nats.errors.Error, OSError, EOFError, ValueError, TimeoutError)
"""What nats-py raises when a server is away, breaks off, answers garbage, or has a URL that is none."""


DEFAULT_INBOX_PREFIX = "_INBOX"

_REFUSED = "this identity is refused, or the control plane, which is asked about each connection, is away"

_NO_ROOM = re.compile("insufficient (storage )?resources|resource limits exceeded", re.IGNORECASE)
_MAKE_ROOM = "its disk, or its share of it, is full: make room, or raise JetStream's limits"

# A stream whose disk was full answers nobody any more, until its server is started again.
_SEE = "see that nats-server runs there with JetStream on, and that its disk is not full"

_LOST = "the connection was lost"
_HUNG_UP = "it hung up in place of a welcome"
_REFUSAL = re.compile(f"authorization|authentication|{_HUNG_UP}", re.IGNORECASE)

_VIOLATION = re.compile(r'permissions violation for \w+ to "([^"\s]+)"', re.IGNORECASE)
"""How the server says that a subject is closed to this connection."""


@dataclass(frozen=True, slots=True)
class NatsLogin:
    """How a connection proves who it is, and where answers to it go."""

    tls: Callable[[], ssl.SSLContext] | None = None
    """Asked for a context at every connection, so that new certificates are used. It must verify servers."""
    credentials: Path | None = None
    """A file with the seed of a user nkey, read at every connection; None if the certificate says it all."""
    inbox_prefix: str = DEFAULT_INBOX_PREFIX
    """The subjects under which answers come in: those that the server permits this identity."""

    @property
    def api(self) -> str:
        """Where JetStream takes this client's questions: a certificate alone makes it a member."""
        return API if self.tls is None or self.credentials is not None else MEMBER_API


class WrongRevision(Conflict):
    """The key does not stand at the revision that was expected."""


@dataclass(eq=False, slots=True)
class _Operation:
    """Something that waits for the server."""

    subjects: set[str]
    """What it publishes to, in lower case, as nats-py hands errors on."""
    limit: asyncio.Timeout
    denied: str = ""
    """The subject that is closed to this identity."""


class _Client(Client):
    """nats-py's, that always tells when its connection broke."""

    async def _process_op_err(self, e: Exception) -> None:
        # It would try to write what still waits to be written, fail, and end without a word to anybody.
        self._pending.clear()
        self._pending_data_size = 0
        await super()._process_op_err(e)


class NatsConnection:
    """A connection to one of `servers` and its JetStream. Open it with `open`."""

    def __init__(self, servers: Sequence[str], login: NatsLogin, *, name: str, timeout: float) -> None:
        self._servers = list(servers)
        self._login = login
        self._name = name
        self._timeout = timeout
        self._where = ", ".join(_without_credentials(server) for server in servers)
        self._reason = ""
        self._client: Client | None = None
        self._requests: Requests | None = None
        self._up = asyncio.Event()
        self._down = asyncio.Event()
        self._connecting = asyncio.Lock()
        self._streams: dict[str | None, StreamConfig] = {}
        self._in_flight: set[_Operation] = set()
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
        return connection

    @property
    def connected(self) -> bool:
        """Whether the server can be reached now."""
        return self._up.is_set()

    @property
    def clustered(self) -> bool:
        """Whether there are several servers, so that a stream may be between two leaders for a while."""
        return len(self._servers) > 1

    @property
    def timeout(self) -> float:
        """Seconds that an operation may take."""
        return self._timeout

    async def call(
        self, what: str, operation: Callable[[JetStreamContext], Awaitable[T]], *, subjects: Collection[str]
    ) -> T:
        """Do `operation`, which publishes to `subjects`, within the time limit; waits for a lost connection.

        Raises Unavailable, saying that Weft cannot `what`; Denied if the server does not permit it to this
        identity; WrongRevision; or nats-py's NotFoundError.
        """
        pending = _Operation({each.lower() for each in subjects}, asyncio.timeout(self._timeout))
        try:
            async with pending.limit:
                client = await self.client()
                with self._in_flight_until(pending):
                    return await operation(self.jetstream(client))
        except nats.js.errors.NotFoundError:
            raise
        except nats.js.errors.APIError as error:
            raise self._refusal(what, error) from error
        except _FAILURES as error:
            raise self._failure(what, error, pending.denied) from error

    async def request(
        self, what: str, subject: str, data: bytes = b"", headers: dict[str, str] | None = None
    ) -> Msg:
        """The answer to a request, within the time limit; waits for a lost connection.

        Raises Unavailable, saying that Weft cannot `what`, its cause nats-py's NoRespondersError where nobody
        takes such a request; Denied if the server does not permit `subject` to this identity.
        """
        try:
            requests = self._requests or await self._next_requests()
            return await requests.ask(subject, data, headers, self._timeout)
        except NotPermitted as error:
            raise self._failure(what, error, error.subject) from error
        except _FAILURES as error:
            raise self._failure(what, error) from error

    async def publish(
        self, what: str, subject: str, data: bytes, headers: dict[str, str] | None = None
    ) -> int:
        """Have a stream take a message; return its sequence. Raises as `request` does, and WrongRevision.

        Where the stream refuses it the cause of Unavailable is nats-py's APIError, with the code.
        """
        answer = await self.request(what, subject, data, headers)
        try:
            content = from_json(answer.data)
            if "error" in content:
                nats.js.errors.APIError.from_error(content["error"])
            return int(content["seq"])
        except nats.js.errors.APIError as error:
            raise self._refusal(what, error) from error
        except (ValueError, KeyError, TypeError) as error:
            raise self.unavailable(what, ValueError("the answer is none of JetStream's")) from error

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
                raise self._failure(what, error, error.subject) from error
            except _FAILURES as error:
                raise self._failure(what, error) from error
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
            lambda jetstream: _have(jetstream, config),
            subjects=[f"{self.api}.STREAM.{each}.{config.name}" for each in ("INFO", "CREATE")],
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
        reason = str(error or "") or self._reason or f"no answer within {self._timeout:g} s"
        advice = _SEE
        if _NO_ROOM.search(reason):
            advice = _MAKE_ROOM
        elif self._login.tls is not None and _REFUSAL.search(reason):
            advice = _REFUSED
        return Unavailable(
            f"cannot {what}: NATS at {self._where} cannot be reached or cannot do it ({reason}); {advice}"
        )

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
            under_way = set(self._in_flight)

        async def settled() -> bool:
            return under_way.isdisjoint(self._in_flight) and not (requests and requests.under_way)

        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                await until(settled)
        for act in tuple(self._loss_listeners):
            act()
        await _give_up(former)

    async def close(self) -> None:
        """Close the connection. A second time it does nothing."""
        await self._tasks.close()
        client = self._client
        self._note_loss()
        if client is not None:
            await _give_up(client)

    async def _connect(self) -> None:
        """Connect to any server and see that all streams are there. Raises Unavailable."""
        client = _Client()
        requests = Requests(client)
        self._reason = ""

        async def lost() -> None:
            requests.lose(self._reason or _LOST)
            if self._client is client:
                self._note_loss()

        async with AsyncExitStack() as stack:
            stack.push_async_callback(_give_up, client)
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
                        **self._login_options(),
                    )
                    await requests.open()
                    for config in self._streams.values():
                        await _have(self.jetstream(client), config)
            except _FAILURES as error:
                raise self.unavailable("connect", None if self._reason else error) from error
            # nats-py takes a server that hangs up in place of a welcome for one that welcomes.
            if not client.is_connected:
                raise self.unavailable("connect", None if self._reason else ConnectionError(_HUNG_UP))
            stack.pop_all()
        self._client = client
        self._requests = requests
        self._reason = ""
        self._down.clear()
        self._up.set()

    async def _keep_connected(self) -> None:
        while True:
            await self._down.wait()
            logger.warning("lost the connection to NATS at %s; connecting again", self._where)
            await self._reconnect()
            _heed_cancellation()
            logger.info("connected to NATS at %s again", self._where)

    async def _reconnect(self) -> None:
        clock = asyncio.get_running_loop().time
        reminder = Reminder(clock())
        for pause in backoff(longest=_LONGEST_PAUSE):
            _heed_cancellation()
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
            requests.lose(self._reason or _LOST)
        self._up.clear()
        self._down.set()
        now = asyncio.get_running_loop().time()
        # Nobody will answer what is on its way: let it fail now rather than at its time limit.
        for each in self._in_flight:
            each.limit.reschedule(now)
        for act in tuple(self._loss_listeners):
            act()

    async def _note_error(self, error: Exception) -> None:
        self._reason = str(error) or type(error).__name__
        logger.debug("NATS at %s: %s", self._where, self._reason)
        violation = _VIOLATION.search(self._reason)
        if violation is not None:
            self._deny(violation[1].lower())

    def _deny(self, subject: str) -> None:
        """Let fail at once what will have no answer: the server drops what it does not permit."""
        now = asyncio.get_running_loop().time()
        for each in self._in_flight:
            if subject in each.subjects:
                each.denied = subject
                each.limit.reschedule(now)
        if self._requests is not None:
            self._requests.deny(subject)

    def _refusal(self, what: str, error: nats.js.errors.APIError) -> MeshError:
        """The error that tells what JetStream said to `what`."""
        if error.err_code in _WRONG_LAST_SEQUENCE:
            return WrongRevision(f"cannot {what}: it was written by somebody else meanwhile")
        return self.unavailable(what, error)

    def _failure(self, what: str, error: BaseException, denied: str = "") -> MeshError:
        """The error that tells why Weft could not `what`; `denied` is the subject that is closed to it."""
        if denied:
            return Denied(
                f"cannot {what}: NATS at {self._where} does not permit {denied} to the identity "
                f"that {self._name!r} has"
            )
        return self.unavailable(what, error)

    async def _next_requests(self) -> Requests:
        """Waits for a connection. Raises TimeoutError."""
        async with asyncio.timeout(self._timeout):
            while self._requests is None:
                await self._up.wait()
            return self._requests

    def _login_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"inbox_prefix": self._login.inbox_prefix}
        if self._login.tls is not None:
            # The handshake comes first: a client that waits to be told that TLS is required can be told
            # otherwise by whoever sits in between.
            options |= {
                "tls": self._login.tls(),
                "tls_handshake_first": True,
                "connect_timeout": _ADMISSION_LIMIT,
            }
        if self._login.credentials is not None:
            options["nkeys_seed"] = str(self._login.credentials)
        return options

    @contextmanager
    def _in_flight_until(self, operation: _Operation) -> Iterator[None]:
        self._in_flight.add(operation)
        try:
            yield
        finally:
            self._in_flight.discard(operation)


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("returning true from eof_received()")


# nats-py does not tell asyncio's streams that they are over TLS, of which asyncio then warns at every end.
logging.getLogger("asyncio").addFilter(_is_news)


def check_servers(servers: Sequence[str], *, encrypted: bool) -> None:
    """Raise InvalidRequest unless what is said to `servers` is encrypted, or stays on this machine."""
    for each in servers:
        scheme, separator, _ = each.partition("://")
        address = each if separator else f"nats://{each}"
        where = _without_credentials(address)
        if separator and scheme not in {"nats", "tls"}:
            raise InvalidRequest(
                f"{where} is no NATS server: write tls://host:port, or nats:// on this machine"
            )
        if encrypted != address.startswith("tls://"):
            way_out = (
                "write tls://" if encrypted else "give it a certificate, or write nats:// on this machine"
            )
            raise InvalidRequest(f"NATS at {where}: the URL and whether there is TLS do not agree; {way_out}")
        if not encrypted and not _is_loopback(address):
            raise InvalidRequest(
                f"NATS at {where} would be spoken to in plain text over a network: write tls://, "
                f"and give this process an identity of the mesh"
            )


def _is_loopback(address: str) -> bool:
    try:
        host = urlsplit(address).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


async def unsubscribe(subscriptions: Iterable[Subscription]) -> None:
    """End subscriptions, if their connection is still there."""
    with suppress(*_FAILURES):
        for each in subscriptions:
            await each.unsubscribe()


def _heed_cancellation() -> None:
    """End the task if it was cancelled: nats-py keeps some cancellations to itself, as while it hangs up."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _give_up(client: Client) -> None:
    # Where the TLS handshake failed, or the server hung up, nobody tells nats-py that the connection is gone,
    # and it waits for ever.
    with suppress(*_FAILURES):
        async with asyncio.timeout(_GOODBYE_LIMIT):
            await client.close()


async def _have(jetstream: JetStreamContext, config: StreamConfig) -> None:
    # Asked first: an agent's identity may use a stream, and may not make one.
    try:
        await jetstream.stream_info(config.name or "")
    except nats.js.errors.NotFoundError:
        await _make(jetstream, config)


async def _make(jetstream: JetStreamContext, config: StreamConfig) -> None:
    try:
        await jetstream.add_stream(config)
    except nats.js.errors.BadRequestError as error:
        # An operator may have changed it, to have more replicas, say: it is taken as it is.
        if error.err_code != _OTHER_CONFIGURATION:
            raise


def _without_credentials(server: str) -> str:
    return urlsplit(server).netloc.rpartition("@")[2] or server.rpartition("@")[2]
