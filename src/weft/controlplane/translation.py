"""What is declared and running, translated into snapshots as it changes."""

from __future__ import annotations

import asyncio

from weft.controlplane.cards import destinations_with_card
from weft.controlplane.changes import LONGEST_REST, Followed, any_of
from weft.controlplane.mcp.view import CatalogueView
from weft.controlplane.offers import OfferView
from weft.controlplane.security import Security
from weft.controlplane.snapshots import Snapshots
from weft.registry.view import View
from weft.resources.view import ResourceView


class Translation:
    """Keeps snapshots up to date: they are once it is made, and while `run` does."""

    def __init__(
        self,
        snapshots: Snapshots,
        instances: View,
        declared: ResourceView,
        offers: OfferView,
        catalogue: CatalogueView,
        security: Security,
    ) -> None:
        self._snapshots = snapshots
        self._instances = instances
        self._declared = declared
        self._offers = offers
        self._catalogue = catalogue
        self._security = security
        self._followed: list[Followed] = [instances, declared, offers, *security.identities.followed]
        self._seen: list[int] = []
        self._update()

    @property
    def is_current(self) -> bool:
        """Whether the snapshots are of what is known now."""
        return self._seen == [each.generation for each in self._followed]

    async def run(self) -> None:
        """Take over what changes, for ever."""
        while True:
            changes = [
                each.changed_since(seen) for each, seen in zip(self._followed, self._seen, strict=True)
            ]
            await any_of(*changes)
            began = asyncio.get_running_loop().time()
            self._update()
            # A burst of changes must not keep the loop from everything else: half of the time is theirs.
            await asyncio.sleep(min(asyncio.get_running_loop().time() - began, LONGEST_REST))

    def _update(self) -> None:
        self._seen = [each.generation for each in self._followed]
        self._snapshots.update(
            self._instances.instances.values(),
            self._declared.resources.values(),
            labels_of=self._security.identities.labels,
            revoked=frozenset(each.spiffe_id for each in self._security.identities.revoked),
        )
        self._snapshots.update_cards(*destinations_with_card(self._offers.by_type))
        self._snapshots.update_tools(self._catalogue.current)
