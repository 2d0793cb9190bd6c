"""The lease of every sidecar, encoded for its Envoy."""

from __future__ import annotations

from collections.abc import Mapping

from weft.controlplane.translate.llm_lease import lease_config
from weft.controlplane.xds.snapshot import EncodedResource, encode
from weft.model.llm_lease import Lease

MAX_KINDS = 256
"""For how many sets of pools it is kept what is sent where nothing is leased."""

Encoded = Mapping[str, EncodedResource]
Pools = tuple[str, ...]


class LeaseConfigs:
    """Gives each lease while it is fresh, and the same mapping for as long as it does."""

    def __init__(self) -> None:
        self._leases: Mapping[str, Lease] = {}
        self._encoded: dict[str, tuple[Lease, Pools, Encoded]] = {}
        self._nothing: dict[Pools, Encoded] = {}

    def update(self, leases: Mapping[str, Lease]) -> bool:
        """Take over all leases there are, by their holders; whether that changes anything."""
        if leases == self._leases:
            return False
        self._leases = dict(leases)
        self._encoded = {
            holder: known for holder, known in self._encoded.items() if leases.get(holder) == known[0]
        }
        return True

    def of(self, holder: str, pools: Pools, now: float) -> Encoded:
        """What the sidecar `holder`, which has these `pools`, is given `now`, in seconds since 1970."""
        lease = self._leases.get(holder)
        if lease is None or not lease.is_fresh(now):
            return self._nothing_of(pools)
        known = self._encoded.get(holder)
        if known is None or known[1] != pools:
            known = self._encoded[holder] = lease, pools, _encoded(pools, lease)
        return known[2]

    def _nothing_of(self, pools: Pools) -> Encoded:
        if pools not in self._nothing:
            while len(self._nothing) >= MAX_KINDS:
                del self._nothing[next(iter(self._nothing))]
            self._nothing[pools] = _encoded(pools, None)
        return self._nothing[pools]


def _encoded(pools: Pools, lease: Lease | None) -> Encoded:
    config = lease_config(pools, lease)
    return {config.name: encode(config.name, config)}
