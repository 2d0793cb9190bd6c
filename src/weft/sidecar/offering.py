"""What the agent offers, read from it again and again, and kept in the store."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Generic, Protocol, Self, TypeVar

from weft.aio.tasks import TaskOwner
from weft.errors import MeshError, Unavailable
from weft.model.agent_card import card_notes, mcp_path, skill_capabilities
from weft.model.node import MAX_CAPABILITIES, AgentProtocol
from weft.model.offer import McpOffer, Offer
from weft.registry.offers import Offers

logger = logging.getLogger(__name__)

T = TypeVar("T")

READ_INTERVAL: Final = 30.0
"""Seconds between two readings, give or take a tenth."""

WRITE_INTERVAL: Final = 300.0
"""Seconds after which an offer is written again though nothing has changed, so that it does not lapse."""

PATIENCE: Final = 3
"""Failed readings in a row after which what was read last counts no more."""

_JITTER: Final = 0.1
_RETRY_PAUSE: Final = 1.0

ReadCard = Callable[[], Awaitable[dict[str, Any] | None]]
"""The agent's card; None: it has none. Raises MeshError with the note to keep."""


class McpReading(Protocol):
    """What came of reading what an MCP server lists."""

    @property
    def offer(self) -> McpOffer | None:
        """As far as it could be read; None if there was nobody to be asked."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be read or was left out, and why."""
        ...

    @property
    def failed(self) -> bool:
        """Whether something could not be read that was asked for."""
        ...


class McpSource(Protocol):
    """One MCP server, as it is read."""

    async def read(self) -> McpReading:
        """Read all that it lists."""
        ...

    async def follow(self, changed: Callable[[], None]) -> None:
        """Have `changed` called when it says that it lists something else now; until cancelled."""
        ...

    async def aclose(self) -> None:
        """Take leave of it."""
        ...


@dataclass(slots=True)
class _Kept(Generic[T]):
    """What was read last, for as long as readings may fail."""

    value: T | None = None
    notes: tuple[str, ...] = ()
    _failures: int = 0

    def take(self, value: T | None, *notes: str) -> None:
        self.value, self.notes, self._failures = value, notes, 0

    def fail(self, instead: T | None, *notes: str) -> None:
        """Keep what there was, for a while; then have what there is `instead`."""
        self.notes = notes
        self._failures += 1
        if self.value is None or self._failures >= PATIENCE:
            self.value = instead


class AgentReader:
    """Reads what one agent offers. Use it as an async context manager."""

    def __init__(
        self,
        protocol: AgentProtocol,
        *,
        mcp_path: str,
        read_card: ReadCard,
        open_mcp: Callable[[str], McpSource],
        changed: Callable[[], None],
    ) -> None:
        """`mcp_path`: where an agent that speaks mcp takes requests; `open_mcp` makes what reads there.

        `changed` is called when the agent says of itself that it offers something else now.
        """
        self._protocol = protocol
        self._mcp_path = mcp_path
        self._read_card = read_card
        self._open_mcp = open_mcp
        self._changed = changed
        self._card: _Kept[dict[str, Any]] = _Kept()
        self._mcp: _Kept[McpOffer] = _Kept()
        self._source: tuple[str, McpSource, TaskOwner] | None = None

    async def read(self) -> Offer:
        """What the agent offers now. What cannot be read is told of in a note; it never raises MeshError."""
        match self._protocol:
            case AgentProtocol.A2A | AgentProtocol.HTTP1:
                await self._take_card()
                card = self._card.value
                await self._take_mcp(None if card is None else mcp_path(card))
            case AgentProtocol.MCP | AgentProtocol.MCP_STDIO:
                await self._take_mcp(self._mcp_path)
            case AgentProtocol.H2C:
                pass  # gRPC servers have neither
        return Offer(self._card.value, self._mcp.value, tuple(self._notes()))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave()

    async def _take_card(self) -> None:
        try:
            card = await self._read_card()
        except MeshError as error:
            # An agent over HTTP need not know of A2A: whatever it answers there is not its fault.
            told = self._protocol is AgentProtocol.A2A or self._card.value is not None
            self._card.fail(None, *((error.detail,) if told else ()))
            return
        missing = card is None and self._protocol is AgentProtocol.A2A
        self._card.take(card, *(("it has no card",) if missing else ()))

    async def _take_mcp(self, path: str | None) -> None:
        if path is None:
            await self._leave()
            self._mcp.take(None)
            return
        reading = await (await self._source_at(path)).read()
        if reading.failed:
            self._mcp.fail(reading.offer, *reading.notes)
        else:
            self._mcp.take(reading.offer, *reading.notes)

    async def _source_at(self, path: str) -> McpSource:
        if self._source is None or self._source[0] != path:
            await self._leave()
            source, following = self._open_mcp(path), TaskOwner(f"MCP at {path}")
            following.start(source.follow(self._changed), name="follow its lists")
            self._source = (path, source, following)
        return self._source[1]

    async def _leave(self) -> None:
        if self._source is not None:
            (_, source, following), self._source = self._source, None
            await following.close()
            await source.aclose()

    def _notes(self) -> Iterator[str]:
        yield from (*self._card.notes, *self._mcp.notes)
        if self._card.value is not None:
            yield from card_notes(self._card.value)
            if self._protocol is AgentProtocol.A2A:
                yield from skill_capabilities(self._card.value)[1]


