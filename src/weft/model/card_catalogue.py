"""The catalogue of A2A agents: which have a card, and which of those are found by what."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from weft.model.agent import Instance, Status
from weft.model.agent_card import skills
from weft.model.offer import JsonObject, Offer

Offering = tuple[Instance, Offer]
"""A running agent, and what it offers."""

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
    offers: Mapping[str, Sequence[Offering]],
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


def healthy_first(offerings: Iterable[Offering]) -> list[Offering]:
    """Those that get calls before those that do not, else in their order."""
    return sorted(offerings, key=lambda each: each[0].status is not Status.HEALTHY)


def _listed(agent_type: str, seen: Sequence[Offering]) -> ListedCard:
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
