"""The cards of A2A agents: the catalogue, and what those get who ask an agent for its card."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from itertools import islice
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from fastapi.responses import JSONResponse

from weft.controlplane.api.access import requires
from weft.controlplane.api.authentication import Caller, CurrentCaller, Peer
from weft.controlplane.api.body import Body
from weft.controlplane.api.context import ApiContext, Context
from weft.controlplane.cards import card_of, ways_in
from weft.controlplane.offers import OffersByType
from weft.controlplane.translate.replies import DESTINATION_HEADER
from weft.errors import InvalidRequest, NotFound, Unavailable
from weft.model.agent import Instance
from weft.model.agent_card import CARD_BASE_HEADER, CARD_OF_HEADER, MESH_CARD_PATH
from weft.model.card_catalogue import CardQuery, ListedCard, Offering, Visible, listed_cards
from weft.model.decision import access_policies, decide
from weft.model.mesh_card import mesh_base, mesh_card
from weft.model.names import MAX_NAME_LENGTH
from weft.model.offer import JsonObject
from weft.model.operator import Scope
from weft.model.spiffe import DEFAULT_TRUST_DOMAIN, Role

router = APIRouter(
    tags=["cards"], dependencies=[Depends(requires(Scope.VIEWER, peers=[Role.AGENT, Role.OPERATOR]))]
)

MAX_PAGE: Final = 100
"""Cards in one answer."""

MAX_CONDITIONS: Final = 32
"""Of each kind."""

CACHE_SECONDS: Final = 30
"""For how long clients may take a card to be what it was."""

_AUTHORITY: Final = re.compile(r"(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")

_Condition = Annotated[str, Query(max_length=256)]
_Conditions = Annotated[list[_Condition], Query(max_length=MAX_CONDITIONS)]


class CardOut(Body):
    """An agent with a card."""

    type: str
    card: dict[str, Any]
    """As A2A has it; its URLs lead to the agent through a sidecar."""
    instances: int
    """How many instances offer it."""
    healthy: int
    """How many of them get calls."""
    notes: list[str]
    """What could not be read of what they offer, or is of no use, and why."""


class CardPage(Body):
    """Some of the cards that match, by the agents' types."""

    items: list[CardOut]
    next: str | None
    """Goes into `after` to get the rest; null where there is none."""
    unread: dict[str, list[str]]
    """Types without a card, and why: what could not be read. For operators only, the first 100."""


@router.get("/v1/cards")
async def list_cards(
    context: Context,
    caller: CurrentCaller,
    *,
    q: Annotated[str, Query(max_length=1024)] = "",
    skill: _Conditions = [],  # noqa: B006 - FastAPI copies it
    tag: _Conditions = [],  # noqa: B006
    type_: Annotated[list[_Condition], Query(alias="type", max_length=MAX_CONDITIONS)] = [],  # noqa: B006
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    after: Annotated[str, Query(max_length=MAX_NAME_LENGTH)] = "",
) -> CardPage:
    """The catalogue: agents with a card that whoever asks may speak to.

    `q` are words that must all be found in names, descriptions, tags or examples; `skill` (an id or name) and
    `tag` may be given repeatedly: a card must have them all; of `type` it must have one.
    """
    query = CardQuery(q, skill, tag, type_)
    found = listed_cards(_offers(context), _visible(context, caller), query)
    page = list(islice((each for each in found if each.type > after), limit + 1))
    return CardPage(
        items=[_card_out(each) for each in page[:limit]],
        next=page[limit - 1].type if len(page) > limit else None,
        unread={} if isinstance(caller, Peer) else _unread(_offers(context)),
    )


@router.get("/v1/cards/{type_}")
async def get_card(
    context: Context, caller: CurrentCaller, type_: Annotated[str, Path(max_length=MAX_NAME_LENGTH)]
) -> CardOut:
    """The card of one agent type."""
    found = listed_cards(_offers(context), _visible(context, caller), CardQuery(types=(type_,)))
    for each in found:
        return _card_out(each)
    raise _no_card(f"of type {type_!r}")


