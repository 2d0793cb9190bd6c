"""Leases: what a sidecar may send to models without asking the scheduler.

A grant is used up and does not fill again: each renewal is a new grant, which replaces what was left of the
one before. So what a sidecar can send while nobody reaches it any more is bounded by its last grant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LEASE_LIFETIME: Final = 3.0
"""Seconds after which a lease that was not renewed is no longer given to a sidecar that asks for it."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What may be sent to one pool."""

    pool: str
    requests: int
    tokens: int
    """Of prompts and answers together, as Envoy estimates them."""


@dataclass(frozen=True, slots=True)
class Lease:
    """All that one sidecar may send without asking."""

    holder: str
    """The `key` of the sidecar's Node."""
    number: int
    """Grows with every grant: what has another number is another grant, though it be as large."""
    granted_at: float
    """Seconds since 1970."""
    grants: tuple[Grant, ...] = ()

    def is_fresh(self, now: float) -> bool:
        """Whether it may still be given to its holder."""
        return 0 <= now - self.granted_at < LEASE_LIFETIME
