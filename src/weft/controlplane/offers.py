"""What running agents offer, as this replica sees it now."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from weft.controlplane.changes import any_of
from weft.model.agent import Instance
from weft.model.card_catalogue import Offering
from weft.model.offer import Offer
from weft.registry.offers import Offers
from weft.registry.view import View
from weft.store.bucket import Entry
from weft.store.followed import Followed

OffersByType = Mapping[str, list[Offering]]


class OfferView:
    """The offers of the instances that are registered. Open it with `follow`.

    An offer without an instance is of one that has died, and is none; one that a sidecar wrote cannot be of
    another instance, since NATS lets it write under its own key only.
    """

    def __init__(self, followed: Followed[Offer], instances: View) -> None:
        self._followed = followed
        self._instances = instances
        self._joined: OffersByType = {}
        self._joined_at = (-1, -1)

    @classmethod
    @asynccontextmanager
    async def follow(cls, offers: Offers, instances: View) -> AsyncIterator[OfferView]:
        """Within the context, a view that is complete and kept up to date."""
        async with Followed[Offer].follow(offers.bucket, name="offers", value_of=_value) as followed:
            yield cls(followed, instances)

    @property
    def by_type(self) -> OffersByType:
        """What instances of each type offer, by id, whatever their status. A change makes a new mapping.

        A type is there once one of its instances has an offer, be it an empty one: then it is known what it
        offers.
        """
        at = (self._followed.generation, self._instances.generation)
        if at != self._joined_at:
            self._joined, self._joined_at = joined(self._instances.instances, self._followed.values), at
        return self._joined

    @property
    def generation(self) -> int:
        """Grows with every change of an offer or of an instance."""
        return self._followed.generation + self._instances.generation

    async def changed_since(self, generation: int) -> int:
        """Wait until `generation` is no longer the current one; return the current one."""
        while self.generation == generation:
            await any_of(
                self._followed.changed_since(self._followed.generation),
                self._instances.changed_since(self._instances.generation),
            )
        return self.generation


def joined(instances: Mapping[str, Instance], offers: Mapping[str, Offer]) -> OffersByType:
    """The offers of those that are there, by type and id; both mappings go by the keys of instances."""
    found: dict[str, list[Offering]] = {}
    for key, offer in offers.items():
        instance = instances.get(key)
        if instance is not None:
            found.setdefault(instance.type, []).append((instance, offer))
    for offerings in found.values():
        offerings.sort(key=lambda each: each[0].id)
    return found


def _value(entry: Entry[Offer]) -> Offer:
    return entry.value
