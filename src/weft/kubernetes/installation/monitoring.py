"""What Prometheus's operator and Grafana read, where they are installed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

from weft.kubernetes.injection import AGENT_LABEL
from weft.kubernetes.installation.setup import Document, Setup
from weft.kubernetes.manifest_text import read_manifests

DASHBOARD_FILE: Final = "weft.json"
RULE_FILES: Final = ("weft.rules.yaml", "weft.alerts.yaml")

_API: Final = "monitoring.coreos.com/v1"
_PART: Final = "monitoring"
_POD: Final = "__meta_kubernetes_pod_name"
_TYPE: Final = "__meta_kubernetes_pod_label_weft_dev_agent"
_VERSION: Final = "__meta_kubernetes_pod_label_app_kubernetes_io_version"

LIMITS: Final[Mapping[str, Any]] = {
    "sampleLimit": 20000,
    "labelLimit": 40,
    "labelValueLengthLimit": 512,
    "bodySizeLimit": "16MB",
}
"""What agents say of themselves is limited, as everything that is theirs."""


def observability_text(name: str) -> str:
    """A file of rules, or the dashboard: those of `deploy/`."""
    return files("weft.kubernetes").joinpath("observability", name).read_text()


def monitoring(setup: Setup) -> list[Document]:
    """Monitors, rules and dashboard, as far as they were asked for."""
    values = setup.values.monitoring
    return [
        *(_monitors(setup) if values.service_monitor.enabled else []),
        *([_rules(setup)] if values.rules.enabled else []),
        *([_dashboard(setup)] if values.dashboard.enabled else []),
    ]


def _monitors(setup: Setup) -> list[Document]:
    """The control plane's metrics, and those of all sidecars of the cluster, gateways' too."""
    control = {
        "selector": {"matchLabels": setup.selector("control")},
        "endpoints": [_endpoint(setup, "metrics", "/metrics", "control", _labelled_by([_POD], "instance"))],
    }
    # As the control plane calls them where it is asked for targets.
    names = (
        _labelled_by([_TYPE, _POD], "instance"),
        _labelled_by([_TYPE], "type"),
        _labelled_by([_VERSION], "agent_version"),
    )
    sidecars = {
        "namespaceSelector": {"any": True},
        "selector": {"matchExpressions": [{"key": AGENT_LABEL, "operator": "Exists"}]},
        "podMetricsEndpoints": [
            _endpoint(setup, "weft-metrics", "/metrics", "sidecar", *names),
            _endpoint(setup, "weft-metrics", "/agent/metrics", "agent", *names),
        ],
        **LIMITS,
    }
    labels = setup.values.monitoring.service_monitor.labels
    named = setup.named("sidecars")
    return [
        _labelled(setup.document(_API, "ServiceMonitor", "control", spec=control), labels),
        _labelled(setup.document(_API, "PodMonitor", _PART, name=named, spec=sidecars), labels),
    ]


def _endpoint(setup: Setup, port: str, path: str, role: str, *names: Document) -> Document:
    """Where to ask. Rules and dashboard go by `role`, which nothing that is asked can say of itself."""
    return {
        "port": port,
        "path": path,
        "interval": setup.values.monitoring.service_monitor.interval,
        "relabelings": [{"targetLabel": "role", "replacement": role}, *names],
    }


def _labelled_by(sources: list[str], label: str) -> Document:
    return {"sourceLabels": sources, "separator": ".", "targetLabel": label}


def _rules(setup: Setup) -> Document:
    groups = [
        group
        for name in RULE_FILES
        for document in read_manifests(observability_text(name), name)
        for group in document["groups"]
    ]
    document = setup.document(_API, "PrometheusRule", _PART, spec={"groups": groups})
    return _labelled(document, setup.values.monitoring.rules.labels)


def _dashboard(setup: Setup) -> Document:
    data = {DASHBOARD_FILE: observability_text(DASHBOARD_FILE)}
    document = setup.document("v1", "ConfigMap", _PART, name=setup.named("dashboard"), data=data)
    return _labelled(document, setup.values.monitoring.dashboard.labels)


def _labelled(document: Document, labels: Mapping[str, str]) -> Document:
    document["metadata"]["labels"] |= labels
    return document