class Offering:
    """Keeps one instance's offer in the store. `run` it once the agent is well."""

    def __init__(
        self,
        offers: Offers,
        key: str,
        read: Callable[[], Awaitable[Offer]],
        *,
        again: asyncio.Event,
        changed: Callable[[Offer], None],
        read_interval: float = READ_INTERVAL,
        write_interval: float = WRITE_INTERVAL,
    ) -> None:
        """`key` is the instance's.

        It is read at once when `again` is set; `changed` is told of every offer that differs from the last.
        """
        self._offers = offers
        self._key = key
        self._read = read
        self._changed = changed
        self._read_interval = read_interval
        self._write_interval = write_interval
        self._again = again
        self._writing = asyncio.Lock()
        self._withdrawn = False
        self._offer: Offer | None = None
        self._written: tuple[Offer, float] | None = None

    async def run(self) -> None:
        """Read and write until cancelled."""
        now = asyncio.get_running_loop().time
        while True:
            self._again.clear()
            self._take(await self._read())
            # Jitter keeps agents that were started together from being asked together for ever.
            due = now() + self._read_interval * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311
            kept = await self._keep()
            while not self._again.is_set() and (left := due - now()) > 0:
                await self._wait(left if kept else min(_RETRY_PAUSE, left))
                kept = kept or await self._keep()

    async def withdraw(self) -> None:
        """Remove the offer, for good. Raises Unavailable: then it lapses by itself."""
        async with self._writing:
            self._withdrawn = True
            if self._written is not None:
                await self._offers.withdraw(self._key)

    def _take(self, offer: Offer) -> None:
        if offer == self._offer:
            return
        for note in offer.notes:
            if self._offer is None or note not in self._offer.notes:
                logger.warning("what %s offers: %s", self._key, note)
        self._offer = offer
        self._changed(offer)

    async def _keep(self) -> bool:
        """Write the offer; whether that need not be tried again before the next reading."""
        try:
            await self._write()
        except Unavailable as error:
            logger.debug("what %s offers cannot be kept, trying on: %s", self._key, error.detail)
            return False
        except MeshError as error:
            logger.warning("what %s offers cannot be kept: %s", self._key, error.detail)
        return True

    async def _write(self) -> None:
        async with self._writing:
            now, offer = asyncio.get_running_loop().time(), self._offer
            if self._withdrawn or offer is None or self._is_written(offer, now):
                return
            # Before the attempt: what an answer that got lost has written must be removed too.
            self._written = (offer, -math.inf)
            await self._offers.publish(self._key, offer)
            self._written = (offer, now)

    def _is_written(self, offer: Offer, now: float) -> bool:
        return (
            self._written is not None
            and self._written[0] == offer
            and now - self._written[1] < self._write_interval
        )

    async def _wait(self, pause: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._again.wait()


def offered_capabilities(offer: Offer, protocol: AgentProtocol, declared: frozenset[str]) -> frozenset[str]:
    """The capabilities of an instance: those that were declared, and the skills of an A2A agent."""
    if offer.card is None or protocol is not AgentProtocol.A2A:
        return declared
    room = max(0, MAX_CAPABILITIES - len(declared))
    skills = [each for each in skill_capabilities(offer.card)[0] if each not in declared]
    return declared | frozenset(skills[:room])
