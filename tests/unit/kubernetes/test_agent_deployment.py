"""AgentDeployments: the seed's manifests from a few words, and what is wrong with others."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from tests.kubernetes_documents import Document, refusals

from weft.cli.main import run
from weft.errors import InvalidResource
from weft.kubernetes.agent_deployment import (
    AgentDeployment,
    AgentDeploymentSpec,
    quantity,
    read_agent_deployment,
)
from weft.kubernetes.agent_manifests import agent_manifests
from weft.kubernetes.custom_resources import custom_resource_definitions
from weft.kubernetes.injection import InjectionSettings
from weft.kubernetes.sidecar_container import understood

[DEFINITION] = [
    each for each in custom_resource_definitions() if each["spec"]["names"]["kind"] == "AgentDeployment"
]
IMAGE = "registry.example/summarizer:1.4"
QUEUE = {"name": "studies", "prometheus": "http://prometheus.monitoring.svc:9090"}

EVERYTHING: Document = {
    "image": "registry.example/summarizer@sha256:" + "0" * 64,
    "command": ["python"],
    "args": ["agent.py", "--port=$(PORT)"],
    "pullPolicy": "Always",
    "pullSecrets": ["registry"],
    "user": 1000,
    "replicas": {"least": 2, "most": 5},
    "scaling": {"cpuPercent": 50, "queue": {**QUEUE, "oldest": "1m"}},
    "resources": {
        "requests": {"cpu": 1, "memory": "1Gi"},
        "limits": {"cpu": "1500m", "memory": "4Gi", "devices": {"nvidia.com/gpu": 1}},
    },
    "probes": {"initialDelay": "1500ms", "period": "5s"},
    "environment": {"GREETING": "$(PORT) costs $5", "HOLYSHEEP_BASE_URL": "http://llm.mesh/v1"},
    "secretEnvironment": {"HOLYSHEEP_API_KEY": {"name": "holysheep", "key": "api-key"}},
    "agent": {
        "description": "The first words of a text.",
        "capabilities": ["summarize", "shorten"],
        "version": "1.4",
        "labels": {"team": "texts", "tier": "gold"},
        "protocol": "mcp",
        "mcpPath": "/tools",
        "port": 9000,
        "health": {
            "path": "/healthz",
            "interval": "2.5s",
            "timeout": "1s",
            "healthyThreshold": 2,
            "unhealthyThreshold": 4,
        },
        "drainTimeout": "1m",
        "weight": 7,
        "tasks": [{"queue": "studies", "concurrency": 2}, {"queue": "drafts"}],
        "events": [{"topic": "orders.*"}, {"topic": "prices", "everyInstance": True}],
        "eventFormat": "structured",
    },
}


def document(spec: Any, name: str = "summarizer", **metadata: str) -> Document:
    return {
        "apiVersion": "weft.dev/v1alpha1",
        "kind": "AgentDeployment",
        "metadata": {"name": name, **metadata},
        "spec": spec,
    }


def deployment(**spec: Any) -> AgentDeployment:
    return read_agent_deployment(document({"image": IMAGE, **spec}))


def made(**spec: Any) -> dict[str, Document]:
    """What is made of it, without a sidecar, by kind."""
    return {each["kind"]: each for each in agent_manifests(deployment(**spec)).documents}


def pod(manifests: dict[str, Document]) -> Document:
    template: Document = manifests["Deployment"]["spec"]["template"]
    return template


def container(manifests: dict[str, Document]) -> Document:
    [only] = pod(manifests)["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def test_an_image_alone_makes_the_seeds_manifests() -> None:
    manifests = made()
    assert list(manifests) == [
        "ServiceAccount",
        "Service",
        "Deployment",
        "PodDisruptionBudget",
        "HorizontalPodAutoscaler",
    ]
    agent = container(manifests)
    assert agent["ports"] == [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]
    assert agent["resources"] == {
        "requests": {"cpu": "500m", "memory": "512Mi"},
        "limits": {"cpu": "2", "memory": "2Gi"},
    }
    for name in ("readinessProbe", "livenessProbe"):
        probe = agent[name]
        assert probe["httpGet"] == {"path": "/health", "port": "http"}
        assert (probe["initialDelaySeconds"], probe["periodSeconds"]) == (30, 10)
    scaler = manifests["HorizontalPodAutoscaler"]["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (3, 20)
    [metric] = scaler["metrics"]
    assert metric["containerResource"]["target"] == {"type": "Utilization", "averageUtilization": 70}
    assert metric["containerResource"]["container"] == agent["name"]


def test_whoever_has_the_key_is_told_the_address() -> None:
    key = {"HOLYSHEEP_API_KEY": {"name": "holysheep", "key": "api-key"}}
    variables = {each["name"]: each for each in container(made(secretEnvironment=key))["env"]}
    assert variables["HOLYSHEEP_BASE_URL"]["value"] == "https://api.holysheep.ai/v1"
    assert variables["HOLYSHEEP_API_KEY"] == {
        "name": "HOLYSHEEP_API_KEY",
        "valueFrom": {"secretKeyRef": {"name": "holysheep", "key": "api-key"}},
    }
    assert "HOLYSHEEP_BASE_URL" not in {each["name"] for each in container(made())["env"]}


def test_everything_finds_its_pods() -> None:
    manifests = made()
    labels = pod(manifests)["metadata"]["labels"].items()
    selectors = [
        manifests["Deployment"]["spec"]["selector"]["matchLabels"],
        manifests["Service"]["spec"]["selector"],
        manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector == selectors[0]
        assert selector.items() <= labels
    assert pod(manifests)["spec"]["serviceAccountName"] == manifests["ServiceAccount"]["metadata"]["name"]


def test_a_new_version_changes_no_selector() -> None:
    one, other = made(agent={"version": "1"}), made(agent={"version": "2"})
    assert one["Deployment"]["spec"]["selector"] == other["Deployment"]["spec"]["selector"]
    assert one != other


@pytest.mark.parametrize(
    ("version", "label"), [("1.4", "1.4"), ("", None), ("of today", None), ("x" * 64, None)]
)
def test_a_version_is_a_label_where_it_can_be_one(version: str, label: str | None) -> None:
    labels = pod(made(agent={"version": version}))["metadata"]["labels"]
    assert labels.get("app.kubernetes.io/version") == label


def test_a_fixed_number_of_pods_has_no_autoscaler() -> None:
    manifests = made(replicas={"least": 4, "most": 4}, scaling={"queue": QUEUE})
    assert manifests["Deployment"]["spec"]["replicas"] == 4
    assert not {"HorizontalPodAutoscaler", "ScaledObject"} & set(manifests)


def test_an_autoscaled_number_of_pods_is_not_set_anew_by_every_apply() -> None:
    assert "replicas" not in made()["Deployment"]["spec"]


def test_a_queue_is_scaled_by_keda_alone() -> None:
    manifests = made(scaling={"queue": {**QUEUE, "oldest": "90s"}})
    assert "HorizontalPodAutoscaler" not in manifests, "KEDA makes it, and two would fight"
    spec = manifests["ScaledObject"]["spec"]
    assert spec["scaleTargetRef"]["name"] == manifests["Deployment"]["metadata"]["name"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (3, 20)
    cpu, workers, oldest = spec["triggers"]
    assert cpu["metadata"] == {"value": "70", "containerName": "agent"}
    assert workers["metadata"]["query"] == 'max(weft_queue_desired_workers{queue="studies"})'
    assert (workers["metricType"], workers["metadata"]["threshold"]) == ("AverageValue", "1")
    assert oldest["metadata"]["query"] == 'max(weft_queue_oldest_seconds{queue="studies"})'
    assert (oldest["metricType"], oldest["metadata"]["threshold"]) == ("Value", "90")


@pytest.mark.parametrize(
    ("agent", "probe"),
    [
        ({}, {"httpGet": {"path": "/health", "port": "http"}}),
        ({"health": {"path": "/up"}}, {"httpGet": {"path": "/up", "port": "http"}}),
        ({"health": {"path": ""}}, {"tcpSocket": {"port": "http"}}),
        ({"protocol": "a2a"}, {"httpGet": {"path": "/.well-known/agent-card.json", "port": "http"}}),
        ({"protocol": "mcp"}, {"tcpSocket": {"port": "http"}}),
        ({"protocol": "h2c"}, {"tcpSocket": {"port": "http"}}),
    ],
)
def test_probes_ask_what_the_agent_can_answer(agent: Document, probe: Document) -> None:
    asked = container(made(agent=agent))["livenessProbe"]
    assert {name: asked[name] for name in probe} == probe


def test_all_that_can_be_said_is_in_the_pod() -> None:
    manifests = made(**EVERYTHING)
    agent, spec = container(manifests), pod(manifests)["spec"]
    assert (agent["image"], agent["imagePullPolicy"]) == (EVERYTHING["image"], "Always")
    assert (agent["command"], agent["args"]) == (["python"], ["agent.py", "--port=$(PORT)"])
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["securityContext"]["runAsUser"] == 1000
    assert agent["resources"] == {
        "requests": {"cpu": "1", "memory": "1Gi"},
        "limits": {"cpu": "1500m", "memory": "4Gi", "nvidia.com/gpu": "1"},
    }
    probe = agent["readinessProbe"]
    assert (probe["initialDelaySeconds"], probe["periodSeconds"]) == (2, 5)
    assert (probe["timeoutSeconds"], probe["failureThreshold"]) == (1, 4)
    values = {each["name"]: each.get("value") for each in agent["env"]}
    assert values["PORT"] == "9000"
    assert values["GREETING"] == "$$(PORT) costs $$5", "the kubelet makes of it what was written"
    assert values["HOLYSHEEP_BASE_URL"] == "http://llm.mesh/v1"
    assert values["WEFT_AGENT_DESCRIPTION"] == "The first words of a text."


def test_the_sidecar_is_told_what_the_agent_says() -> None:
    settings = InjectionSettings()
    found = agent_manifests(deployment(**EVERYTHING), settings)
    [workload] = [each for each in found.documents if each["kind"] == "Deployment"]
    [sidecar] = workload["spec"]["template"]["spec"]["initContainers"]
    told = understood(sidecar["args"])
    assert (told.type, told.agent_port, told.version) == ("summarizer", 9000, "1.4")
    assert (set(told.capabilities), told.protocol.value) == ({"summarize", "shorten"}, "mcp")
    assert (told.mcp_path, told.weight, told.drain_timeout) == ("/tools", 7, 60.0)
    assert {"team": "texts", "tier": "gold"}.items() <= dict(told.labels).items()
    health = told.health
    assert (health.path, health.interval, health.timeout) == ("/healthz", 2.5, 1.0)
    assert (health.healthy_threshold, health.unhealthy_threshold) == (2, 4)
    assert [(each.queue, each.concurrency) for each in told.consumes] == [("studies", 2), ("drafts", None)]
    assert [(each.topic, each.every_instance) for each in told.subscribes] == [
        ("orders.*", False),
        ("prices", True),
    ]
    assert told.event_format.value == "structured"


def test_of_what_is_usual_annotations_say_nothing() -> None:
    assert "annotations" not in pod(made())["metadata"]


def test_where_the_sidecar_cannot_be_nothing_is_made() -> None:
    found = agent_manifests(deployment(agent={"port": InjectionSettings().metrics_port}), InjectionSettings())
    assert found.documents == ()
    assert [each.refused for each in found.problems] == [True]


@pytest.mark.parametrize("version", ["1.30", "1.37"])
@pytest.mark.parametrize("spec", [{}, EVERYTHING], ids=["least", "everything"])
@pytest.mark.parametrize("settings", [None, InjectionSettings()], ids=["alone", "with a sidecar"])
def test_manifests_are_as_kubernetes_has_them(
    spec: Document, settings: InjectionSettings | None, version: str
) -> None:
    found = agent_manifests(deployment(**spec), settings)
    assert found.documents
    for each in found.documents:
        if each["kind"] != "ScaledObject":
            kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("settings", [None, InjectionSettings()], ids=["alone", "with a sidecar"])
def test_no_container_can_do_more_than_it_must(settings: InjectionSettings | None) -> None:
    documents = agent_manifests(deployment(**EVERYTHING), settings).documents
    [workload] = [each for each in documents if each["kind"] == "Deployment"]
    spec = workload["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for each in [*spec["containers"], *spec.get("initContainers", [])]:
        allowed = each["securityContext"]
        assert allowed["allowPrivilegeEscalation"] is False
        assert allowed["capabilities"] == {"drop": ["ALL"]}
        assert not allowed.get("privileged")
        for what in ("requests", "limits"):
            assert {"cpu", "memory"} <= each["resources"][what].keys()
        assert {"readinessProbe", "livenessProbe"} <= each.keys()


@pytest.mark.parametrize("namespace", [None, "agents"])
def test_everything_is_in_the_namespace_of_the_agent_deployment(namespace: str | None) -> None:
    metadata = {"namespace": namespace} if namespace else {}
    found = agent_manifests(read_agent_deployment(document({"image": IMAGE}, **metadata))).documents
    assert {each["metadata"].get("namespace") for each in found} == {namespace}
    assert {each["metadata"]["name"] for each in found} == {"summarizer"}


WRONG: list[tuple[Any, str]] = [
    (None, "spec: must be a mapping"),
    ({}, "spec.image: this field is required"),
    ({"image": ""}, "spec.image"),
    ({"image": "--privileged"}, "spec.image"),
    ({"image": IMAGE, "imagee": "x"}, "did you mean 'image'?"),
    ({"image": IMAGE, "replicas": {"least": 0}}, "spec.replicas.least"),
    ({"image": IMAGE, "probes": {"period": 5}}, "spec.probes.period"),
    ({"image": IMAGE, "agent": {"run": {"command": ["x"]}}}, "run is for `weft up`"),
    ({"image": IMAGE, "agent": {"locality": {"zone": "a"}}}, "locality is the nodes' here"),
    ({"image": IMAGE, "secretEnvironment": {"KEY": "in plain text"}}, "spec.secretEnvironment.KEY"),
    ({"image": IMAGE, "scaling": {"queue": {"name": "a"}}}, "spec.scaling.queue.prometheus"),
    ({"image": IMAGE, "pullPolicy": "Sometimes"}, "spec.pullPolicy"),
]
CONTRADICTIONS: list[tuple[Any, str]] = [
    ({"image": IMAGE, "replicas": {"least": 21}}, "least (21) is above most (20)"),
    ({"image": IMAGE, "resources": {"requests": {"memory": "3Gi"}}}, "above the limit (2Gi)"),
    ({"image": IMAGE, "resources": {"limits": {"cpu": "plenty"}}}, "is no quantity"),
    ({"image": IMAGE, "environment": {"PORT": "1"}}, "PORT is what agent.port says"),
    (
        {"image": IMAGE, "environment": {"A": ""}, "secretEnvironment": {"A": {"name": "a", "key": "a"}}},
        "A is in environment and in secretEnvironment",
    ),
    ({"image": IMAGE, "agent": {"protocol": "mcp-stdio"}}, "weft.mcp_stdio"),
    ({"image": IMAGE, "agent": {"labels": {"team": "a,b"}}}, "label 'team' has a comma"),
]


@pytest.mark.parametrize(("spec", "told"), WRONG + CONTRADICTIONS)
def test_what_is_wrong_is_told(spec: Any, told: str) -> None:
    with pytest.raises(InvalidResource) as caught:
        read_agent_deployment(document(spec), "agents.yaml")
    assert told in str(caught.value)
    assert "agents.yaml: AgentDeployment/summarizer" in str(caught.value)


@pytest.mark.parametrize(("spec", "told"), WRONG)
def test_the_cluster_refuses_by_itself_what_is_wrong_in_one_place(spec: Any, told: str) -> None:
    assert refusals(DEFINITION, document(spec)) != [], told


@pytest.mark.parametrize("spec", [{"image": IMAGE}, EVERYTHING], ids=["least", "everything"])
def test_the_cluster_takes_what_is_right(spec: Any) -> None:
    assert refusals(DEFINITION, document(spec)) == []


@pytest.mark.parametrize("name", ["llm", "Upper", "1st", "a.b", "", None, 5])
def test_names_are_those_that_agents_and_services_can_have(name: Any) -> None:
    with pytest.raises(InvalidResource, match=r"metadata\.name"):
        read_agent_deployment(document({"image": IMAGE}, name))


@pytest.mark.parametrize(
    ("text", "amount"),
    [("500m", Decimal("0.5")), (2, Decimal(2)), ("1.5", Decimal("1.5")), ("1k", 1000), ("2Gi", 2 * 1024**3)],
)
def test_quantities_are_kubernetes_own(text: int | str, amount: Decimal) -> None:
    assert quantity(text) == amount


@pytest.mark.parametrize("text", ["", "-1", "1 Gi", "1gi", "0x1", "1e3", "1Ki1", -1])
def test_what_is_no_quantity_is_refused(text: int | str) -> None:
    with pytest.raises(ValueError, match="no quantity"):
        quantity(text)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    other = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other"}, "data": {"a": "yes"}}
    listed = {"apiVersion": "v1", "kind": "List", "items": [document({"image": IMAGE}, "listed"), other]}
    file = tmp_path / "agents.yaml"
    file.write_text(yaml.safe_dump_all([document({"image": IMAGE}), other, listed]))
    return file


def test_the_command_writes_what_they_stand_for_and_all_else_as_it_was(
    manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["kubernetes", "expand", "-f", str(manifest)]) == 0
    *expanded, other, listed = yaml.safe_load_all(capsys.readouterr().out)
    assert expanded == list(agent_manifests(deployment()).documents)
    assert (other["kind"], other["data"]) == ("ConfigMap", {"a": "yes"})
    assert listed["kind"] == "List"
    assert [each["metadata"]["name"] for each in listed["items"]] == [*["listed"] * 5, "other"]


def test_the_command_writes_one_list_of_json(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["kubernetes", "expand", "-f", str(manifest), "-o", "json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["items"][:5] == list(agent_manifests(deployment()).documents)


def test_the_command_writes_nothing_where_one_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "agents.yaml"
    file.write_text(yaml.safe_dump_all([document({"image": IMAGE}), document({}, "other")]))
    assert run(["kubernetes", "expand", "-f", str(file)]) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert "AgentDeployment/other: spec.image: this field is required" in written.err


def test_the_page_shows_every_field_with_what_it_is_by_default() -> None:
    page = (Path(__file__).parents[3] / "docs" / "kubernetes.md").read_text()
    [shown] = [
        yaml.safe_load(part.partition("```")[0])
        for part in page.split("```yaml\n")
        if part.startswith("kind: AgentDeployment\n")
    ]
    read = read_agent_deployment(shown).spec
    fields = {field.alias: name for name, field in AgentDeploymentSpec.model_fields.items()}
    assert set(shown["spec"]) == set(fields)
    without_default = {"image", "pullPolicy", "user", "secretEnvironment", "agent"}
    usual = AgentDeploymentSpec.model_validate({"image": IMAGE})
    for alias in fields.keys() - without_default:
        assert getattr(read, fields[alias]) == getattr(usual, fields[alias]), alias
