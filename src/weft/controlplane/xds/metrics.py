"""Figures of the ADS server, for Prometheus.

| metric | kind | what |
|---|---|---|
| `weft_xds_streams` | gauge | streams open now: one per connected sidecar |
| `weft_xds_pushes_total{type}` | counter | responses sent |
| `weft_xds_nacks_total{type}` | counter | responses rejected, the search for the culprit included |
| `weft_xds_push_seconds` | histogram | from a change, debouncing included, to a sidecar's last ACK of it |
| `weft_xds_convergence_seconds` | histogram | from a change to the ACK of all connected sidecars |

`type` is `cds`, `eds`, `sds`, `lds`, `rds` or `ecds`.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from weft.controlplane.xds.snapshot import CLUSTER, ENDPOINTS, EXTENSION, LISTENER, ROUTES, SECRET

SHORT_TYPES = {
    CLUSTER: "cds",
    ENDPOINTS: "eds",
    EXTENSION: "ecds",
    LISTENER: "lds",
    ROUTES: "rds",
    SECRET: "sds",
}

_PUSH_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds; the budget is 1 s."""


class XdsMetrics:
    """The metrics of one ADS server, registered with `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Raises ValueError if `registry` has them already."""
        self.streams = Gauge("weft_xds_streams", "xDS streams open now.", registry=registry)
        self.push_seconds = Histogram(
            "weft_xds_push_seconds",
            "Seconds from a change to a sidecar's last ACK of it.",
            buckets=_PUSH_BUCKETS,
            registry=registry,
        )
        self.convergence_seconds = Histogram(
            "weft_xds_convergence_seconds",
            "Seconds from a change to the last connected sidecar's ACK of all of it.",
            buckets=_PUSH_BUCKETS,
            registry=registry,
        )
        pushes = Counter("weft_xds_pushes_total", "xDS responses sent.", ["type"], registry=registry)
        nacks = Counter("weft_xds_nacks_total", "xDS responses rejected.", ["type"], registry=registry)
        self.pushes = {type_url: pushes.labels(short) for type_url, short in SHORT_TYPES.items()}
        self.nacks = {type_url: nacks.labels(short) for type_url, short in SHORT_TYPES.items()}
