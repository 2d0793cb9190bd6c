"""Pulling out of consumers of JetStream, several at once, and never more than was asked for.

A *take* asks a consumer for what it has now. Where there was nothing a *bell* is hung up: a request that
waits for a message of one byte at most. No message is so small, so the server answers, as soon as there is
one, that it is larger, and delivers nothing. Thus one can wait at many consumers and then take out of the one
of highest priority, and a request that nobody waits for any more takes nothing out of a queue.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from typing import Generic, NoReturn, Protocol, TypeVar

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from weft.errors import Unavailable
from weft.messaging.brokers.nats_api import pauses, unanswered
from weft.messaging.brokers.nats_wire import DESCRIPTION, NO_RESPONDERS, STATUS, TERMINATE, Place, parse_reply
from weft.store.nats_client import unsubscribe
from weft.store.nats_connection import NatsConnection

logger = logging.getLogger(__name__)

_SECOND = 1_000_000_000

_BELL_SECONDS = 5.0
"""A bell is hung up anew as often, in case the server that had it is gone without a word."""
_BELL_GRACE = 1.0
_ORDERED_TAKE_SECONDS = 0.02
"""How long a take waits where the server may owe its answer until somebody else has acknowledged."""
_KEPT_SECONDS = 0.5
"""What came for a pull that was cancelled is kept so long for the next one, then handed back."""
_LOST_PAUSE = 0.02
"""Seconds until a client that nobody can write to any more is looked at again."""
_REFUSED_PAUSE = 0.2
"""Seconds until a bell is hung up again that was refused."""

_RUNG = "Message Size Exceeds MaxBytes"
_BELL = json.dumps({"batch": 1, "max_bytes": 1, "expires": int(_BELL_SECONDS * _SECOND)}).encode()
_PROBE = json.dumps({"batch": 1, "max_bytes": 1, "no_wait": True}).encode()


class Taken(Protocol):
    """What was pulled."""

    async def nack(self) -> None:
        """Have it delivered again."""
        ...


T = TypeVar("T", bound=Taken)


@dataclass(eq=False, slots=True)
class Source:
    """A consumer of JetStream's that is pulled from."""

    stream: str
    consumer: str
    ordered: bool = False
    """Whether it delivers one message at a time."""
    belled: bool = False
    """Whether it is looked at only when its bell rang: what is in it may be a moment late."""
    ready: bool = False
    """Whether there may be something in it."""
    bell: str = ""
    """The token of the bell that hangs there."""
    bell_ends: float = 0.0
    """By the loop's clock."""


class _Lost(Exception):
    """The connection was lost."""


class _Missing(Exception):
    """The consumer is not there."""


class _Take(Generic[T]):
    """Takes under way, and what came of them."""

    def __init__(self, answered: asyncio.Future[None]) -> None:
        self.answered = answered
        self.missing: dict[Source, int] = {}
        """How many messages each source may still deliver."""
        self.tokens: dict[str, Source] = {}
        self.got: list[T] = []

    def ends(self, source: Source) -> None:
        """This source delivers no more."""
        self.missing.pop(source, None)
        if not self.missing and not self.answered.done():
            self.answered.set_result(None)

    def fail(self, error: Exception) -> None:
        """Nothing more will come."""
        if not self.answered.done():
            self.answered.set_exception(error)

    def close(self) -> None:
        """Nobody waits for it any more."""
        if self.answered.done() and not self.answered.cancelled():
            self.answered.exception()


