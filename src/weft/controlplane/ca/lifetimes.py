"""How long what is valid."""

from __future__ import annotations

from dataclasses import dataclass

from weft.errors import InvalidRequest

DAY = 24 * 3600.0

RENEWAL = 2 / 3
"""The part of an authority's life after which the next one takes over."""

CLOCK_SKEW = 60.0
"""Seconds by which clocks may differ: certificates are valid from that much before they are made."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long certificates are valid, in seconds. The same for all replicas of the control plane.

    Making one raises InvalidRequest where a certificate could not live for as long as its issuer signs.
    """

    root: float = 3650 * DAY
    intermediate: float = 90 * DAY
    svid: float = 3600.0
    """Of an SVID, unless a shorter one is asked for."""
    propagation: float = 120.0
    """Within this time every member of the mesh has heard of a new root, so that it can begin to sign."""

    def __post_init__(self) -> None:
        # An authority makes way after two thirds of its life, so a third is left to what it signed last.
        if not (self.propagation > 0 and 1 <= self.svid <= self.intermediate / 3 <= self.root / 9):
            raise InvalidRequest(
                f"lifetimes of {self.svid:g} s (SVID), {self.intermediate:g} s (intermediate) and "
                f"{self.root:g} s (root) do not go together: each is at most a third of the next, and an "
                "SVID's at least 1 s"
            )
