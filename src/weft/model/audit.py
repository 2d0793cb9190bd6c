"""What is written down about who did, or was refused, what: one record of the audit topic."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Outcome(StrEnum):
    """What became of it."""

    DONE = "done"
    DENIED = "denied"
    WOULD_BE_DENIED = "would-be-denied"
    """A policy in dry-run mode would have denied it."""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One change, or one denial. Never holds a secret, a payload, a token or a key."""

    time: float
    """Seconds since 1970."""
    who: str
    """A SPIFFE ID, `operator/<name>`, or `unauthenticated`, with an address where there is one."""
    action: str
    """What was done or asked for, as verb and noun: `apply resource`, `issue svid`, `call`, `connect`."""
    target: str
    """To which thing: `accesspolicy/only-editors`, `summarizer POST /rpc`."""
    outcome: Outcome
    policy: str = ""
    """The AccessPolicy that decided; empty where it was another rule, which `reason` then tells."""
    reason: str = ""
    observer: str = ""
    """Who reports it: the replica or the sidecar."""
    details: dict[str, str] = field(default_factory=dict)