@router.get(MESH_CARD_PATH, include_in_schema=False)
async def asked_for(
    request: Request,
    context: Context,
    caller: CurrentCaller,
    of: Annotated[str, Header(alias=CARD_OF_HEADER, max_length=256)],
    base: Annotated[str, Header(alias=CARD_BASE_HEADER, max_length=300)] = "",
    destination: Annotated[str, Header(alias=DESTINATION_HEADER, max_length=300)] = "",
) -> JSONResponse:
    """The card of the agent that a request was sent to, which its sender's Envoy passed on to here."""
    kind, _, name = of.partition("/")
    offerings = list(_addressed(_offers(context), kind, name, destination))
    card = card_of(offerings, _visible(context, caller))
    if card is None:
        raise _no_card(f"at {destination or name!r}")
    url = f"{_checked(base)}/v1/agents/{name}" if base else f"http://{_authority(request)}"
    return JSONResponse(mesh_card(card, url), headers={"cache-control": f"private, max-age={CACHE_SECONDS}"})


def _addressed(offers: OffersByType, kind: str, name: str, destination: str) -> Iterable[Offering]:
    """What those offer to whom the request could have gone."""
    match kind:
        case "type":
            return offers.get(name, ())
        case "instance":
            wanted = destination.partition(".")[0]
            return (each for each in offers.get(name, ()) if each[0].id == wanted)
        case "capability":
            every = (each for agent_type in sorted(offers) for each in offers[agent_type])
            return (each for each in every if name in each[0].capabilities)
        case _:
            raise InvalidRequest(f"{CARD_OF_HEADER} names no agent: {kind[:20]!r}")


def _authority(request: Request) -> str:
    """The host that the client addressed."""
    host = request.headers.get("host", "")
    if _AUTHORITY.fullmatch(host) is None:
        raise InvalidRequest("the host that the card was asked of is none")
    return host


def _checked(base: str) -> str:
    scheme, _, authority = base.partition("://")
    if scheme not in {"http", "https"} or _AUTHORITY.fullmatch(authority) is None:
        raise InvalidRequest(f"{CARD_BASE_HEADER} is no address")
    return base


def _offers(context: ApiContext) -> OffersByType:
    if context.offers is None:
        raise Unavailable("this control plane was started without a view of what agents offer")
    return context.offers.by_type


def _visible(context: ApiContext, caller: Caller) -> Visible:
    """What the caller may see: operators all, agents what they may speak to."""
    if not isinstance(caller, Peer):
        return lambda _instance, _card: True
    policies = access_policies(context.declared.resources.values())
    membership = context.membership
    labels = membership.identities.labels.get(str(caller.id), {}) if membership is not None else {}
    domain = membership.authority.trust_domain if membership is not None else DEFAULT_TRUST_DOMAIN
    known: dict[tuple[str, str, Collection[str], int], bool] = {}

    def visible(instance: Instance, card: JsonObject) -> bool:
        # The instances of a type are alike, as a rule.
        kind = (instance.type, instance.version, instance.capabilities, id(card))
        if kind not in known:
            known[kind] = any(
                decide(policies, caller.id, each, trust_domain=domain, labels=labels).allowed
                for each in ways_in(instance, card)
            )
        return known[kind]

    return visible


def _unread(offers: OffersByType) -> dict[str, list[str]]:
    found = (
        (agent_type, sorted({note for _, offer in offerings for note in offer.notes}))
        for agent_type, offerings in sorted(offers.items())
        if all(offer.card is None and offer.mcp is None for _, offer in offerings)
    )
    return dict(islice(((agent_type, notes) for agent_type, notes in found if notes), MAX_PAGE))


def _no_card(whom: str) -> NotFound:
    return NotFound(
        f"no agent {whom} has a card that you may see: 'weft cards' lists those there are, and whether an "
        "agent could not be read"
    )


def _card_out(listed: ListedCard) -> CardOut:
    return CardOut(
        type=listed.type,
        card=mesh_card(listed.card, mesh_base(listed.type)),
        instances=listed.instances,
        healthy=listed.healthy,
        notes=list(listed.notes),
    )
