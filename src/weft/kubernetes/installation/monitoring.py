"""What Prometheus's operator reads, where it is installed."""

from __future__ import annotations

from typing import Any, Final

from weft.kubernetes.installation.setup import Document, Setup

_API: Final = "monitoring.coreos.com/v1"
_PART: Final = "monitoring"


def monitoring(setup: Setup) -> list[Document]:
    """The control plane's metrics, and those of all sidecars of the cluster, gateways' too."""
    if not setup.values.monitoring.service_monitor.enabled:
        return []
    control = {
        "selector": {"matchLabels": setup.selector("control")},
        "endpoints": [_endpoint(setup, "metrics")],
    }
    sidecars = {
        "namespaceSelector": {"any": True},
        "selector": {"matchExpressions": [{"key": "weft.dev/agent", "operator": "Exists"}]},
        "podMetricsEndpoints": [_endpoint(setup, "weft-metrics")],
    }
    return [
        _labelled(setup, setup.document(_API, "ServiceMonitor", "control", spec=control)),
        _labelled(
            setup, setup.document(_API, "PodMonitor", _PART, name=setup.named("sidecars"), spec=sidecars)
        ),
    ]


def _endpoint(setup: Setup, port: str) -> dict[str, Any]:
    return {"port": port, "interval": setup.values.monitoring.service_monitor.interval, "path": "/metrics"}


def _labelled(setup: Setup, document: Document) -> Document:
    document["metadata"]["labels"] |= setup.values.monitoring.service_monitor.labels
    return document
