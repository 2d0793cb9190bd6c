"""The cards of A2A agents as others see them, with URLs that lead into the mesh; and who finds which."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from weft.controlplane.offers import Offering, OffersByType, healthy_first
from weft.controlplane.translate.destination import Destination, of_capability, of_type
from weft.model.access import Action
from weft.model.agent import Instance, Status
from weft.model.agent_card import CARD_PATH, Interface, interfaces, skills
from weft.model.decision import AccessRequest, AccessTarget, RpcCall, TargetKind
from weft.model.names import MESH_DOMAIN
from weft.model.offer import JsonObject

SEND_MESSAGE: Final = "SendMessage"

_JSON_RPC: Final = "JSONRPC"
_HTTP_JSON: Final = "HTTP+JSON"

_LEFT_OUT: Final = frozenset(
    {"signatures", "supportsAuthenticatedExtendedCard", "url", "preferredTransport", "additionalInterfaces"}
)

Visible = Callable[[Instance, JsonObject], bool]
"""Whether somebody may see an instance's card."""


@dataclass(frozen=True, slots=True)
class ListedCard:
    """An agent type with a card."""

    type: str
    card: JsonObject
    """As its agent serves it."""
    instances: int
    """How many instances offer a card."""
    healthy: int
    """How many of them get calls."""
    capabilities: frozenset[str]
    notes: tuple[str, ...]
    """What could not be read of it or is of no use, for people."""


@dataclass(frozen=True, slots=True)
class CardQuery:
    """Which cards to find: all conditions given must hold. Small and capital letters are the same."""

    text: str = ""
    """Words, each of which is somewhere in the names, descriptions, tags or examples."""
    skills: Collection[str] = ()
    """Ids or names of skills, all of which it must have."""
    tags: Collection[str] = ()
    """Tags, all of which its skills must have."""
    types: Collection[str] = field(default_factory=tuple)
    """Agent types, of which it must be one; empty: any."""

    def matches(self, listed: ListedCard) -> bool:
        """Whether `listed` is one of those that are asked for."""
        if self.types and listed.type not in self.types:
            return False
        known = skills(listed.card)
        names = {_folded(str(each.get(key, ""))) for each in known for key in ("id", "name")}
        tags = {_folded(tag) for each in known for tag in each.get("tags") or ()}
        if not {_folded(each) for each in self.skills} <= names | listed.capabilities:
            return False
        if not {_folded(each) for each in self.tags} <= tags:
            return False
        words = _folded(self.text).split()
        if not words:
            return True
        text = _folded("\n".join([listed.type, *_texts(listed.card)]))
        return all(word in text for word in words)


def listed_cards(
    offers: OffersByType,
    visible: Visible,
    query: CardQuery = CardQuery(),
) -> Iterator[ListedCard]:
    """The types that match and have a card that somebody may see, in the order of their names."""
    for agent_type in sorted(set(query.types) & offers.keys() if query.types else offers):
        seen = [
            each
            for each in offers[agent_type]
            if (card := each[1].card) is not None and visible(each[0], card)
        ]
        if seen and query.matches(listed := _listed(agent_type, seen)):
            yield listed


def card_of(offerings: Iterable[Offering], visible: Visible) -> JsonObject | None:
    """The card for those who ask for one of these: of a healthy instance if there is one."""
    for instance, offer in healthy_first(offerings):
        if offer.card is not None and visible(instance, offer.card):
            return offer.card
    return None


def mesh_card(card: JsonObject, base: str) -> dict[str, Any]:
    """`card` with URLs below `base`, so that whoever follows them stays in the mesh.

    Of its own URLs only the paths are kept. Without its signatures, which would be wrong now, and without the
    extended card, in which the agent would show its own URLs after all.
    """
    result = {key: value for key, value in card.items() if key not in _LEFT_OUT}
    if card.get("supportedInterfaces") is not None:
        result["supportedInterfaces"] = _supported(card, base)
    result |= _as_in_0_3(card, base)
    if isinstance(card.get("capabilities"), Mapping):
        result["capabilities"] = {
            key: value for key, value in card["capabilities"].items() if key != "extendedAgentCard"
        }
    return result


def mesh_base(agent_type: str) -> str:
    """Where agents reach a type."""
    return f"http://{agent_type}.{MESH_DOMAIN}"


def ways_in(instance: Instance, card: JsonObject) -> Iterator[AccessRequest]:
    """What somebody would do who speaks to the agent of `card`: who may do one of these may see the card."""
    target = AccessTarget(TargetKind.AGENT, instance.type, instance.version, instance.capabilities)
    yield AccessRequest(Action.CALL, target, "GET", CARD_PATH)
    for each in interfaces(card):
        if each.path is None:
            continue
        if each.binding == _JSON_RPC:
            yield AccessRequest(Action.CALL, target, "POST", each.path, RpcCall(SEND_MESSAGE))
        elif each.binding == _HTTP_JSON:
            yield AccessRequest(Action.CALL, target, "POST", _url("", each.path) + "/message:send", RpcCall())


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


def _listed(agent_type: str, seen: list[Offering]) -> ListedCard:
    instance, offer = healthy_first(seen)[0]
    assert offer.card is not None, "only those with a card are seen"  # noqa: S101
    return ListedCard(
        agent_type,
        offer.card,
        instances=len(seen),
        healthy=sum(each.status is Status.HEALTHY for each, _ in seen),
        capabilities=instance.capabilities,
        notes=offer.notes,
    )


def _supported(card: JsonObject, base: str) -> list[dict[str, Any]]:
    result = []
    for each in card["supportedInterfaces"]:
        way = Interface(str(each.get("url", "")), str(each.get("protocolBinding", "")))
        if way.path is not None:
            result.append({**each, "url": _url(base, way.path)})
    return result


def _as_in_0_3(card: JsonObject, base: str) -> dict[str, Any]:
    """The fields in which A2A 0.3 has the interfaces. What was the preferred one may be of no use here."""
    result: dict[str, Any] = {}
    additional = [
        {**each, "url": _url(base, way.path)}
        for each in card.get("additionalInterfaces") or ()
        if (way := Interface(str(each.get("url", "")), str(each.get("transport", "")))).path is not None
    ]
    if additional:
        result["additionalInterfaces"] = additional
    preferred = Interface(str(card.get("url", "")), str(card.get("preferredTransport", _JSON_RPC)))
    if card.get("url") and preferred.path is not None:
        return {**result, "url": _url(base, preferred.path), "preferredTransport": preferred.binding}
    if additional:
        first = additional[0]
        return {**result, "url": first["url"], "preferredTransport": str(first.get("transport", _JSON_RPC))}
    return result


def _url(base: str, path: str) -> str:
    return base if path == "/" else f"{base}{path}"


def _texts(card: JsonObject) -> Iterator[str]:
    for name in ("name", "description"):
        yield str(card.get(name) or "")
    for skill in skills(card):
        for name in ("id", "name", "description"):
            yield str(skill.get(name) or "")
        for name in ("tags", "examples"):
            yield from skill.get(name) or ()


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
