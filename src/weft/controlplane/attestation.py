"""How a process proves what it is before it has an identity: attestors behind one interface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from weft.model.spiffe import SpiffeId

MAX_EVIDENCE_BYTES = 16 * 1024
"""Longer evidence is refused unread."""


@dataclass(frozen=True, slots=True)
class Attested:
    """What is known for certain of the process that showed its evidence."""

    id: SpiffeId
    labels: Mapping[str, str] = field(default_factory=dict)
    """What AccessPolicies may name it by: nothing that it says of itself."""
    by: str = ""
    """Who vouches for it, for the audit: the operator who made its join token, say."""


class Attestor(Protocol):
    """Decides from evidence who a process is."""

    async def attest(self, evidence: str, *, instance: str) -> Attested:
        """Who showed `evidence`; `instance` is the id it asks for, which must be one it may have.

        Raises Unauthenticated if the evidence proves nothing, Denied if it proves somebody else, Unavailable.
        """
        ...
