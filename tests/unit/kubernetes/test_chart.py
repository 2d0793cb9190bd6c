"""The Helm chart: it renders what `weft kubernetes render` does, and refuses what that refuses."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from difflib import unified_diff
from typing import Any

import pytest
import re2
import yaml
from docs import chart
from tests.helm_chart import CHART, Refused, by_identity, lint, missing, template
from tests.kubernetes_documents import ROOT, Document

from weft.errors import InvalidRequest, InvalidResource
from weft.kubernetes.agent_deployment import quantity
from weft.kubernetes.custom_resources import custom_resource_definitions
from weft.kubernetes.installation import installation
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
    "monitored as it comes": Release({"monitoring": {"serviceMonitor": {"enabled": True}}}),
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


REFUSED: dict[str, tuple[Document, str]] = {
    "an unknown value": ({"replicas": 3}, "additional properties 'replicas' not allowed"),
    "an unknown value further in": ({"nats": {"nodes": 3}}, "at '/nats': additional properties 'nodes' not"),
    "text for a number": (
        {"control": {"replicas": "three"}},
        "'/control/replicas': got string, want integer",
    ),
    "an even number of servers": ({"nats": {"replicas": 2}}, "'/nats/replicas'"),
    "too many": ({"control": {"replicas": 10}}, "'/control/replicas': maximum: got 10, want 9"),
    "none": ({"webhook": {"replicas": 0}}, "'/webhook/replicas': minimum: got 0, want 1"),
    "what is taken away": ({"nats": {"replicas": None}}, "at '/nats': missing property 'replicas'"),
    "a quantity that is none": (
        {"control": {"resources": {"limits": {"memory": "much"}}}},
        "'/control/resources/limits/memory': 'much' does not match pattern",
    ),
    "a digest that is none": ({"image": {"digest": "sha256:1"}}, "'/image/digest'"),
    "a name that is none": ({"nats": {"storage": {"className": "Fast!"}}}, "'/nats/storage/className'"),
    "a kind of Service that is none": (
        {"gateways": {"front": {"service": {"type": "ExternalName"}}}},
        "'/gateways/front/service/type'",
    ),
    "an unknown value of a gateway": (
        {"gateways": {"front": {"tls": "x"}}},
        "at '/gateways/front': additional properties 'tls' not allowed",
    ),
    "a gateway that cannot be called so": ({"gateways": {"Front_1": {}}}, "'/gateways'"),
    "a gateway whose name is too long": ({"gateways": {"f" * 25: {}}}, "a gateway's name is 1 to 24"),
    "a gateway called as what the mesh answers at": (
        {"gateways": {"control": {}}},
        "gateways.control: that name means something else already",
    ),
    "a gateway called as everybody's account": (
        {"gateways": {"default": {}}},
        "gateways.default: that name means something else already",
    ),
    "text for yes or no": ({"webhook": {"enabled": "no"}}, "at '/webhook/enabled': got string, want boolean"),
    "a namespace that is none": ({"controller": {"secretsIn": ["Team A"]}}, "'/controller/secretsIn/0'"),
    "a setting of something else": ({"control": {"settings": {"PATH": "/"}}}, "'/control/settings'"),
    "a setting that follows from others": (
        {"control": {"settings": {"WEFT_CONTROL_NATS": "[]"}}},
        "control.settings.WEFT_CONTROL_NATS is the installation's own",
    ),
    "the tag latest": ({"image": {"tag": "latest"}}, "the tag latest is another image tomorrow"),
    "a request above its limit": (
        {"webhook": {"resources": {"requests": {"cpu": "1500m"}}}},
        "webhook.resources.requests.cpu (1500m) is above webhook.resources.limits.cpu (1)",
    ),
    "a request of a gateway above its limit": (
        {"gateways": {"front": {"resources": {"limits": {"memory": "100M"}}}}},
        "front.resources.requests.memory (384Mi) is above gateways.front.resources.limits.memory (100M)",
    ),
    "more in a volume than its size": (
        {"nats": {"storage": {"size": "5Gi"}}},
        "nats.storage.most (8Gi) is above nats.storage.size (5Gi)",
    ),
    "fewer at most than at least": (
        {"gateways": {"front": {"replicas": {"least": 5, "most": 4}}}},
        "gateways.front.replicas: least (5) is above most (4)",
    ),
}


@with_helm
@pytest.mark.parametrize(("values", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_helm_refuses_bad_values_and_says_which(values: Document, text: str) -> None:
    with pytest.raises(Refused) as refused:
        template(values)
    assert text in " ".join(str(refused.value).split())


@pytest.mark.parametrize("values", [values for values, _ in REFUSED.values()], ids=REFUSED.keys())
def test_weft_refuses_the_same_values(values: Document) -> None:
    with pytest.raises(InvalidResource):
        read_values(values)


@with_helm
def test_a_gateway_with_the_account_of_a_part_is_refused_by_both() -> None:
    gateway: Document = {"gateways": {"mesh-nats": {}}}
    with pytest.raises(Refused, match="mesh-nats would have the service account of a part"):
        template(gateway, release="mesh")
    with pytest.raises(InvalidRequest, match="would have the service account of a part"):
        installation(read_values(gateway), name="mesh")


NAMES = ["Weft", "1weft", "weft-", f"a{'b' * 24}"]


@with_helm
@pytest.mark.parametrize("name", NAMES)
def test_helm_refuses_a_release_whose_name_is_none_here(name: str) -> None:
    with pytest.raises(Refused, match="name"):
        template(release=name)


@pytest.mark.parametrize("name", NAMES)
def test_weft_refuses_the_same_names(name: str) -> None:
    with pytest.raises(InvalidRequest):
        installation(name=name)


def test_what_is_made_from_the_code_is_up_to_date() -> None:
    made = chart.files()
    for path, text in made.items():
        assert (CHART / path).read_text() == text, f"{path} is stale: run `make docs`"
    there = {f"crds/{each.name}" for each in (CHART / "crds").iterdir()}
    assert there <= made.keys(), "a kind that is no more: run `make docs`"


def test_the_chart_is_of_this_version() -> None:
    described: dict[str, Any] = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert described["version"] == described["appVersion"] == Setup().version


def test_the_values_of_the_chart_are_the_defaults() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert read_values(values) == read_values({})


@pytest.mark.parametrize("text", ["2", "0.5", "500m", "1k", "2Gi", "10E", "", "m", "2g", "-1", "1e3", "1 Gi"])
def test_the_schema_takes_for_a_quantity_what_the_code_does(text: str) -> None:
    try:
        quantity(text)
        taken = True
    except ValueError:
        taken = False
    assert (re2.search(chart.QUANTITY_PATTERN, text) is not None) == taken


def test_only_templates_are_in_the_chart_that_render_what_is_asked_for() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    text = "".join(each.read_text() for each in (CHART / "templates").iterdir())
    for part in schema["properties"]:
        assert f".Values.{part}" in text, f"values.{part} makes no difference"
    assert str(ROOT) not in text
