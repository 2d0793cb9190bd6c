"""The catalogue of the agents in an in-memory mesh, by their A2A cards."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from weft.errors import NotFound
from weft.model.card_catalogue import CardQuery, ListedCard, Offering, listed_cards
from weft.model.mesh_card import mesh_base, mesh_card
from weft.model.offer import Offer
from weft.sdk.a2a.card import card
from weft.sdk.cards import CARDS_PATH, PAGE_SIZE, CardPage
from weft.sdk.cards import ListedCard as CardRecord
from weft.sdk.problem import Problem
from weft.sdk.request import problem_response
from weft.testing.members import Members


def card_routes(members: Members) -> list[Route]:
    """The part of the control plane's API that tells of cards."""

    async def search(request: Request) -> Response:
        given = request.query_params
        query = CardQuery(given.get("q", ""), given.getlist("skill"), given.getlist("tag"))
        rest = (each for each in _listed(members, query) if each.type > given.get("after", ""))
        limit = min(int(given.get("limit", PAGE_SIZE)), PAGE_SIZE)
        found = list(islice(rest, limit + 1))
        page = CardPage(
            items=[_record(each) for each in found[:limit]],
            next=found[limit - 1].type if len(found) > limit else None,
        )
        return JSONResponse(page.model_dump())

    async def one(request: Request) -> Response:
        wanted = request.path_params["type"]
        for each in _listed(members, CardQuery(types=(wanted,))):
            return JSONResponse(_record(each).model_dump())
        return problem_response(Problem(404, NotFound, f"no agent of type {wanted!r} has a card"))

    return [Route(CARDS_PATH, search), Route(f"{CARDS_PATH}/{{type}}", one)]


def _listed(members: Members, query: CardQuery) -> Iterator[ListedCard]:
    offers: dict[str, list[Offering]] = {}
    for member in members.living():
        if member.app.a2a is not None and member.app.a2a.agent.handlers:
            shown = card(member.app.a2a.agent.source, mesh_base(member.instance.type))
            offers.setdefault(member.instance.type, []).append((member.instance, Offer(shown)))
    return listed_cards(offers, lambda _instance, _card: True, query)


def _record(listed: ListedCard) -> CardRecord:
    shown = mesh_card(listed.card, mesh_base(listed.type))
    return CardRecord(type=listed.type, card=shown, instances=listed.instances, healthy=listed.healthy)
