"""What is said to Redis: gathered into pipelines, made again after a loss, its errors translated into Weft's.

Commands that come while others are under way go out together as one pipeline. A command that may have reached
the server is never sent a second time; one that has not waits for the connection, up to its time limit.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Connection
from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from weft.aio.backoff import backoff
from weft.aio.reminder import Reminder
from weft.aio.tasks import TaskOwner
from weft.errors import Denied, MeshError, Unavailable
from weft.messaging.brokers.redis_address import RedisAddress
from weft.messaging.brokers.redis_script import Script

logger = logging.getLogger(__name__)

Argument = str | bytes | int
Orphaned = Callable[[Any], None]

FAILURES = (RedisError, OSError, EOFError, ValueError, TimeoutError)
"""What redis-py raises when a server is away, breaks off, refuses, or answers garbage."""

_CONNECTIONS = 2
"""One pipeline is filled while another is under way."""

_BATCH = 256
_BATCH_BYTES = 4 * 1024**2
"""A pipeline has as many commands, and about as many bytes, at most."""

_LONGEST_PAUSE = 0.5
"""Seconds, at most, between two attempts to connect."""

_OUR_ERRORS = "WEFT"
_DENIALS = (AuthenticationError, AuthenticationWrongNumberOfArgsError, AuthorizationError, NoPermissionError)
_DENIAL_TEXTS = ("NOAUTH", "WRONGPASS", "NOPERM", "ACL failure")


class RedisRefusal(Exception):
    """A script of Weft's said no; nothing was changed. `code` says why, `detail` what it adds."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code, _, self.detail = text.partition(" ")


