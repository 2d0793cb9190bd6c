"""The lists of `tools.mesh` for whoever asks, and word of their changes to whom they changed for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from weft.controlplane.changes import LONGEST_REST, Followed, any_of
from weft.controlplane.identities import Identities
from weft.controlplane.mcp.view import CatalogueView
from weft.controlplane.mcp.visible import Asking, visible
from weft.model.decision import AccessPolicies, access_policies
from weft.model.mcp_catalogue import McpCatalogue
from weft.model.spiffe import DEFAULT_TRUST_DOMAIN, SpiffeId
from weft.resources.view import ResourceView

MAX_KNOWN: Final = 1024
"""Callers for whom it is kept what they see."""


class ListKind(StrEnum):
    """The lists whose changes are told."""

    TOOLS = "tools"
    PROMPTS = "prompts"
    RESOURCES = "resources"
    """Templates too."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What a caller saw, and when."""

    made_at: tuple[object, ...]
    lists: McpCatalogue


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
        self._policies_at = -1
        self._policies: AccessPolicies = {}
        self._labels_at = -1
        self._labels: Mapping[str, Mapping[str, str]] = {}
        self._known: dict[SpiffeId, _Known] = {}

    @property
    def all(self) -> McpCatalogue:
        """Everything, with notes: for operators."""
        return self._catalogue.current

    def of(self, caller: SpiffeId | None) -> McpCatalogue:
        """What `caller` sees; None: an operator, who sees everything. The same object until that changes."""
        if caller is None:
            return self.all
        known = self._known.pop(caller, None)
        made_at = self._made_at(caller)
        if known is None or known.made_at != made_at:
            lists = visible(self._catalogue.current, self._catalogue.targets, self._asking(caller))
            known = _Known(made_at, known.lists if known is not None and known.lists == lists else lists)
        while len(self._known) >= MAX_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[caller] = known
        return known.lists

    async def changes(
        self, caller: SpiffeId | None, before: McpCatalogue
    ) -> AsyncGenerator[frozenset[ListKind]]:
        """Which lists changed for `caller`, who saw `before`, each time any did."""
        while True:
            seen = [each.generation for each in self._followed]
            after = self.of(caller)
            changed = _changed(before, after)
            before = after
            if changed:
                yield changed
            changes = [each.changed_since(it) for each, it in zip(self._followed, seen, strict=True)]
            await any_of(*changes)
            # A server that starts has one instance after the other come up.
            await asyncio.sleep(LONGEST_REST)

    @property
    def _followed(self) -> list[Followed]:
        return [self._catalogue, *(self._identities.followed if self._identities is not None else ())]

    def _made_at(self, caller: SpiffeId) -> tuple[object, ...]:
        return (self._catalogue.generation, self._labels_of(caller), self._is_revoked(caller))

    def _asking(self, caller: SpiffeId) -> Asking:
        if self._policies_at != self._declared.generation:
            self._policies_at = self._declared.generation
            self._policies = access_policies(self._declared.resources.values())
        return Asking(
            caller, self._policies, self._labels_of(caller), self._trust_domain, self._is_revoked(caller)
        )

    def _labels_of(self, caller: SpiffeId) -> Mapping[str, str]:
        if self._identities is None:
            return {}
        given, _ = self._identities.generations
        if given != self._labels_at:
            self._labels, self._labels_at = self._identities.labels, given
        return self._labels.get(str(caller), {})

    def _is_revoked(self, caller: SpiffeId) -> bool:
        return self._identities is not None and self._identities.is_revoked(str(caller))


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
