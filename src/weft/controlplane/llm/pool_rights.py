"""Who may use which pool, as the scheduler sees it.

Envoy refuses what AccessPolicies deny before it asks. But whoever has a sidecar's certificate can ask, and
tell, without its Envoy: it must not take the room of a pool that it may not use, nor speak ill of its
providers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from weft.model.access import Action
from weft.model.decision import (
    AccessPolicies,
    AccessRequest,
    AccessTarget,
    TargetKind,
    access_policies,
    concerns,
    decide,
)
from weft.model.model_pool import ModelPoolSpec
from weft.model.spiffe import parse_spiffe_id
from weft.resources.view import ResourceView

MAX_KNOWN: Final = 50_000
"""Decisions that are kept."""

KEPT: Final = 5.0
"""Seconds for which a decision is kept: labels may change though nothing is declared anew."""

LabelsOf = Callable[[str], Mapping[str, str]]
"""The attested labels of an identity, by its SPIFFE ID."""


class PoolRights:
    """Decides by the policies that are declared."""

    def __init__(
        self,
        declared: ResourceView,
        labels_of: LabelsOf,
        trust_domain: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._declared = declared
        self._labels_of = labels_of
        self._trust_domain = trust_domain
        self._clock = clock
        self._seen = -1
        self._policies: AccessPolicies = {}
        self._known: dict[tuple[str, str], tuple[float, str | None]] = {}

    def denial(self, identity: str, pool: str) -> str | None:
        """Why `identity`, a SPIFFE ID, may not use `pool`; None: it may."""
        if self._seen != self._declared.generation:
            self._seen = self._declared.generation
            self._policies = self._about_pools()
            self._known.clear()
        if not self._policies:
            return None
        until, reason = self._known.get((identity, pool), (0.0, None))
        now = self._clock()
        if now >= until:
            reason = self._decided(identity, pool)
            while len(self._known) >= MAX_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[identity, pool] = (now + KEPT, reason)
        return reason

    def _decided(self, identity: str, pool: str) -> str | None:
        decision = decide(
            self._policies,
            parse_spiffe_id(identity),
            AccessRequest(Action.CALL, AccessTarget(TargetKind.POOL, pool)),
            trust_domain=self._trust_domain,
            labels=self._labels_of(identity),
        )
        return None if decision.allowed else decision.reason

    def _about_pools(self) -> AccessPolicies:
        resources = self._declared.resources.values()
        targets = [
            AccessTarget(TargetKind.POOL, each.metadata.name)
            for each in resources
            if isinstance(each.spec, ModelPoolSpec)
        ]
        policies = access_policies(resources).items()
        return {name: spec for name, spec in policies if any(concerns(spec, each) for each in targets)}
