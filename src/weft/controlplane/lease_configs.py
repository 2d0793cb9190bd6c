"""The lease of every sidecar, encoded for its Envoy."""

from __future__ import annotations

from collections.abc import Mapping

from weft.controlplane.translate.llm_lease import lease_config
from weft.controlplane.xds.snapshot import EncodedResource, encode
from weft.model.llm_lease import Lease

Encoded = Mapping[str, EncodedResource]


def _encoded(lease: Lease | None) -> Encoded:
    config = lease_config(lease)
    return {config.name: encode(config.name, config)}


NOTHING_LEASED: Encoded = _encoded(None)


class LeaseConfigs:
    """Gives each lease while it is fresh, and the same mapping for as long as it does."""

    def __init__(self) -> None:
        self._leases: Mapping[str, Lease] = {}
        self._encoded: dict[str, tuple[Lease, Encoded]] = {}

    def update(self, leases: Mapping[str, Lease]) -> bool:
        """Take over all leases there are, by their holders; whether that changes anything."""
        if leases == self._leases:
            return False
        self._leases = dict(leases)
        self._encoded = {
            holder: known for holder, known in self._encoded.items() if leases.get(holder) == known[0]
        }
        return True

    def of(self, holder: str, now: float) -> Encoded:
        """What the sidecar `holder` may have `now`, in seconds since 1970."""
        lease = self._leases.get(holder)
        if lease is None or not lease.is_fresh(now):
            return NOTHING_LEASED
        known = self._encoded.get(holder)
        if known is None:
            known = self._encoded[holder] = lease, _encoded(lease)
        return known[1]
