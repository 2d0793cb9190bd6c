"""What agents offer, as it is kept in the store and joined with who is running."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from tests.fake_time import run_in_fake_time

from weft.controlplane.offers import OfferView
from weft.errors import InvalidRequest
from weft.model.agent import Instance, Status
from weft.model.offer import MAX_OFFER_BYTES, McpGeneration, McpOffer, Offer
from weft.registry.offers import MAX_NOTE_LENGTH, MAX_NOTES, OFFER_TTL, OfferCodec, Offers, fitting
from weft.registry.registry import Registry
from weft.registry.view import View
from weft.store.memory import MemoryStore

ONE = Instance("one", "echo", "127.0.0.1:1001", Status.HEALTHY, incarnation="x")
CARD = {"name": "Echo", "skills": [{"id": "echo"}]}
MCP = McpOffer(
    McpGeneration.SESSIONS,
    path="/tools",
    server={"name": "srv"},
    tools=({"name": "add", "inputSchema": {"type": "object"}}, {"name": "sub"}),
    resources=({"uri": "x://1"},),
    templates=({"uriTemplate": "x://{n}"},),
    prompts=({"name": "p"},),
    completions=True,
)


@pytest.mark.parametrize("offer", [Offer(), Offer(CARD), Offer(None, MCP, ("a note",)), Offer(CARD, MCP)])
def test_an_offer_reads_as_it_was_written(offer: Offer) -> None:
    codec = OfferCodec()
    assert codec.decode(codec.encode(offer)) == offer


def _document(**changes: Any) -> bytes:
    mcp = {"generation": "2025-11-25", "path": "/mcp", "tools": []}
    return json.dumps({"card": CARD, "mcp": mcp | changes.pop("mcp", {}), "notes": [], **changes}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b'{"card": 7}',
        _document(card=["x"]),
        _document(card={"name": "x", "skills": 5}),
        _document(notes="text"),
        _document(notes=[1]),
        _document(mcp={"generation": "1999-01-01"}),
        _document(mcp={"path": "nowhere"}),
        _document(mcp={"path": 7}),
        _document(mcp={"tools": {}}),
        _document(mcp={"tools": ["add"]}),
        _document(mcp={"server": []}),
        b'{"notes": ["' + b"x" * MAX_OFFER_BYTES + b'"]}',
        b'{"card": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001,
        *(
            json.dumps({"mcp": {"path": path, "generation": "2025-11-25"}}).encode()
            for path in ("", "mcp", "/x\r\nx-weft-caller: me", "/x y", "/\x00", "/\u00e9", "/" + "x" * 1024)
        ),
    ],
)
def test_what_is_no_offer_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"JSON|not|no|has|deeper"):
        OfferCodec().decode(data)


def test_fields_of_later_versions_do_no_harm() -> None:
    assert OfferCodec().decode(_document(later={"x": 1}, mcp={"later": 2})).card == CARD


def test_what_does_not_fit_is_left_out_from_the_end_with_a_note() -> None:
    large = tuple({"name": f"t{number}", "description": "x" * 10_000} for number in range(200))
    offer = fitting(Offer(CARD, replace(MCP, tools=large)))
    assert len(OfferCodec().encode(offer)) <= MAX_OFFER_BYTES
    assert offer.card == CARD
    assert offer.mcp is not None
    kept = offer.mcp.tools
    assert 50 < len(kept) < 100
    assert kept == large[: len(kept)]
    assert f"{200 - len(kept)} of 200 tools are left out" in offer.notes[-1]
    with pytest.raises(InvalidRequest, match="bytes"):
        OfferCodec().encode(Offer(CARD, replace(MCP, tools=large)))


def test_notes_have_limits_too() -> None:
    offer = fitting(Offer(notes=tuple("x" * 10_000 for _ in range(1000))))
    assert (len(offer.notes), len(offer.notes[0])) == (MAX_NOTES, MAX_NOTE_LENGTH)


@asynccontextmanager
async def _view() -> AsyncIterator[tuple[OfferView, Offers, Registry]]:
    store = MemoryStore()
    registry, offers = await Registry.open(store, lease_ttl=3600), await Offers.open(store)
    async with View(registry) as instances, OfferView.follow(offers, instances) as view:
        await instances.ready()
        yield view, offers, registry
    await store.close()


def test_an_offer_counts_while_its_instance_is_there() -> None:
    async def scene() -> None:
        async with _view() as (view, offers, registry):
            await offers.publish(ONE.key, Offer(CARD))
            await offers.publish("echo.nobody", Offer(CARD))
            seen = await view.changed_since(0)
            lease = await registry.register(ONE)
            while not view.by_type:
                seen = await view.changed_since(seen)
            assert view.by_type == {"echo": [(ONE, Offer(CARD))]}
            await lease.release()
            while view.by_type:
                seen = await view.changed_since(seen)

    run_in_fake_time(scene())


def test_a_change_is_told_and_an_offer_that_is_not_renewed_lapses() -> None:
    async def scene() -> None:
        async with _view() as (view, offers, registry):
            await registry.register(ONE)
            await offers.publish(ONE.key, Offer(CARD))
            while not view.by_type:
                await view.changed_since(view.generation)
            seen = view.generation
            await offers.publish(ONE.key, Offer(notes=("gone",)))
            await view.changed_since(seen)
            assert view.by_type["echo"] == [(ONE, Offer(notes=("gone",)))]
            began = asyncio.get_running_loop().time()
            while view.by_type:
                await view.changed_since(view.generation)
            assert asyncio.get_running_loop().time() - began <= OFFER_TTL + 2

    run_in_fake_time(scene())


def test_a_withdrawn_offer_is_gone() -> None:
    async def scene() -> None:
        async with _view() as (view, offers, registry):
            await registry.register(ONE)
            await offers.publish(ONE.key, Offer(CARD))
            while not view.by_type:
                await view.changed_since(view.generation)
            await offers.withdraw(ONE.key)
            await offers.withdraw(ONE.key)
            while view.by_type:
                await view.changed_since(view.generation)

    run_in_fake_time(scene())
