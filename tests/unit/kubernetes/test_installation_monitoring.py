"""How an installation's metrics are found: with the labels that rules, alerts and dashboard go by."""

from __future__ import annotations

import json

import pytest
import yaml
from tests.kubernetes_documents import ROOT, Document

from weft.controlplane.scrape_targets import AGENT_METRICS_PATH, TargetRole
from weft.kubernetes.injection import InjectionSettings, inject
from weft.kubernetes.installation import installation
from weft.kubernetes.installation_values import read_values

MONITORED: Document = {
    "gateways": {"front": {}},
    "monitoring": {
        name: {"enabled": True, "labels": {"release": "main"}}
        for name in ("serviceMonitor", "rules", "dashboard")
    },
}


def one(kind: str, name: str) -> Document:
    [found] = [
        each
        for each in installation(read_values(MONITORED))
        if (each["kind"], each["metadata"]["name"]) == (kind, name)
    ]
    return found


def endpoints() -> list[Document]:
    control, sidecars = one("ServiceMonitor", "weft-control"), one("PodMonitor", "weft-sidecars")
    return [*control["spec"]["endpoints"], *sidecars["spec"]["podMetricsEndpoints"]]


def relabelled(endpoint: Document) -> dict[str, Document]:
    return {each["targetLabel"]: each for each in endpoint["relabelings"]}


def test_each_role_is_asked_for_and_told() -> None:
    roles = [relabelled(each)["role"]["replacement"] for each in endpoints()]
    assert sorted(roles) == sorted(each.value for each in TargetRole)
    assert all("instance" in relabelled(each) for each in endpoints())
    [of_agents] = [each for each in endpoints() if each["path"] == AGENT_METRICS_PATH]
    assert relabelled(of_agents)["role"]["replacement"] == TargetRole.AGENT.value


def test_the_pods_of_a_gateway_and_injected_ones_are_found() -> None:
    monitor = one("PodMonitor", "weft-sidecars")["spec"]
    [asked] = monitor["selector"]["matchExpressions"]
    [port] = {each["port"] for each in monitor["podMetricsEndpoints"]}
    gateway = one("Deployment", "weft-gateway-front")["spec"]["template"]
    agent = {"spec": {"serviceAccountName": "a", "containers": [{"name": "agent", "image": "agent:1"}]}}
    injected = inject(agent, InjectionSettings()).pod
    for pod in (gateway, injected):
        assert asked["key"] in pod["metadata"]["labels"]
        containers = [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]
        assert port in [each["name"] for one in containers for each in one.get("ports", [])]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("ServiceMonitor", "weft-control"),
        ("PodMonitor", "weft-sidecars"),
        ("PrometheusRule", "weft-monitoring"),
        ("ConfigMap", "weft-dashboard"),
    ],
)
def test_each_has_the_labels_by_which_it_is_picked(kind: str, name: str) -> None:
    assert one(kind, name)["metadata"]["labels"]["release"] == "main"


def test_rules_alerts_and_dashboard_are_those_that_are_deployed_elsewhere() -> None:
    deployed = [
        group
        for name in ("weft.rules.yaml", "weft.alerts.yaml")
        for group in yaml.safe_load((ROOT / "deploy" / "prometheus" / name).read_text())["groups"]
    ]
    assert one("PrometheusRule", "weft-monitoring")["spec"]["groups"] == deployed
    [text] = one("ConfigMap", "weft-dashboard")["data"].values()
    assert json.loads(text) == json.loads((ROOT / "deploy" / "grafana" / "weft.json").read_text())


def test_none_of_it_is_made_unasked() -> None:
    kinds = {each["kind"] for each in installation(read_values({}))}
    assert not kinds & {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
