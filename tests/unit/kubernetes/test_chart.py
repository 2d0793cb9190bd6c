"""The Helm chart renders what `weft kubernetes render` does, document by document."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from difflib import unified_diff
from typing import Any

import pytest
import yaml
from docs import chart
from tests.helm_chart import CHART, by_identity, lint, missing, template
from tests.kubernetes_documents import ROOT, Document

from weft.kubernetes.custom_resources import custom_resource_definitions
from weft.kubernetes.installation import installation
from weft.kubernetes.installation.monitoring import observability_text
from weft.kubernetes.installation.setup import Setup
from weft.kubernetes.installation_values import read_values

with_helm = pytest.mark.skipif(missing() is not None, reason=str(missing()))

DIGEST = f"sha256:{'0123456789abcdef' * 4}"


@dataclass(frozen=True, slots=True)
class Release:
    """What somebody installs."""

    values: Document = field(default_factory=dict)
    name: str = "weft"
    namespace: str = "weft-system"


RELEASES = {
    "defaults": Release(),
    "another name and namespace": Release(name="mesh-2", namespace="agents-infrastructure"),
    "names that YAML could take for something else": Release(
        {
            "image": {"pullSecrets": ["1e3", "on"]},
            "control": {"filesSecret": "007"},
            "controller": {"secretsIn": ["123", "no"]},
            "gateways": {"null": {"tlsSecret": "0x1f"}, "y": {}},
            "nats": {"storage": {"className": "1.5"}},
            "priorityClassName": "2026-11-22",
        },
        name="n",
        namespace="1234",
    ),
    "the longest name": Release(name=f"a{'b' * 22}c"),
    "one of each": Release(
        {
            "nats": {"replicas": 1},
            "control": {"replicas": 1},
            "controller": {"replicas": 1},
            "webhook": {"replicas": 1},
        }
    ),
    "five servers, nine control planes": Release({"nats": {"replicas": 5}, "control": {"replicas": 9}}),
    "no webhooks": Release({"webhook": {"enabled": False}}),
    "no controller": Release({"controller": {"enabled": False}}),
    "keys from elsewhere": Release({"bootstrap": {"enabled": False}}),
    "one gateway as it comes": Release({"gateways": {"front": {}}}),
    "several gateways": Release(
        {
            "gateways": {
                "front": {
                    "replicas": {"least": 2, "most": 5},
                    "cpuPercent": 50,
                    "service": {
                        "type": "LoadBalancer",
                        "port": 443,
                        "annotations": {
                            "load-balancer.example/internal": "true",
                            "odd": "a: b # c\n\"d\" 'e'",
                        },
                    },
                    "tlsSecret": "front-tls",
                    "resources": {"limits": {"cpu": 3}},
                },
                "inside": {"replicas": {"least": 2, "most": 2}, "service": {"type": "ClusterIP"}},
                "alone": {"replicas": {"least": 1, "most": 1}, "service": {"type": "NodePort"}},
            }
        },
        name="edge",
    ),
    "registry and tag": Release(
        {
            "image": {
                "registry": "registry.example:5000/team",
                "repository": "mesh/weft",
                "tag": "1.20",
                "pullPolicy": "Always",
                "pullSecrets": ["registry", "another.one"],
            }
        }
    ),
    "digest": Release({"image": {"registry": "registry.example", "tag": "1.2", "digest": DIGEST}}),
    "a tag like a number": Release({"image": {"tag": "1e3"}}),
    "placed": Release(
        {
            "antiAffinity": "required",
            "nodeSelector": {"kubernetes.io/arch": "amd64", "pool": "yes", "number": "1"},
            "tolerations": [
                {"key": "pool", "operator": "Equal", "value": "infra", "effect": "NoSchedule"},
                {"key": "slow", "operator": "Exists", "tolerationSeconds": 3000000},
            ],
            "priorityClassName": "system-cluster-critical",
            "gateways": {"front": {}},
        }
    ),
    "storage and resources": Release(
        {
            "nats": {
                "storage": {"size": "100Gi", "className": "fast.local", "most": 85899345920},
                "memoryTarget": "3GiB",
                "resources": {
                    "requests": {"cpu": 1, "memory": "1Gi"},
                    "limits": {"cpu": "4", "memory": "4Gi"},
                },
            },
            "control": {
                "resources": {"requests": {"cpu": "1500m"}, "limits": {"memory": 4294967296}},
                "publisherResources": {"limits": {"memory": "512Mi"}},
            },
            "controller": {"resources": {"limits": {"cpu": "0.5"}}},
            "webhook": {"resources": {"requests": {"memory": "1.5Mi"}}},
            "bootstrap": {"resources": {"requests": {"cpu": "50m"}}},
        }
    ),
    "settings and files": Release(
        {
            "logLevel": "debug",
            "trustDomain": "agents.example.org",
            "clusterDomain": "k8s.example.org",
            "control": {
                "settings": {
                    "WEFT_CONTROL_OTLP_ENDPOINT": "http://collector:4318",
                    "WEFT_CONTROL_AUDIT_DAYS": "30",
                    "WEFT_CONTROL_ODD": "$(POD_IP) \"quoted\" 'too', ünïcode\tand\nlines\\",
                    "WEFT_CONTROL_EMPTY": "",
                },
                "filesSecret": "control-files",
            },
        }
    ),
    "Secrets of two namespaces": Release({"controller": {"secretsIn": ["team-a", "team-b"]}}),
    "a mesh of few namespaces": Release({"controller": {"namespaces": ["team-a", "123"]}}),
    "Secrets of all namespaces": Release({"controller": {"secretsIn": ["team-a", "*"]}}),
    "no NetworkPolicies": Release({"networkPolicies": {"enabled": False}, "gateways": {"front": {}}}),
    "NetworkPolicies for few": Release(
        {
            "networkPolicies": {
                "clients": [
                    {"namespaceSelector": {"matchLabels": {"weft.dev/injection": "enabled"}}},
                    {"podSelector": {}},
                ],
                "metrics": [],
                "callers": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.9.0.0/16"]}}],
            },
            "gateways": {"front": {}, "side": {}},
        }
    ),
    "NetworkPolicies for nobody": Release(
        {
            "networkPolicies": {"clients": [], "metrics": [], "callers": []},
            "gateways": {"front": {}},
            "webhook": {"enabled": False},
        }
    ),
    "monitored": Release(
        {
            "monitoring": {
                "annotations": False,
                "serviceMonitor": {
                    "enabled": True,
                    "interval": "30s",
                    "labels": {"release": "prometheus", "on": "yes"},
                },
            },
            "gateways": {"front": {}},
        }
    ),
    "monitored as it comes": Release(
        {
            "monitoring": {
                "serviceMonitor": {"enabled": True},
                "rules": {"enabled": True},
                "dashboard": {"enabled": True},
            }
        }
    ),
    "rules and dashboard alone": Release(
        {
            "monitoring": {
                "rules": {"enabled": True, "labels": {"role": "alert-rules"}},
                "dashboard": {"enabled": True, "labels": {"dashboards": "yes"}},
            }
        },
        name="other",
    ),
    "next to nothing": Release(
        {
            "bootstrap": {"enabled": False},
            "controller": {"enabled": False},
            "webhook": {"enabled": False},
            "networkPolicies": {"enabled": False},
            "monitoring": {"annotations": False},
            "nats": {"replicas": 1},
            "control": {"replicas": 1},
        }
    ),
}


def expected(release: Release) -> list[Document]:
    """What `weft kubernetes render` writes, but for the namespace and the definitions."""
    return installation(read_values(release.values), name=release.name, namespace=release.namespace)


@with_helm
@pytest.mark.parametrize("release", RELEASES.values(), ids=RELEASES.keys())
def test_helm_renders_the_documents_that_weft_renders(release: Release) -> None:
    rendered = by_identity(template(release.values, release=release.name, namespace=release.namespace))
    wanted = by_identity(expected(release))
    assert sorted(rendered) == sorted(wanted)
    differences = [
        line for each in wanted for line in unified_diff(wanted[each], rendered[each], each, n=1, lineterm="")
    ]
    assert not differences, "\n".join(differences)


@with_helm
def test_values_given_one_by_one_mean_the_same() -> None:
    flags = ("--set", "nats.replicas=1,control.resources.limits.cpu=3", "--set-string", "image.tag=1.10")
    wanted = Release(
        {
            "nats": {"replicas": 1},
            "control": {"resources": {"limits": {"cpu": 3}}},
            "image": {"tag": "1.10"},
        }
    )
    assert by_identity(template(flags=flags)) == by_identity(expected(wanted))


@with_helm
def test_definitions_of_custom_resources_come_with_the_chart() -> None:
    rendered = template(flags=("--include-crds",))
    definitions = [each for each in rendered if each["kind"] == "CustomResourceDefinition"]
    assert by_identity(definitions) == by_identity(custom_resource_definitions())


@with_helm
@pytest.mark.parametrize("name", ["defaults", "several gateways", "monitored", "placed", "next to nothing"])
def test_helm_finds_nothing_to_say_against_the_chart(name: str) -> None:
    said = lint(RELEASES[name].values)
    assert "1 chart(s) linted, 0 chart(s) failed" in said
    assert "[WARNING]" not in said


def test_what_is_made_from_the_code_is_up_to_date() -> None:
    made = chart.files()
    for path, text in made.items():
        assert (CHART / path).read_text() == text, f"{path} is stale: run `make docs`"
    there = {f"crds/{each.name}" for each in (CHART / "crds").iterdir()}
    assert there <= made.keys(), "a kind that is no more: run `make docs`"


def test_rules_alerts_and_dashboard_are_those_of_deploy() -> None:
    for name, text in chart.observability().items():
        assert observability_text(name) == text, f"{name} is stale: run `make docs`"


def test_the_chart_is_of_this_version() -> None:
    described: dict[str, Any] = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert described["version"] == described["appVersion"] == Setup().version


def test_the_values_of_the_chart_are_the_defaults() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert read_values(values) == read_values({})


def test_only_templates_are_in_the_chart_that_render_what_is_asked_for() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    text = "".join(each.read_text() for each in (CHART / "templates").iterdir())
    for part in schema["properties"]:
        assert f".Values.{part}" in text, f"values.{part} makes no difference"
    assert str(ROOT) not in text