class NatsPuller(Generic[T]):
    """Pulls from several sources. Open it with `open`; one task at a time may pull."""

    def __init__(
        self,
        connection: NatsConnection,
        rungs: Sequence[Sequence[Source]],
        deliver: Callable[[Msg, Place], T | None],
        what: str,
    ) -> None:
        """As long as an earlier one of `rungs` has messages nothing is taken out of later ones.

        `deliver` makes of a message what is pulled; None: nobody is to get it. Errors say that Weft cannot
        `what`.
        """
        self._connection = connection
        self._rungs = [deque(each) for each in rungs]
        self._sources = {(each.stream, each.consumer): each for rung in rungs for each in rung}
        self._deliver = deliver
        self._what = what
        self._loop = asyncio.get_running_loop()
        self._numbers = count(1)
        self._client: Client | None = None
        self._inbox = ""
        self._subscriptions: list[Subscription] = []
        self._bells: dict[str, Source] = {}
        self._take: _Take[T] | None = None
        self._kept: deque[T] = deque()
        self._kept_timer: asyncio.TimerHandle | None = None
        self._handing_back: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._closed = False
        self._ends = ExitStack()

    async def open(self) -> None:
        """See that everything is there. Raises NotFound, Denied or Unavailable."""
        self._ends.enter_context(self._connection.on_loss(self._lose))
        try:
            await asyncio.gather(*(self._probe(each) for each in self._sources.values()))
        except BaseException:
            self._ends.close()
            raise

    async def pull(self, limit: int, *, wait: float) -> Sequence[T]:
        """Up to `limit`, as soon as there is one; none if there is none within `wait` seconds."""
        ordered = any(each.ordered for each in self._sources.values())
        # These are only taken from when their bells ring, which takes a moment.
        until = self._loop.time() + max(wait, _ORDERED_TAKE_SECONDS if ordered else 0.0)
        missing, lost = iter(pauses(self._connection)), 0.0
        while True:
            try:
                return await self._pull(limit, until)
            except _Lost:
                lost = lost or self._loop.time()
                if self._loop.time() > lost + self._connection.timeout:
                    raise self._connection.unavailable(self._what) from None
                # nats-py knows of it a moment before it tells that the connection is to be made again.
                await asyncio.sleep(_LOST_PAUSE)
            except _Missing:
                pause = next(missing, None)
                if pause is None:
                    raise unanswered(self._connection, self._what) from None
                await asyncio.sleep(pause)

    async def aclose(self) -> None:
        """Stop; what came and was not pulled is handed back."""
        self._closed = True
        self._ends.close()
        self._news.set()
        if self._take is not None:
            self._take.fail(_Lost())
        self._hand_back()
        if self._handing_back:
            await asyncio.wait(self._handing_back)
        subscriptions, self._subscriptions = self._subscriptions, []
        await unsubscribe(subscriptions)

    async def _pull(self, limit: int, until: float) -> Sequence[T]:
        heard = True
        while heard:
            if self._closed:
                raise Unavailable(f"cannot {self._what}: the consumer is closed; open another")
            if self._kept:
                return self._kept_up_to(limit)
            await self._listen()
            await self._hang_bells(belled_only=True)
            if taken := await self._take_any(limit):
                return taken
            heard = await self._hear(until)
        return ()

    async def _listen(self) -> None:
        """Have an inbox at the client that is connected now. Raises Unavailable."""
        client = self._connection.sender
        if client is not None and client is self._client:
            return
        try:
            async with asyncio.timeout(self._connection.timeout):
                client = await self._connection.client()
        except TimeoutError as error:
            raise self._connection.unavailable(self._what) from error
        inbox = client.new_inbox()
        self._subscriptions = await self._connection.subscribe(self._what, [f"{inbox}.*"], self._receive)
        self._inbox = inbox
        self._client = client
        self._forget_bells()

    async def _take_any(self, limit: int) -> Sequence[T]:
        """What the first rung has that has anything."""
        for rung in self._rungs:
            left = [each for each in rung if each.ready or not (each.belled or each.ordered)]
            rung.rotate(-1)
            while left:
                some, left = left[:limit], left[limit:]
                shares = {each: limit // len(some) for each in some}
                shares[some[0]] += limit % len(some)
                if taken := await self._take_from(shares):
                    return taken
        return ()

    async def _take_from(self, shares: dict[Source, int]) -> Sequence[T]:
        take: _Take[T] = _Take(self._loop.create_future())
        self._take = take
        timer = self._loop.call_later(self._connection.timeout, take.fail, TimeoutError())
        try:
            for source, share in shares.items():
                await self._ask_for(take, source, share)
            await take.answered
        except (_Lost, _Missing):
            if not take.got:
                raise
        except TimeoutError:
            if not take.got:
                await self._explain_silence(shares)
        except BaseException:
            self._keep(take.got)
            raise
        finally:
            timer.cancel()
            take.close()
            self._take = None
        return take.got

    async def _ask_for(self, take: _Take[T], source: Source, share: int) -> None:
        token = str(next(self._numbers))
        source.ready = False
        take.missing[source] = 1 if source.ordered else share
        take.tokens[token] = source
        await self._ask(source, _request(source, share), token)

    async def _explain_silence(self, sources: Iterable[Source]) -> NoReturn:
        """Raise what is wrong: perhaps these may no longer be asked."""
        for source in sources:
            await self._probe(source)
        raise self._connection.unavailable(self._what)

    async def _hear(self, until: float) -> bool:
        """Wait for a bell; False if none rings `until` then, by the loop's clock."""
        while not self._closed:
            self._news.clear()
            await self._hang_bells()
            if any(each.ready for each in self._sources.values()):
                return True
            if self._kept:
                return True
            earliest = min(each.bell_ends for each in self._sources.values())
            try:
                async with asyncio.timeout_at(min(until, earliest)):
                    await self._news.wait()
            except TimeoutError:
                if self._loop.time() >= until:
                    return False
        return True

    async def _hang_bells(self, *, belled_only: bool = False) -> None:
        """Have a bell at each source that is empty."""
        now = self._loop.time()
        for source in self._sources.values():
            if source.bell and source.bell_ends <= now:
                # Nobody took it down: the server that had it may be gone.
                self._bells.pop(source.bell, None)
                source.bell, source.ready = "", not source.ordered
            if not (source.bell or source.ready) and (source.belled or not belled_only):
                await self._hang(source, now)

    async def _hang(self, source: Source, now: float) -> None:
        token = str(next(self._numbers))
        self._bells[token] = source
        source.bell, source.bell_ends = token, now + _BELL_SECONDS + _BELL_GRACE
        await self._ask(source, _BELL, token)

    async def _ask(self, source: Source, request: bytes, token: str) -> None:
        client = self._client
        if client is None:
            raise _Lost
        try:
            await client.publish(self._next(source), request, f"{self._inbox}.{token}")
        except nats.errors.Error as error:
            raise _Lost from error

    def _next(self, source: Source) -> str:
        return f"{self._connection.api}.CONSUMER.MSG.NEXT.{source.stream}.{source.consumer}"

    async def _probe(self, source: Source) -> None:
        """See that there is such a consumer, and that it may be pulled from; takes nothing."""
        for pause in (*pauses(self._connection), None):
            try:
                await self._connection.request(self._what, self._next(source), _PROBE)
            except Unavailable as error:
                if not isinstance(error.__cause__, nats.errors.NoRespondersError):
                    raise
                if pause is None:
                    raise unanswered(self._connection, self._what) from error
                await asyncio.sleep(pause)
            else:
                return

    async def _receive(self, message: Msg) -> None:
        place = parse_reply(message.reply) if message.reply else None
        if place is None:
            self._note_status(message)
            return
        source = self._sources.get((place.stream, place.consumer))
        if source is None:
            return
        delivered = self._deliver(message, place)
        if delivered is None and self._client is not None:
            await self._client.publish(message.reply, TERMINATE)
        take = self._take
        if take is None or source not in take.missing:
            if delivered is not None:
                self._keep([delivered])
            return
        source.ready = not source.ordered
        if delivered is not None:
            take.got.append(delivered)
        take.missing[source] -= 1
        # Between accounts NATS takes a message without anything for the end of the answer: no more will come.
        if not take.missing[source] or not (message.headers or message.data):
            take.ends(source)

    def _note_status(self, message: Msg) -> None:
        headers = message.headers or {}
        status, token = headers.get(STATUS, ""), message.subject.rpartition(".")[2]
        take = self._take
        if take is not None and token in take.tokens:
            source = take.tokens.pop(token)
            if status == NO_RESPONDERS:
                take.fail(_Missing())
            else:
                source.ready = False
                take.ends(source)
            return
        source_of_bell = self._bells.pop(token, None)
        if source_of_bell is None or source_of_bell.bell != token:
            return
        description = headers.get(DESCRIPTION, "")
        if status == "409" and description != _RUNG and "Deleted" not in description:
            # Refused: too many wait there, or it changes its leader. Not to ask again and again.
            source_of_bell.bell_ends = min(source_of_bell.bell_ends, self._loop.time() + _REFUSED_PAUSE)
        else:
            source_of_bell.bell = ""
            source_of_bell.ready = status != "408"
        self._news.set()

    def _lose(self) -> None:
        self._client = None
        self._subscriptions = []
        self._forget_bells()
        if self._take is not None:
            self._take.fail(_Lost())
        self._news.set()

    def _forget_bells(self) -> None:
        self._bells.clear()
        for each in self._sources.values():
            each.ready, each.bell = not each.ordered, ""

    def _kept_up_to(self, limit: int) -> Sequence[T]:
        taken = [self._kept.popleft() for _ in range(min(limit, len(self._kept)))]
        if not self._kept and self._kept_timer is not None:
            self._kept_timer.cancel()
            self._kept_timer = None
        return taken

    def _keep(self, delivered: Sequence[T]) -> None:
        """Keep what came for a pull that is no more, for a moment."""
        if not delivered:
            return
        self._kept.extend(delivered)
        self._news.set()
        if self._closed:
            self._hand_back()
        elif self._kept_timer is None:
            self._kept_timer = self._loop.call_later(_KEPT_SECONDS, self._hand_back)

    def _hand_back(self) -> None:
        if self._kept_timer is not None:
            self._kept_timer.cancel()
            self._kept_timer = None
        kept = list(self._kept)
        self._kept.clear()
        if kept:
            task = self._loop.create_task(_nack(kept), name="nats: hand back")
            self._handing_back.add(task)
            task.add_done_callback(self._handing_back.discard)


def _request(source: Source, batch: int) -> bytes:
    if source.ordered:
        return b'{"batch":1,"expires":%d}' % int(_ORDERED_TAKE_SECONDS * _SECOND)
    return b'{"batch":%d,"no_wait":true}' % batch


async def _nack(deliveries: Sequence[Taken]) -> None:
    for each in deliveries:
        try:
            await each.nack()
        except Unavailable as error:
            logger.debug("a message could not be handed back, and comes again by itself: %s", error)
