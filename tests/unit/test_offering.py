"""Reading what an agent offers, from real servers that misbehave, and keeping it in the store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from tests.fake_time import run_in_fake_time

from weft.errors import AgentFailed, MeshError, Unavailable
from weft.model.node import MAX_CAPABILITIES, Address, AgentProtocol
from weft.model.offer import MAX_CARD_BYTES, MCP_EXTENSION, McpGeneration, McpOffer, Offer
from weft.registry.offers import OFFER_TTL, Offers
from weft.sidecar.agent_card import read_agent_card
from weft.sidecar.offering import (
    PATIENCE,
    READ_INTERVAL,
    WRITE_INTERVAL,
    AgentReader,
    Offering,
    offered_capabilities,
)
from weft.store.memory import MemoryStore

CARD: dict[str, Any] = {"name": "Echo", "skills": [{"id": "Say_It"}]}
WITH_MCP = {**CARD, "capabilities": {"extensions": [{"uri": MCP_EXTENSION, "params": {"path": "/tools"}}]}}
KEY = "echo.one"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def agent(serve: Serve) -> AsyncIterator[Address]:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await serve(reader, writer)
        except ConnectionError:
            pass  # the reader had enough
        finally:
            writer.close()

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with listening:
        yield Address("127.0.0.1", listening.sockets[0].getsockname()[1])


def answering(body: bytes, status: int = 200) -> Serve:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()

    return serve


async def test_a_card_is_read_as_the_agent_serves_it() -> None:
    async with agent(answering(json.dumps(CARD).encode())) as address:
        assert await read_agent_card(address) == CARD


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_an_agent_may_have_no_card(status: int) -> None:
    async with agent(answering(b"not here", status)) as address:
        assert await read_agent_card(address) is None


@pytest.mark.parametrize(
    ("serve", "why"),
    [
        (answering(b"", 500), "answered 500"),
        (answering(b"", 302), "answered 302"),
        (answering(b"<html>"), "not taken"),
        (answering(b'{"name": 7}'), "not text"),
        (answering(b'{"name": "' + b"x" * MAX_CARD_BYTES + b'"}'), "longer"),
    ],
)
async def test_what_is_wrong_with_a_card_is_said(serve: Serve, why: str) -> None:
    async with agent(serve) as address:
        with pytest.raises(MeshError, match=why):
            await read_agent_card(address)


async def test_an_agent_that_hangs_or_is_gone_keeps_nobody_waiting() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        await reader.read()

    async with agent(hang) as address:
        with pytest.raises(MeshError, match="within"):
            await read_agent_card(address, timeout=0.2)
    with pytest.raises(Unavailable):
        await read_agent_card(address)


@dataclass
class Reading:
    """What an MCP server was found to list."""

    offer: McpOffer | None
    notes: tuple[str, ...] = ()
    failed: bool = False


@dataclass
class Source:
    """An MCP server that lists what a test says, and can say that it has changed."""

    path: str
    readings: list[Reading]
    closed: bool = False
    changed: Callable[[], None] = field(default=lambda: None)

    async def read(self) -> Reading:
        return self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]

    async def follow(self, changed: Callable[[], None]) -> None:
        self.changed = changed
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        self.closed = True


class Script:
    """What an agent answers, one reading after the other; the last answer stays."""

    def __init__(self, *cards: dict[str, Any] | MeshError | None, mcp: list[Reading] | None = None) -> None:
        self._cards = list(cards)
        self._mcp = mcp or [Reading(None)]
        self.sources: list[Source] = []
        self.again = asyncio.Event()

    async def card(self) -> dict[str, Any] | None:
        answer = self._cards.pop(0) if len(self._cards) > 1 else self._cards[0]
        if isinstance(answer, MeshError):
            raise answer
        return answer

    def source(self, path: str) -> Source:
        self.sources.append(Source(path, self._mcp))
        return self.sources[-1]

    def reader(self, protocol: AgentProtocol = AgentProtocol.A2A) -> AgentReader:
        return AgentReader(
            protocol,
            mcp_path="/mcp",
            read_card=self.card,
            open_mcp=self.source,
            changed=self.again.set,
        )


TOOLS = McpOffer(McpGeneration.STATELESS, tools=({"name": "add"},))
BROKEN = AgentFailed("its card is not taken: odd")


async def test_what_was_read_outlasts_some_failed_readings_and_no_more() -> None:
    async with Script(CARD, BROKEN).reader() as reader:
        assert await reader.read() == Offer(CARD)
        for _ in range(PATIENCE - 1):
            assert await reader.read() == Offer(CARD, notes=(BROKEN.detail,))
        assert await reader.read() == Offer(notes=(BROKEN.detail,))


async def test_a_card_that_was_taken_away_is_gone_at_once() -> None:
    async with Script(CARD, None).reader() as reader:
        assert (await reader.read()).card == CARD
        assert await reader.read() == Offer(notes=("it has no card",))


@pytest.mark.parametrize("answer", [None, BROKEN])
async def test_an_agent_that_only_speaks_http_owes_nobody_a_card(answer: MeshError | None) -> None:
    async with Script(answer).reader(AgentProtocol.HTTP1) as reader:
        assert await reader.read() == Offer()


async def test_an_agent_whose_card_says_so_is_read_as_an_mcp_server_until_it_says_so_no_more() -> None:
    script = Script(WITH_MCP, WITH_MCP, CARD, mcp=[Reading(TOOLS, ("odd",))])
    async with script.reader(AgentProtocol.HTTP1) as reader:
        for _ in range(2):
            assert await reader.read() == Offer(WITH_MCP, TOOLS, ("odd",))
        [source] = script.sources
        assert source.path == "/tools"
        assert (await reader.read()).mcp is None
        assert source.closed


async def test_lists_outlast_failed_readings_as_cards_do() -> None:
    part = McpOffer(McpGeneration.STATELESS)
    script = Script(None, mcp=[Reading(TOOLS), Reading(part, ("hangs",), failed=True)])
    async with script.reader(AgentProtocol.MCP) as reader:
        assert await reader.read() == Offer(None, TOOLS)
        for _ in range(PATIENCE - 1):
            assert await reader.read() == Offer(None, TOOLS, ("hangs",))
        assert await reader.read() == Offer(None, part, ("hangs",))
    [source] = script.sources
    assert (source.path, source.closed) == ("/mcp", True)


async def test_grpc_servers_are_asked_for_nothing() -> None:
    script = Script(BROKEN)
    async with script.reader(AgentProtocol.H2C) as reader:
        assert await reader.read() == Offer()
    assert script.sources == []


def test_skills_are_capabilities_of_a2a_agents_only_and_within_the_limit() -> None:
    declared = frozenset({"count"})
    many = Offer({"name": "x", "skills": [{"id": f"s{number}"} for number in range(250)]})
    assert offered_capabilities(Offer(CARD), AgentProtocol.A2A, declared) == {"count", "say-it"}
    assert offered_capabilities(Offer(CARD), AgentProtocol.HTTP1, declared) == declared
    assert offered_capabilities(Offer(), AgentProtocol.A2A, declared) == declared
    assert len(offered_capabilities(many, AgentProtocol.A2A, declared)) == MAX_CAPABILITIES


class Scene:
    """An Offering over a store in memory, in fake time."""

    def __init__(self, offers: Offers, store: MemoryStore, script: Script) -> None:
        self.offers = offers
        self.store = store
        self.script = script
        self.told: list[Offer] = []
        self.reads = 0
        self.offering = Offering(offers, KEY, self._read, again=script.again, changed=self.told.append)
        self._reader = script.reader()

    async def _read(self) -> Offer:
        self.reads += 1
        return await self._reader.read()

    async def stored(self) -> Offer | None:
        entry = await self.offers.bucket.get(KEY)
        return None if entry is None else entry.value

    async def revision(self) -> int:
        entry = await self.offers.bucket.get(KEY)
        assert entry is not None
        return entry.revision


def played(script: Callable[[], Script], play: Callable[[Scene], Awaitable[None]]) -> None:
    async def scene() -> None:
        store = MemoryStore()
        made = Scene(await Offers.open(store), store, script())
        running = asyncio.create_task(made.offering.run())
        try:
            await asyncio.sleep(1)
            await play(made)
        finally:
            running.cancel()
            await store.close()

    run_in_fake_time(scene())


def test_an_offer_is_written_when_it_changes_and_in_time_before_it_lapses() -> None:
    async def play(scene: Scene) -> None:
        assert await scene.stored() == Offer(CARD)
        first = await scene.revision()
        await asyncio.sleep(WRITE_INTERVAL - 2 * READ_INTERVAL)
        assert await scene.revision() == first
        assert scene.reads > 5
        await asyncio.sleep(2 * OFFER_TTL)
        assert await scene.revision() > first
        assert await scene.stored() == Offer(CARD)
        assert scene.told == [Offer(CARD)]

    played(lambda: Script(CARD), play)


def test_it_is_read_at_once_when_the_agent_says_that_it_has_changed() -> None:
    other = {**CARD, "name": "Other"}

    async def play(scene: Scene) -> None:
        scene.script.again.set()
        await asyncio.sleep(0.1)
        assert await scene.stored() == Offer(other)
        assert scene.told == [Offer(CARD), Offer(other)]

    played(lambda: Script(CARD, other), play)


def test_a_withdrawn_offer_is_not_written_again() -> None:
    async def play(scene: Scene) -> None:
        await scene.offering.withdraw()
        await asyncio.sleep(2 * WRITE_INTERVAL)
        assert await scene.stored() is None

    played(lambda: Script(CARD), play)


def test_an_offer_that_cannot_be_written_is_tried_again_soon() -> None:
    async def play(scene: Scene) -> None:
        first = await scene.revision()
        scene.store.interrupt()
        scene.script.again.set()
        await asyncio.sleep(5)
        scene.store.resume()
        await asyncio.sleep(3)
        assert await scene.revision() > first
        assert await scene.stored() == Offer({**CARD, "name": "Other"})

    played(lambda: Script(CARD, {**CARD, "name": "Other"}), play)


def test_reading_a_real_agent_and_its_offer_fit_together() -> None:
    async def scene() -> Offer:
        async with agent(answering(json.dumps(CARD).encode())) as address:
            script = Script(None)
            reader = AgentReader(
                AgentProtocol.A2A,
                mcp_path="/mcp",
                read_card=partial(read_agent_card, address),
                open_mcp=script.source,
                changed=script.again.set,
            )
            async with reader:
                return await reader.read()

    assert asyncio.run(scene()) == Offer(CARD)
