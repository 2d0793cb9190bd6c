"""All that the control plane has to do with identities, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from weft.controlplane.ca.authority import Authority
from weft.controlplane.enrolment import Enrolment
from weft.controlplane.identities import Identities
from weft.controlplane.join_tokens import JoinTokens


@dataclass(frozen=True, slots=True)
class Membership:
    """Who vouches for identities, who has one, and how others get one."""

    authority: Authority
    identities: Identities
    join_tokens: JoinTokens
    enrolment: Enrolment
    nats_roots: bytes
    """PEM of the authorities of NATS's own certificate; empty if NATS is without TLS."""
