"""Where each connected sidecar stands, and who wants to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from weft.model.node import Node


@dataclass(frozen=True, slots=True)
class Rejection:
    """A NACK: the sidecar refused something, and goes on with what it had."""

    names: tuple[str, ...]
    """The resources refused, all that still stand as they were refused; sorted."""
    reason: str
    """In Envoy's own words; the last one's, where several were refused."""
    at: float
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class TypeStatus:
    """Where a sidecar stands with one type of resource."""

    in_sync: bool
    """Whether it has accepted all it is to know now."""
    generation: int
    """The latest generation of the source it is known to have taken over; 0 if none."""
    nonce: str
    """Of the last response it accepted; empty if none."""
    rejection: Rejection | None = None
    """What it refuses at present."""


@dataclass(frozen=True, slots=True)
class SyncStatus:
    """Where one connected sidecar stands."""

    node: Node
    connected_since: float
    """Seconds since 1970."""
    types: Mapping[str, TypeStatus]
    """By type URL; those it subscribed to."""

    @property
    def in_sync(self) -> bool:
        """Whether it has accepted all it is to know now, of every type."""
        return all(each.in_sync for each in self.types.values())


class Observer(Protocol):
    """Who is told what happens to sidecars. Called in the event loop: return at once, and don't raise."""

    def connected(self, node: Node, peer: str) -> None:
        """`node` has opened a stream, from the IP address `peer` (empty: from none).

        It may have another one that is not known to be dead yet.
        """
        ...

    def synced(self, node: Node, generation: int) -> None:
        """`node` has accepted all that `generation` holds for it."""
        ...

    def rejected(self, node: Node, type_url: str, reason: str, names: tuple[str, ...]) -> None:
        """`node` refused the resources `names`, which for all we know is why it gave `reason`."""
        ...

    def disconnected(self, node: Node) -> None:
        """One stream of `node` has ended."""
        ...
