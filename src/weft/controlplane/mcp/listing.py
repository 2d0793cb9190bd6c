"""The lists of `tools.mesh` for whoever asks, and word of their changes to whom they changed for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from weft.aio.generation import Generation
from weft.controlplane.changes import LONGEST_REST, Followed, any_of
from weft.controlplane.identities import Identities
from weft.controlplane.mcp.view import CatalogueView
from weft.controlplane.mcp.visible import Asking, Targets, visible
from weft.model.decision import AccessPolicies, access_policies
from weft.model.mcp_catalogue import NO_TOOLS, McpCatalogue
from weft.model.spiffe import DEFAULT_TRUST_DOMAIN, SpiffeId
from weft.resources.view import ResourceView

MAX_KNOWN: Final = 1024
"""Kinds of callers, who differ in what counts for policies, for whom it is kept what they see."""


class ListKind(StrEnum):
    """The lists whose changes are told."""

    TOOLS = "tools"
    PROMPTS = "prompts"
    RESOURCES = "resources"
    """Templates too."""


@dataclass(frozen=True, slots=True)
class _Policies:
    """The AccessPolicies of one moment."""

    declared_at: int = -1
    by_name: AccessPolicies = field(default_factory=dict)
    by_instance: bool = False
    """Whether any of them tells instances of one type apart."""
    by_label: bool = False
    """Whether any of them goes by what was attested of callers."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What callers see, as long as nothing changes that it depends on."""

    catalogue: McpCatalogue = NO_TOOLS
    targets: Targets = field(default_factory=dict)
    policies: AccessPolicies = field(default_factory=dict)
    number: int = 0
    """Grows with every change."""
    seen: dict[Hashable, McpCatalogue] = field(default_factory=dict)
    """By what tells callers apart."""


class Listing:
    """What each caller sees of the catalogue."""

    def __init__(
        self,
        catalogue: CatalogueView,
        declared: ResourceView,
        identities: Identities | None = None,
        trust_domain: str = DEFAULT_TRUST_DOMAIN,
    ) -> None:
        """`identities`: what the authority attested, and took back; None: nothing."""
        self._catalogue = catalogue
        self._declared = declared
        self._identities = identities
        self._trust_domain = trust_domain
        self._policies = _Policies()
        self._labels_at = -1
        self._labels: Mapping[str, Mapping[str, str]] = {}
        self._known = _Known()
        self._generation = Generation()

    @property
    def all(self) -> McpCatalogue:
        """Everything, with notes: for operators."""
        return self._catalogue.current

    def of(self, caller: SpiffeId | None) -> McpCatalogue:
        """What `caller` sees; None: an operator, who sees everything."""
        if caller is None:
            return self.all
        policies, known = self._current_policies(), self._current()
        asking = Asking(
            caller, policies.by_name, self._labels_of(caller), self._trust_domain, self._is_revoked(caller)
        )
        alike = _what_counts(asking, by_instance=policies.by_instance)
        if alike not in known.seen:
            while len(known.seen) >= MAX_KNOWN:
                del known.seen[next(iter(known.seen))]
            known.seen[alike] = visible(known.catalogue, known.targets, asking)
        return known.seen[alike]

    async def run(self) -> None:
        """Have those hear of changes who wait for them, until cancelled."""
        followed: list[Followed] = [self._catalogue, self._declared]
        if self._identities is not None:
            followed += self._identities.followed
        before: tuple[object, ...] = ()
        while True:
            seen = [each.generation for each in followed]
            now = self._state()
            if now != before:
                self._generation.advance()
            before = now
            changes = [each.changed_since(it) for each, it in zip(followed, seen, strict=True)]
            await any_of(*changes)
            # A server that starts has one instance after the other come up.
            await asyncio.sleep(LONGEST_REST)

    async def changes(
        self, caller: SpiffeId | None, before: McpCatalogue
    ) -> AsyncGenerator[frozenset[ListKind]]:
        """Which lists changed for `caller`, who saw `before`, each time any did; while `run` runs."""
        while True:
            seen = self._generation.number
            after = self.of(caller)
            changed = _changed(before, after)
            before = after
            if changed:
                yield changed
            await self._generation.later_than(seen)

    def _state(self) -> tuple[object, ...]:
        """All that lists depend on. Identities are renewed, come and go, far more often than it changes."""
        policies, known = self._current_policies(), self._current()
        labels = dict(self._identities.labels) if policies.by_label and self._identities is not None else {}
        revoked = self._identities.revoked if self._identities is not None else []
        return (known.number, labels, revoked)

    def _current_policies(self) -> _Policies:
        declared_at = self._declared.generation
        if declared_at != self._policies.declared_at:
            by_name = access_policies(self._declared.resources.values())
            if by_name == self._policies.by_name:
                by_name = self._policies.by_name
            principals = [each for spec in by_name.values() for each in spec.callers]
            self._policies = _Policies(
                declared_at,
                by_name,
                by_instance=any(each.instance is not None for each in principals),
                by_label=any(each.labels for each in principals),
            )
        return self._policies

    def _current(self) -> _Known:
        known = self._known
        now = (self._catalogue.current, self._catalogue.targets, self._policies.by_name)
        before = (known.catalogue, known.targets, known.policies)
        if any(one is not other for one, other in zip(now, before, strict=True)):
            self._known = _Known(*now, number=known.number + 1)
        return self._known

    def _labels_of(self, caller: SpiffeId) -> Mapping[str, str]:
        if self._identities is None or not self._policies.by_label:
            return {}
        given, _ = self._identities.generations
        if given != self._labels_at:
            self._labels, self._labels_at = self._identities.labels, given
        return self._labels.get(str(caller), {})

    def _is_revoked(self, caller: SpiffeId) -> bool:
        return self._identities is not None and self._identities.is_revoked(str(caller))


def _what_counts(asking: Asking, *, by_instance: bool) -> Hashable:
    """What tells `asking` from others, as far as policies go."""
    who = asking.caller
    segments = who.segments if by_instance else who.segments[:-1]
    return (who.trust_domain, segments, frozenset(asking.labels.items()), asking.revoked)


def _changed(before: McpCatalogue, after: McpCatalogue) -> frozenset[ListKind]:
    if before is after:
        return frozenset()
    return frozenset(kind for kind, lists in _LISTS.items() if lists(before) != lists(after))


_LISTS: Final[Mapping[ListKind, Callable[[McpCatalogue], object]]] = {
    ListKind.TOOLS: lambda it: [each.definition for each in it.tools],
    ListKind.PROMPTS: lambda it: [each.definition for each in it.prompts],
    ListKind.RESOURCES: lambda it: (
        [each.definition for each in it.resources],
        [each.definition for each in it.templates],
    ),
}
