"""The catalogue as it stands now, made anew only where something in it changed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from weft.controlplane.changes import any_of
from weft.controlplane.mcp.catalogue import declared_tools, merged
from weft.controlplane.mcp.server_lists import NO_RULES, ServerLists, server_lists
from weft.controlplane.offers import OfferView
from weft.model.agent import Instance, Status
from weft.model.decision import AccessTarget, TargetKind
from weft.model.mcp_catalogue import NO_TOOLS, McpCatalogue
from weft.model.offer import Offer
from weft.model.tool import ToolSpec
from weft.resources.view import ResourceView

logger = logging.getLogger(__name__)

Offerings = Sequence[tuple[Instance, Offer]]


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read of a server, and from what."""

    offerings: Offerings
    rules: ToolSpec
    lists: ServerLists

    def is_of(self, offerings: Offerings, rules: ToolSpec) -> bool:
        """Whether reading these would give the same."""
        return (
            len(offerings) == len(self.offerings)
            and all(map(_is_alike, offerings, self.offerings))
            and rules == self.rules
        )


class CatalogueView:
    """The catalogue of what running agents offer, with the Tool resources of now."""

    def __init__(self, offers: OfferView, declared: ResourceView) -> None:
        self._offers = offers
        self._declared = declared
        self._made_at = (-1, -1)
        self._current = NO_TOOLS
        self._targets: Mapping[str, frozenset[AccessTarget]] = {}
        self._read: dict[str, _Read] = {}
        self._made_of: Mapping[str, ServerLists] = {}

    @property
    def current(self) -> McpCatalogue:
        """The catalogue; the same object as long as nothing in it changes."""
        self._make()
        return self._current

    @property
    def targets(self) -> Mapping[str, frozenset[AccessTarget]]:
        """What the instances of each server's type are to AccessPolicies: those that get calls, or all.

        The same object as long as nothing in it changes.
        """
        self._make()
        return self._targets

    @property
    def generation(self) -> int:
        """Grows with every change that may be one of the catalogue."""
        return self._offers.generation + self._declared.generation

    async def changed_since(self, generation: int) -> int:
        """Wait until `generation` is no longer the current one; return the current one."""
        while self.generation == generation:
            await any_of(
                self._offers.changed_since(self._offers.generation),
                self._declared.changed_since(self._declared.generation),
            )
        return self.generation

    def _make(self) -> None:
        at = (self._offers.generation, self._declared.generation)
        if at == self._made_at:
            return
        by_type = self._offers.by_type
        rules = {each.server: each for each in reversed(declared_tools(self._declared.resources.values()))}
        self._read = {
            name: self._lists(name, offerings, rules.get(name, NO_RULES))
            for name, offerings in by_type.items()
        }
        lists = {name: each.lists for name, each in self._read.items()}
        # Instances come and go, and are well or not, far more often than lists change.
        if lists.keys() != self._made_of.keys() or any(
            lists[name] is not self._made_of[name] for name in lists
        ):
            self._current, self._made_of = merged(lists.values()), lists
        targets = {each.type: _targets(by_type[each.type]) for each in self._current.servers}
        if targets != self._targets:
            self._targets = targets
        self._made_at = at

    def _lists(self, type_: str, offerings: Offerings, rules: ToolSpec) -> _Read:
        known = self._read.get(type_)
        if known is not None and known.is_of(offerings, rules):
            return known
        lists = _read(type_, offerings, rules)
        if known is not None and known.lists == lists:
            lists = known.lists
        return _Read(tuple(offerings), rules, lists)


def _read(type_: str, offerings: Offerings, rules: ToolSpec) -> ServerLists:
    try:
        return server_lists(type_, offerings, rules)
    except Exception:  # whatever a server found to break us with: it is not to cost the others their tools
        logger.exception("what servers of type %s list cannot be read", type_)
        return ServerLists(type_, notes=("what it lists broke the control plane, whose log says how",))


def _is_alike(one: tuple[Instance, Offer], other: tuple[Instance, Offer]) -> bool:
    """Whether two instances count for as much, and offer what was read once."""
    (instance, offer), (before, offered) = one, other
    return (
        offer is offered
        and instance.id == before.id
        and instance.status == before.status
        and instance.started_at == before.started_at
    )


def _targets(offerings: Offerings) -> frozenset[AccessTarget]:
    serving = [it for it, offer in offerings if offer.mcp is not None]
    healthy = [each for each in serving if each.status is Status.HEALTHY]
    return frozenset(
        AccessTarget(TargetKind.AGENT, each.type, each.version, each.capabilities)
        for each in healthy or serving
    )
