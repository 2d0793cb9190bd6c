"""Who may see the card of an A2A agent, and who answers those that ask for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from weft.controlplane.offers import OffersByType
from weft.controlplane.translate.destination import Destination, of_capability, of_type
from weft.model.access import Action
from weft.model.agent import Instance
from weft.model.agent_card import CARD_PATH, HTTP_JSON, JSON_RPC, interfaces
from weft.model.card_catalogue import Offering, Visible, healthy_first
from weft.model.decision import AccessRequest, AccessTarget, RpcCall, TargetKind
from weft.model.offer import JsonObject

SEND_MESSAGE: Final = "SendMessage"


def card_of(offerings: Iterable[Offering], visible: Visible) -> JsonObject | None:
    """The card for those who ask for one of these: of a healthy instance if there is one."""
    for instance, offer in healthy_first(offerings):
        if offer.card is not None and visible(instance, offer.card):
            return offer.card
    return None


def ways_in(instance: Instance, card: JsonObject) -> Iterator[AccessRequest]:
    """What somebody would do who speaks to the agent of `card`: who may do one of these may see the card."""
    target = AccessTarget(TargetKind.AGENT, instance.type, instance.version, instance.capabilities)
    yield AccessRequest(Action.CALL, target, "GET", CARD_PATH)
    for each in interfaces(card):
        if each.path is None:
            continue
        if each.binding == JSON_RPC:
            yield AccessRequest(Action.CALL, target, "POST", each.path, RpcCall(SEND_MESSAGE))
        elif each.binding == HTTP_JSON:
            path = each.path.rstrip("/") + "/message:send"
            yield AccessRequest(Action.CALL, target, "POST", path, RpcCall())


def destinations_with_card(offers: OffersByType) -> tuple[frozenset[Destination], frozenset[Destination]]:
    """Which types and capabilities have an agent with a card, and which are known to have none."""
    types: set[str] = set()
    capabilities: set[str] = set()
    known: set[str] = set()
    for agent_type, offerings in offers.items():
        for instance, offer in offerings:
            known |= instance.capabilities
            if offer.card is not None:
                types.add(agent_type)
                capabilities |= instance.capabilities
    return _destinations(types, capabilities), _destinations(offers.keys() - types, known - capabilities)


def _destinations(types: Iterable[str], capabilities: Iterable[str]) -> frozenset[Destination]:
    return frozenset([*map(of_type, types), *map(of_capability, capabilities)])
