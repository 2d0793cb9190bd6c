"""Figures of who is in the mesh, and of its certificate authority, for Prometheus: looked at when it asks.

| metric | kind | what |
|---|---|---|
| `weft_instances{type,status}` | gauge | instances that are registered, of all types that run |
| `weft_sidecars_connected` | gauge | sidecars that get their configuration from this replica |
| `weft_sidecars_rejecting` | gauge | those of them whose Envoy refuses some of it |
| `weft_authority_certificate_expiry_timestamp_seconds{certificate}` | gauge | when `root` or `issuing` ends |
| `weft_identities` | gauge | identities that are held: their certificates have not ended |
| `weft_identities_revoked` | gauge | identities that nobody may use any more |

`type` has MAX_TYPES values, those with most instances, and `(other)`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily

from weft.controlplane.ca.authority import AuthorityStatus
from weft.controlplane.security import Security
from weft.controlplane.sidecars import Sidecars
from weft.model.agent import Instance
from weft.registry.view import View

MAX_TYPES: Final = 500

OTHERS: Final = "(other)"


class MemberMetrics:
    """Collects figures of instances and sidecars."""

    def __init__(
        self, instances: Callable[[], Iterable[Instance]], sidecars: Callable[[], tuple[int, int]]
    ) -> None:
        """`sidecars` gives how many are connected here, and how many of these refuse something."""
        self._instances = instances
        self._sidecars = sidecars

    def collect(self) -> Iterator[Metric]:
        """The metrics, as things stand."""
        instances = GaugeMetricFamily(
            "weft_instances", "Instances that are registered.", labels=("type", "status")
        )
        for (agent_type, status), number in sorted(self._counted().items()):
            instances.add_metric((agent_type, status), number)
        connected, rejecting = self._sidecars()
        yield instances
        yield GaugeMetricFamily(
            "weft_sidecars_connected",
            "Sidecars that get their configuration from this replica.",
            value=connected,
        )
        yield GaugeMetricFamily(
            "weft_sidecars_rejecting",
            "Sidecars connected here whose Envoy refuses some of its configuration.",
            value=rejecting,
        )

    def _counted(self) -> Counter[tuple[str, str]]:
        found = Counter((each.type, each.status.value) for each in self._instances())
        of_type: Counter[str] = Counter()
        for (agent_type, _), number in found.items():
            of_type[agent_type] += number
        if len(of_type) <= MAX_TYPES:
            return found
        kept = {agent_type for agent_type, _ in of_type.most_common(MAX_TYPES)}
        bounded: Counter[tuple[str, str]] = Counter()
        for (agent_type, status), number in found.items():
            bounded[agent_type if agent_type in kept else OTHERS, status] += number
        return bounded


class AuthorityMetrics:
    """Collects figures of the certificate authority."""

    def __init__(
        self,
        authority: Callable[[], AuthorityStatus],
        identities: Callable[[], int],
        revoked: Callable[[], int],
    ) -> None:
        """`identities` counts those that are held, `revoked` those that are taken back."""
        self._authority = authority
        self._identities = identities
        self._revoked = revoked

    def collect(self) -> Iterator[Metric]:
        """The metrics, as things stand."""
        status = self._authority()
        expiry = GaugeMetricFamily(
            "weft_authority_certificate_expiry_timestamp_seconds",
            "When a certificate of the mesh's authority ends.",
            labels=("certificate",),
        )
        expiry.add_metric(("root",), status.root_expires_at)
        expiry.add_metric(("issuing",), status.issuing_expires_at)
        yield expiry
        yield GaugeMetricFamily(
            "weft_identities",
            "Identities that are held: their certificates have not ended.",
            value=self._identities(),
        )
        yield GaugeMetricFamily(
            "weft_identities_revoked",
            "Identities that nobody may use any more.",
            value=self._revoked(),
        )


def show_mesh(metrics: CollectorRegistry, instances: View, sidecars: Sidecars, security: Security) -> None:
    """Have these figures in `metrics`."""
    metrics.register(
        MemberMetrics(lambda: tuple(instances.instances.values()), lambda: sidecars.connected_here)
    )
    metrics.register(
        AuthorityMetrics(
            lambda: security.authority.status,
            lambda: len(security.identities.given),
            lambda: len(security.identities.revoked),
        )
    )
