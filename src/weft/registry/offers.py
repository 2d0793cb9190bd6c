"""What running agents offer, in the store: each beside its instance, under the same key."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from weft.errors import InvalidRequest
from weft.model.agent_card import check_card
from weft.model.foreign_json import foreign_object
from weft.model.offer import (
    MAX_CARD_BYTES,
    MAX_OFFER_BYTES,
    OFFERS_BUCKET,
    JsonObject,
    McpGeneration,
    McpOffer,
    Offer,
)
from weft.store.bucket import Bucket, Store

OFFER_TTL: Final = 15 * 60.0
"""Seconds after which an offer lapses unless it is written again."""

MAX_NOTES: Final = 64
"""Of one offer."""

MAX_NOTE_LENGTH: Final = 500
"""Characters."""

_PATH: Final = re.compile(r"/[!-~]{0,1023}")
_LISTS: Final = ("tools", "resources", "templates", "prompts")
_ROOM_FOR_NOTES: Final = MAX_NOTES * MAX_NOTE_LENGTH * 2
# What a card goes through in the store is one level within the offer, a tool's schema three.
_DEPTH: Final = 68


class OfferCodec:
    """Offers as JSON."""

    def encode(self, value: Offer) -> bytes:
        """Return the JSON of `value`. Raises InvalidRequest if it is larger than an offer may be."""
        data = _written(value)
        if len(data) > MAX_OFFER_BYTES:
            raise InvalidRequest(f"the offer has {len(data)} bytes, {MAX_OFFER_BYTES} at most")
        return data

    def decode(self, data: bytes) -> Offer:
        """Return the offer in `data`; raise ValueError if it holds none. Unknown fields are ignored."""
        document = foreign_object(data, limit=MAX_OFFER_BYTES, depth=_DEPTH)
        card, mcp = document.get("card"), document.get("mcp")
        return Offer(
            card=None if card is None else _card(card),
            mcp=None if mcp is None else _mcp(_object(mcp, "mcp")),
            notes=_notes(document.get("notes", [])),
        )


class Offers:
    """The offers of all instances. Open it with `open`."""

    def __init__(self, bucket: Bucket[Offer]) -> None:
        self.bucket = bucket
        """By the keys of instances, `<type>.<id>`."""

    @classmethod
    async def open(cls, store: Store) -> Offers:
        """Open the offers in `store`. Raises Unavailable."""
        return cls(await store.bucket(OFFERS_BUCKET, OfferCodec(), direct=True))

    async def publish(self, key: str, offer: Offer) -> None:
        """Write what the instance `key` offers. It lapses after OFFER_TTL: write it again before.

        What does not fit is left out, with a note (see `fitting`). Raises Unavailable.
        """
        await self.bucket.put(key, fitting(offer), ttl=OFFER_TTL)

    async def withdraw(self, key: str) -> None:
        """Remove the offer of the instance `key`, if there is one. Raises Unavailable."""
        await self.bucket.delete(key)


def fitting(offer: Offer) -> Offer:
    """`offer` within the limits: what goes beyond them is left out from the end of its lists, with a note."""
    notes = [each[:MAX_NOTE_LENGTH] for each in offer.notes[:MAX_NOTES]]
    card = offer.card
    if card is not None and _size(card) > MAX_CARD_BYTES * 2:  # an escape may be longer than what it is for
        card = None
        notes.append(f"its card has more than {MAX_CARD_BYTES} bytes: it is left out")
    room = MAX_OFFER_BYTES - _ROOM_FOR_NOTES - (_size(card) if card is not None else 0)
    mcp = offer.mcp
    if mcp is not None:
        mcp, left_out = _fitting_lists(mcp, room)
        notes += left_out
    return Offer(card, mcp, tuple(notes[-MAX_NOTES:]))


def _fitting_lists(mcp: McpOffer, room: int) -> tuple[McpOffer, list[str]]:
    lists: Mapping[str, Sequence[JsonObject]] = {name: getattr(mcp, name) for name in _LISTS}
    server = mcp.server if _size(mcp.server) <= room // 4 else {}
    room -= _size(server)
    kept: dict[str, tuple[JsonObject, ...]] = {}
    notes = []
    for name, entries in lists.items():
        kept[name] = tuple(_within(entries, room))
        room -= sum(_size(each) + 1 for each in kept[name])
        if len(kept[name]) < len(entries):
            left = len(entries) - len(kept[name])
            notes.append(
                f"{left} of {len(entries)} {name} are left out: all lists together have more than "
                f"{MAX_OFFER_BYTES} bytes"
            )
    return replace(
        mcp,
        server=server,
        tools=kept["tools"],
        resources=kept["resources"],
        templates=kept["templates"],
        prompts=kept["prompts"],
    ), notes


def _within(entries: Sequence[JsonObject], room: int) -> Iterator[JsonObject]:
    for each in entries:
        room -= _size(each) + 1
        if room < 0:
            return
        yield each


def _size(value: Any) -> int:
    return len(_json(value))


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=dict).encode()


def _written(offer: Offer) -> bytes:
    document: dict[str, Any] = {"notes": list(offer.notes)}
    if offer.card is not None:
        document["card"] = offer.card
    if offer.mcp is not None:
        mcp = offer.mcp
        document["mcp"] = {
            "generation": mcp.generation.value,
            "path": mcp.path,
            "server": mcp.server,
            "completions": mcp.completions,
            **{name: list(getattr(mcp, name)) for name in _LISTS},
        }
    return _json(document)


def _card(value: Any) -> JsonObject:
    card = _object(value, "card")
    check_card(card)
    return card


def _mcp(fields: JsonObject) -> McpOffer:
    path = fields.get("path")
    # Callers' Envoys send requests there: members may write what they like.
    if not isinstance(path, str) or _PATH.fullmatch(path) is None:
        raise ValueError("mcp.path is not a path")
    return McpOffer(
        generation=McpGeneration(str(fields.get("generation"))),
        path=path,
        server=_object(fields.get("server", {}), "mcp.server"),
        completions=fields.get("completions") is True,
        **{name: _objects(fields.get(name, []), f"mcp.{name}") for name in _LISTS},
    )


def _object(value: Any, what: str) -> JsonObject:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is not an object")  # noqa: TRY004 -- as all that is wrong with it
    return value


def _objects(value: Any, what: str) -> tuple[JsonObject, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{what} is not a list")  # noqa: TRY004 -- as all that is wrong with it
    return tuple(_object(each, what) for each in value)


def _notes(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError("notes is not a list of texts")
    return tuple(each[:MAX_NOTE_LENGTH] for each in value[:MAX_NOTES])