@dataclass(eq=False, slots=True)
class _Call:
    command: tuple[Argument, ...]
    script: Script | None
    size: int
    answer: asyncio.Future[Any]
    orphaned: Orphaned | None

    def settle(self, reply: Any) -> None:
        if not self.answer.done():
            self.answer.set_result(reply)
        elif self.orphaned is not None:
            self.orphaned(reply)

    def fail(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

    def with_text(self) -> tuple[Argument, ...]:
        """The command that brings its script along."""
        assert self.script is not None  # noqa: S101 -- only of scripts is said that they are not there
        return ("EVAL", self.script.text, *self.command[2:])


class RedisConnection:
    """Connections to one Redis, which are kept up as long as there is something to say."""

    def __init__(self, address: RedisAddress, *, timeout: float) -> None:
        """`timeout`: seconds that each command may take, a lost connection included."""
        self.address = address
        self.timeout = timeout
        self._waiting: deque[_Call] = deque()
        self._news = asyncio.Event()
        self._trouble: BaseException | None = None
        self._closed = False
        self._reminder = Reminder(asyncio.get_running_loop().time(), first=0.0)
        self._tasks = TaskOwner("redis")
        for number in range(_CONNECTIONS):
            self._tasks.start(self._work(), name=f"connection {number}", endless=True)

    async def call(self, what: str, *command: Argument) -> Any:
        """The answer to a command. Raises Unavailable, saying that Weft cannot `what`, or Denied."""
        return await self._do(what, command, None, None)

    async def run(
        self,
        what: str,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[Argument] = (),
        *,
        orphaned: Orphaned | None = None,
    ) -> Any:
        """What a script returns. Raises Unavailable, Denied, or RedisRefusal.

        Who is cancelled does not hear the answer: `orphaned` gets it.
        """
        return await self._do(what, ("EVALSHA", script.sha, len(keys), *keys, *arguments), script, orphaned)

    def unavailable(self, what: str, error: BaseException | None = None) -> MeshError:
        """The error that tells that Weft could not do `what`."""
        return _translated(what, self.address, error or self._trouble or TimeoutError(), self.timeout)

    async def close(self) -> None:
        """Close the connections. Commands that wait fail. A second time it does nothing."""
        self._closed = True
        await self._tasks.close()
        while self._waiting:
            self._waiting.popleft().fail(ConnectionError("the connection was closed"))

    async def _do(
        self, what: str, command: tuple[Argument, ...], script: Script | None, orphaned: Orphaned | None
    ) -> Any:
        if self._closed:
            raise Unavailable(f"cannot {what}: the connection to Redis at {self.address} was closed")
        size = sum(len(each) for each in command if isinstance(each, str | bytes))
        call = _Call(command, script, size, asyncio.get_running_loop().create_future(), orphaned)
        self._waiting.append(call)
        self._news.set()
        try:
            async with asyncio.timeout(self.timeout):
                return await self._answer(call)
        except ResponseError as error:
            if str(error).startswith(_OUR_ERRORS):
                raise RedisRefusal(str(error)) from None
            raise self.unavailable(what, error) from error
        except TimeoutError as error:
            raise self.unavailable(what) from error
        except FAILURES as error:
            raise self.unavailable(what, error) from error

    @staticmethod
    async def _answer(call: _Call) -> Any:
        try:
            return await call.answer
        except asyncio.CancelledError:
            # The answer may have come at the same moment.
            answer = call.answer
            if answer.done() and not answer.cancelled() and not answer.exception():
                call.settle(answer.result())
            raise

    async def _work(self) -> None:
        connection: Connection | None = None
        pauses = backoff(longest=_LONGEST_PAUSE)
        try:
            while True:
                if not self._waiting:
                    self._news.clear()
                    await self._news.wait()
                    continue
                if connection is not None and await _is_stale(connection):
                    await _given_up(connection)
                    connection = None
                if connection is None:
                    connection = await self._connected(pauses)
                    continue
                pauses = backoff(longest=_LONGEST_PAUSE)
                if not await self._exchange(connection, list(self._batch())):
                    await _given_up(connection)
                    connection = None
        finally:
            if connection is not None:
                await _given_up(connection)

    async def _connected(self, pauses: Iterator[float]) -> Connection | None:
        """A connection, or, after a pause, none."""
        try:
            connection = await connected(self.address, self.timeout)
        except FAILURES as error:
            self._trouble = error
            failure = self.unavailable("connect", error)
            if self._reminder.due(asyncio.get_running_loop().time()):
                logger.warning("%s; trying on", failure.detail)
            if isinstance(failure, Denied):
                self._fail_all(error)
            await asyncio.sleep(next(pauses))
            self._drop_forgotten()
            return None
        self._trouble = None
        return connection

    def _batch(self) -> Iterator[_Call]:
        size = 0
        for _ in range(_BATCH):
            if not self._waiting or size > _BATCH_BYTES:
                return
            call = self._waiting.popleft()
            if not call.answer.done():
                size += call.size
                yield call

    async def _exchange(self, connection: Connection, batch: Sequence[_Call]) -> bool:
        """Whether the connection can be used further."""
        try:
            async with asyncio.timeout(self.timeout):
                unknown = await _answered(connection, batch, [call.command for call in batch])
                if unknown:
                    await _answered(connection, unknown, [call.with_text() for call in unknown])
        except ReadOnlyError:
            # It was the primary, and is none any more: the same name may lead to the one that is.
            return False
        except FAILURES as error:
            for call in batch:
                call.fail(error)
            return False
        except BaseException:
            for call in batch:
                call.fail(ConnectionError("the connection was closed"))
            raise
        return True

    def _fail_all(self, error: BaseException) -> None:
        while self._waiting:
            self._waiting.popleft().fail(error)

    def _drop_forgotten(self) -> None:
        while self._waiting and self._waiting[0].answer.done():
            self._waiting.popleft()


async def connected(address: RedisAddress, timeout: float) -> Connection:
    """A connection that answers. Raises one of FAILURES."""
    connection = address.connection(timeout)
    try:
        async with asyncio.timeout(timeout):
            await connection.connect()  # type: ignore[no-untyped-call]
            # A server that is still reading its data lets clients in, and refuses all they ask.
            await connection.send_command("PING")
            await connection.read_response()
    except BaseException:
        await _given_up(connection)
        raise
    return connection


def _translated(what: str, address: RedisAddress, error: BaseException, timeout: float) -> MeshError:
    text = str(error) or f"no answer within {timeout:g} s"
    if isinstance(error, _DENIALS) or any(each in text for each in _DENIAL_TEXTS):
        user = repr(address.username) if address.username else "nobody in particular"
        return Denied(f"cannot {what}: Redis at {address} does not permit it to {user} ({text})")
    if isinstance(error, OutOfMemoryError) or text.startswith("OOM"):
        return Unavailable(
            f"cannot {what}: Redis at {address} has used up its memory (maxmemory): "
            "have consumers take what waits, purge it, or give Redis more"
        )
    if text.startswith("MISCONF"):
        return Unavailable(
            f"cannot {what}: Redis at {address} takes no writes, since it cannot keep them on its disk: "
            f"see that the disk is not full ({text})"
        )
    return Unavailable(
        f"cannot {what}: Redis at {address} cannot be reached or cannot do it ({text}); "
        "see that redis-server, 7.0 or newer, runs there"
    )


async def _answered(
    connection: Connection, calls: Sequence[_Call], commands: Sequence[tuple[Argument, ...]]
) -> list[_Call]:
    """Send commands and settle calls with their answers; those whose scripts the server does not know.

    Raises ReadOnlyError, once all are settled, if the server takes no writes.
    """
    await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
    unknown: list[_Call] = []
    demoted: ReadOnlyError | None = None
    for call in calls:
        try:
            reply = await connection.read_response(disable_decoding=True)
        except NoScriptError:
            unknown.append(call)
        except ResponseError as error:
            call.fail(error)
            demoted = error if isinstance(error, ReadOnlyError) else demoted
        else:
            call.settle(reply)
    if demoted is not None:
        for call in unknown:
            call.fail(demoted)
        raise demoted
    return unknown


async def _is_stale(connection: Connection) -> bool:
    """Whether the server has closed it meanwhile."""
    try:
        look = getattr(connection, "can_read", None) or connection.can_read_destructive
        return bool(await look())
    except FAILURES:
        return True


async def _given_up(connection: Connection) -> None:
    with suppress(*FAILURES):
        await connection.disconnect(nowait=True)
