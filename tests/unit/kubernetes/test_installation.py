"""An installation as documents: what its values change, and what holds for every pod whatever they say."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cyclopts import CycloptsError
from tests.kubernetes_documents import Document

from weft.cli.main import make_app, run
from weft.controlplane.settings import ControlPlaneSettings
from weft.errors import InvalidRequest, InvalidResource
from weft.kubernetes.first_keys import first_keys, nats_hosts
from weft.kubernetes.installation import installation
from weft.kubernetes.installation.assembly import namespace_document
from weft.kubernetes.installation_values import FIXED_SETTINGS, InstallationValues, read_values
from weft.kubernetes.sidecar_container import expanded
from weft.sidecar.arguments import parse_arguments

GATEWAY: Document = {"gateways": {"public": {}}}
EVERYTHING: Document = {
    "image": {
        "registry": "registry.example:5000/team",
        "digest": "sha256:" + "0" * 64,
        "pullPolicy": "Always",
        "pullSecrets": ["registry"],
    },
    "trustDomain": "agents.example",
    "clusterDomain": "cluster.example",
    "logLevel": "debug",
    "antiAffinity": "required",
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "agents", "operator": "Exists", "effect": "NoSchedule"}],
    "priorityClassName": "system-cluster-critical",
    "nats": {"replicas": 5, "storage": {"size": "50Gi", "className": "fast", "most": "40Gi"}},
    "control": {
        "replicas": 5,
        "filesSecret": "collector",
        "settings": {
            "WEFT_CONTROL_OTLP_ENDPOINT": "https://collector:4318",
            "WEFT_CONTROL_OTLP_HEADERS_FILE": "/etc/weft/files/headers",
        },
    },
    "controller": {"replicas": 3, "secretsIn": ["agents", "tools"]},
    "gateways": {
        "public": {
            "tlsSecret": "public-tls",
            "replicas": {"least": 2, "most": 2},
            "service": {"type": "NodePort", "port": 443, "annotations": {"cloud.example/scheme": "internal"}},
        },
        "partners": {"cpuPercent": 50},
    },
    "networkPolicies": {"clients": [{"podSelector": {}}], "metrics": [], "callers": [{"podSelector": {}}]},
    "monitoring": {
        "serviceMonitor": {"enabled": True, "interval": "30s", "labels": {"release": "main"}},
        "rules": {"enabled": True},
        "dashboard": {"enabled": True},
    },
}
LITTLE: Document = {
    "nats": {"replicas": 1},
    "control": {"replicas": 1},
    "controller": {"enabled": False},
    "webhook": {"enabled": False},
    "bootstrap": {"enabled": False},
    "networkPolicies": {"enabled": False},
    "monitoring": {"annotations": False},
}
TOO_MUCH: Document = {"requests": {"cpu": 3, "memory": "1Gi"}, "limits": {"cpu": 2, "memory": "1Gi"}}
VALUES = pytest.mark.parametrize(
    "values", [{}, GATEWAY, EVERYTHING, LITTLE], ids=["defaults", "gateway", "everything", "little"]
)
OF_OTHERS = {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
"""Kinds of which Kubernetes itself has no schema."""


def made(values: Document, **names: str) -> list[Document]:
    return installation(read_values(values), **names)


def one(documents: list[Document], kind: str, name: str) -> Document:
    [found] = [each for each in documents if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def pods(documents: list[Document]) -> Iterator[Document]:
    """The template of the pods of every workload."""
    for each in documents:
        if each["kind"] in {"Deployment", "StatefulSet", "Job"}:
            yield each["spec"]["template"]


def containers(documents: list[Document]) -> Iterator[Document]:
    for each in pods(documents):
        yield from each["spec"]["containers"]


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
@VALUES
def test_every_document_is_one_of_kubernetes(values: Document, version: str) -> None:
    for each in [namespace_document(), *made(values)]:
        if each["kind"] not in OF_OTHERS:
            kubernetes_validate.validate(each, version, strict=True)


@VALUES
def test_every_object_is_there_once_and_its_name_begins_with_the_installations(values: Document) -> None:
    documents = made(values, name="other", namespace="elsewhere")
    named = [
        (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in documents
    ]
    assert len({*named}) == len(named)
    accounts = {*values.get("gateways", {})}
    assert [each for each in named if not each[2].startswith("other-") and each[2] not in accounts] == []
    assert {each[1] for each in named} <= {"elsewhere", None, "agents", "tools"}


@VALUES
def test_nothing_of_another_installation_is_named(values: Document) -> None:
    documents = json.dumps(made(values, name="other", namespace="elsewhere"))
    assert "weft-system" not in documents
    for part in ("nats", "control", "controller", "webhook", "roots", "sealing-key", "operator-token"):
        assert f"weft-{part}" not in documents


@VALUES
def test_every_pod_is_restricted(values: Document) -> None:
    documents = made(values)
    assert [*pods(documents)]
    for each in pods(documents):
        spec = each["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & spec.keys()
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["fsGroup"] == 65532
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        kinds = {kind for volume in spec["volumes"] for kind in volume.keys() - {"name"}}
        assert kinds <= {"secret", "configMap", "projected", "emptyDir"}
    for each in containers(documents):
        security = each["securityContext"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["allowPrivilegeEscalation"] is security["privileged"] is False
        assert security["readOnlyRootFilesystem"] is True


@VALUES
def test_every_container_has_limits_a_fixed_image_and_what_goes_on_has_probes(values: Document) -> None:
    documents = made(values)
    for each in containers(documents):
        for amounts in (each["resources"]["requests"], each["resources"]["limits"]):
            assert {*amounts} == {"cpu", "memory"}
        assert ":latest" not in each["image"]
        assert "@sha256:" in each["image"] or ":" in each["image"].rpartition("/")[2]
    for each in pods([each for each in documents if each["kind"] != "Job"]):
        for container in each["spec"]["containers"]:
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()


@VALUES
def test_what_is_mounted_is_there_and_what_is_there_is_mounted(values: Document) -> None:
    for each in made(values):
        if each["kind"] not in {"Deployment", "StatefulSet", "Job"}:
            continue
        spec = each["spec"]["template"]["spec"]
        claims = {claim["metadata"]["name"] for claim in each["spec"].get("volumeClaimTemplates", [])}
        volumes = {volume["name"] for volume in spec["volumes"]} | claims
        assert volumes == {
            mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]
        }


def test_what_is_mounted_of_secrets_is_what_bootstrap_puts_into_them() -> None:
    secrets = {each["metadata"]["name"]: {*each["data"]} for each in first_keys("weft", "weft-system")}
    for template in pods(made({})):
        for volume in template["spec"]["volumes"]:
            if "secret" in volume:
                keys = {each["key"] for each in volume["secret"]["items"]}
                assert keys <= secrets[volume["secret"]["secretName"]]


def test_nobody_has_keys_that_are_not_his() -> None:
    def keys(kind: str, name: str) -> set[str]:
        template = one(made({}), kind, name)["spec"]["template"]
        [items] = [each["secret"]["items"] for each in template["spec"]["volumes"] if each["name"] == "keys"]
        return {each["key"] for each in items}

    assert not keys("StatefulSet", "weft-nats") & {"issuer.seed", "control.seed", "control.pem"}
    assert "server.key" not in keys("Deployment", "weft-control")


def test_pods_that_ask_the_cluster_nothing_have_no_token_of_it() -> None:
    documents = made(GATEWAY)
    with_token = {
        each["metadata"]["name"]
        for each in documents
        if each["kind"] in {"Deployment", "StatefulSet"}
        and each["spec"]["template"]["spec"]["automountServiceAccountToken"]
    }
    assert with_token == {"weft-control", "weft-controller", "weft-webhook"}


def test_each_right_is_somebodys_and_none_is_to_everything() -> None:
    documents = made(EVERYTHING)
    for each in documents:
        for rule in each.get("rules", []):
            assert "*" not in rule["verbs"]
            assert "*" not in rule["apiGroups"]
            assert rule["resources"] != ["*"] or rule["apiGroups"] == ["weft.dev"]
    secrets = [
        (each["kind"], each["metadata"]["name"], rule["verbs"])
        for each in documents
        for rule in each.get("rules", [])
        if "secrets" in rule["resources"] and "" in rule["apiGroups"]
    ]
    assert secrets == [
        ("Role", "weft-bootstrap", ["create"]),
        ("ClusterRole", "weft-controller-secrets", ["get"]),
    ]
    roles = {each["metadata"]["name"] for each in documents if each["kind"] in {"Role", "ClusterRole"}}
    bound = {
        each["roleRef"]["name"] for each in documents if each["kind"] in {"RoleBinding", "ClusterRoleBinding"}
    }
    assert roles == bound


def test_secrets_are_read_where_it_was_said_and_nowhere_else() -> None:
    def bindings(*namespaces: str) -> list[Any]:
        return [
            (each["kind"], each["metadata"].get("namespace"))
            for each in made({"controller": {"secretsIn": [*namespaces]}})
            if each["metadata"]["name"] == "weft-controller-secrets" and each["kind"].endswith("Binding")
        ]

    assert bindings() == []
    assert bindings("agents", "tools") == [("RoleBinding", "agents"), ("RoleBinding", "tools")]
    assert bindings("*") == [("ClusterRoleBinding", None)]


def test_an_account_is_bound_in_the_namespace_in_which_it_is() -> None:
    documents = made(EVERYTHING, namespace="elsewhere")
    accounts = {each["metadata"]["name"] for each in documents if each["kind"] == "ServiceAccount"}
    for each in documents:
        for subject in each.get("subjects", []):
            assert subject["namespace"] == "elsewhere"
            assert subject["name"] in accounts
    for template in pods(documents):
        assert template["spec"]["serviceAccountName"] in accounts


@VALUES
def test_services_policies_and_budgets_select_pods_that_there_are(values: Document) -> None:
    documents = made(values)
    labels = [template["metadata"]["labels"] for template in pods(documents)]

    def chosen(selector: Document) -> int:
        return sum(selector.items() <= each.items() for each in labels)

    for each in documents:
        spec = each.get("spec", {})
        match each["kind"]:
            case "Service":
                assert chosen(spec["selector"]) == 1, each["metadata"]["name"]
            case "NetworkPolicy":
                assert chosen(spec["podSelector"]["matchLabels"]) == 1, each["metadata"]["name"]
            case "PodDisruptionBudget" | "Deployment" | "StatefulSet":
                assert chosen(spec["selector"]["matchLabels"]) == 1, each["metadata"]["name"]


@VALUES
def test_ports_of_services_probes_and_policies_are_ports_of_containers(values: Document) -> None:
    documents = made(values)
    by_labels = [
        (
            each["metadata"]["labels"],
            {
                port["name"]: port["containerPort"]
                for one in each["spec"]["containers"]
                for port in one.get("ports", [])
            },
        )
        for each in pods(documents)
    ]

    def ports(selector: Document) -> dict[str, int]:
        [found] = [ports for labels, ports in by_labels if selector.items() <= labels.items()]
        return found

    for each in documents:
        if each["kind"] == "Service":
            targets = {port["targetPort"] for port in each["spec"]["ports"]}
            assert targets <= {*ports(each["spec"]["selector"])}
        if each["kind"] == "NetworkPolicy":
            let_in = {port["port"] for rule in each["spec"]["ingress"] for port in rule["ports"]}
            assert let_in <= {*ports(each["spec"]["podSelector"]["matchLabels"]).values()}
    for container in containers(documents):
        own = {port["containerPort"] for port in container.get("ports", [])}
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            if name in container:
                assert container[name]["httpGet"]["port"] in own


def test_who_is_let_in_by_nobodys_name_is_nobody() -> None:
    policies: Document = {"clients": [], "metrics": [], "callers": []}
    for each in made({**GATEWAY, "networkPolicies": policies}):
        if each["kind"] == "NetworkPolicy":
            rules = each["spec"]["ingress"]
            assert all(rule.get("from") for rule in rules) or each["metadata"]["name"] == "weft-webhook"


def test_roots_that_were_published_are_not_taken_away_again() -> None:
    assert {*one(made({}), "ConfigMap", "weft-roots")} == {"apiVersion", "kind", "metadata"}


def test_configurations_of_webhooks_leave_the_authority_to_the_process_and_hold_up_nobody() -> None:
    for kind, name in (
        ("MutatingWebhookConfiguration", "weft-injector"),
        ("ValidatingWebhookConfiguration", "weft-validator"),
    ):
        [webhook] = one(made({}), kind, name)["webhooks"]
        assert "caBundle" not in webhook["clientConfig"]
        assert webhook["failurePolicy"] == "Ignore"
        assert webhook["timeoutSeconds"] <= 5
        assert webhook["sideEffects"] == "None"
    [injector] = one(made({}), "MutatingWebhookConfiguration", "weft-injector")["webhooks"]
    assert injector["namespaceSelector"]["matchLabels"] == {"weft.dev/injection": "enabled"}


def environment(container: Document, **fields: str) -> dict[str, str]:
    """A container's variables as a kubelet makes them; those of the pod are in `fields`."""
    found = dict(fields)
    for each in container["env"]:
        if "value" in each:
            found[each["name"]] = expanded(each["value"], found)
    return found


POD = {"POD_NAME": "weft-control-5d4-x", "POD_NAMESPACE": "weft-system", "POD_IP": "10.1.2.3", "POD_UID": "1"}


def test_the_control_plane_understands_what_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    template = one(made(EVERYTHING), "Deployment", "weft-control")["spec"]["template"]
    variables = environment(template["spec"]["containers"][0], **POD)
    named = {name for name in variables if name.startswith("WEFT_CONTROL_")}
    assert named <= {f"WEFT_CONTROL_{name.upper()}" for name in ControlPlaneSettings.model_fields}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = ControlPlaneSettings()
    assert len(settings.nats) == 5
    assert settings.nats[0] == "tls://weft-nats-0.weft-nats.weft-system.svc:4222"
    assert settings.advertise_xds == "10.1.2.3:7401"
    assert settings.replica == "weft-control-5d4-x"
    assert settings.sealing_key == "env:SEALING_KEY"
    assert settings.dashboard_host == "127.0.0.1"
    assert settings.otlp_endpoint == "https://collector:4318"
    assert settings.service_account_review
    assert settings.nats_replicas == 3


def test_what_the_installation_sets_is_what_nobody_else_may() -> None:
    template = one(made({}), "Deployment", "weft-control")["spec"]["template"]
    set_here = {each["name"] for each in template["spec"]["containers"][0]["env"]}
    assert {each for each in set_here if each.startswith("WEFT_CONTROL_")} <= FIXED_SETTINGS
    known = {f"WEFT_CONTROL_{name.upper()}" for name in ControlPlaneSettings.model_fields}
    assert known >= FIXED_SETTINGS
    for name in FIXED_SETTINGS:
        with pytest.raises(InvalidResource, match=f"control.settings.{name} is the installation's own"):
            read_values({"control": {"settings": {name: "x"}}})


def test_nats_is_called_by_names_that_its_certificate_has() -> None:
    hosts = nats_hosts("weft", "weft-system")
    container = one(made({}), "Deployment", "weft-control")["spec"]["template"]["spec"]["containers"][0]
    for url in json.loads(environment(container)["WEFT_CONTROL_NATS"]):
        host = url.removeprefix("tls://").partition(":")[0]
        assert host in hosts or f"*.{host.partition('.')[2]}" in hosts


def test_a_gateways_sidecar_understands_what_it_is_told() -> None:
    template = one(made(EVERYTHING), "Deployment", "weft-gateway-public")["spec"]["template"]
    [container] = template["spec"]["containers"]
    settings = parse_arguments([expanded(each, POD) for each in container["args"]], {})
    assert settings.type == template["spec"]["serviceAccountName"] == "public"
    assert settings.command == ("python", "-P", "-m", "weft.gateway")
    assert str(settings.outside) == "0.0.0.0:8080"
    assert settings.incarnation == "1"
    assert container["readinessProbe"]["httpGet"] == {"path": "/ready", "port": 8080, "scheme": "HTTPS"}
    least = settings.drain_timeout + settings.stop_timeout
    assert template["spec"]["terminationGracePeriodSeconds"] > least + settings.drain_grace


def test_a_gateway_has_an_autoscaler_where_there_is_something_to_choose() -> None:
    documents = made(EVERYTHING)
    scaled = [each["metadata"]["name"] for each in documents if each["kind"] == "HorizontalPodAutoscaler"]
    assert scaled == ["weft-gateway-partners"]
    assert one(documents, "Deployment", "weft-gateway-public")["spec"]["replicas"] == 2
    assert "replicas" not in one(documents, "Deployment", "weft-gateway-partners")["spec"]
    metrics = one(documents, "HorizontalPodAutoscaler", "weft-gateway-partners")["spec"]["metrics"]
    assert metrics[0]["containerResource"]["target"] == {"type": "Utilization", "averageUtilization": 50}


def test_one_nats_server_has_no_peers_and_no_copies() -> None:
    documents = made(LITTLE)
    [server] = one(documents, "StatefulSet", "weft-nats")["spec"]["template"]["spec"]["containers"]
    assert [each for each in server["args"] if each.startswith("--peer")] == []
    container = one(documents, "Deployment", "weft-control")["spec"]["template"]["spec"]["containers"][0]
    assert environment(container)["WEFT_CONTROL_NATS_REPLICAS"] == "1"
    assert not [each for each in documents if each["kind"] == "PodDisruptionBudget"]


def test_pods_that_must_be_on_nodes_of_their_own_make_room_before_the_next_comes() -> None:
    for wanted, surge, away in (("preferred", 1, 0), ("required", 0, 1)):
        document = one(made({"antiAffinity": wanted}), "Deployment", "weft-control")
        rolling = document["spec"]["strategy"]["rollingUpdate"]
        assert (rolling["maxSurge"], rolling["maxUnavailable"]) == (surge, away)
        affinity = document["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"]
        required = "requiredDuringSchedulingIgnoredDuringExecution" in affinity
        assert required is (wanted == "required")


def test_another_image_is_another_job_and_the_same_one_is_the_same() -> None:
    def job(**image: str) -> str:
        [found] = [each for each in made({"image": image}) if each["kind"] == "Job"]
        return str(found["metadata"]["name"])

    assert job() == job(pullPolicy="Always")
    assert job() != job(tag="0.0.1")


@pytest.mark.parametrize(
    ("image", "shown"),
    [
        ({"tag": "1.2"}, "weft:1.2"),
        ({"registry": "registry.example/team", "tag": "1.2"}, "registry.example/team/weft:1.2"),
        ({"repository": "mesh/weft", "digest": "sha256:" + "a" * 64}, "mesh/weft@sha256:" + "a" * 64),
    ],
)
def test_the_image_is_named_as_nodes_read_it(image: Document, shown: str) -> None:
    assert {each["image"] for each in containers(made({"image": image}))} == {shown}


@pytest.mark.parametrize(
    ("values", "field", "text"),
    [
        ({"image": {"tag": "latest"}}, "image", "another image tomorrow"),
        ({"image": {"digest": "sha256:0"}}, "image.digest", "must match pattern"),
        ({"nats": {"replicas": 2}}, "nats.replicas", "must be 1, 3 or 5"),
        ({"nats": {"storage": {"most": "20Gi"}}}, "nats.storage", "above the volume's size"),
        ({"nats": {"storage": {"size": "ten"}}}, "nats.storage.size", "is no quantity"),
        ({"contol": {}}, "contol", "did you mean 'control'"),
        ({"gateways": {"control": {}}}, "gateways.control", "is reserved"),
        ({"gateways": {"default": {}}}, "gateways", "every namespace has an account of that name"),
        ({"gateways": {"a": {"replicas": {"least": 3, "most": 2}}}}, "gateways.a.replicas", "is above most"),
        ({"control": {"resources": TOO_MUCH}}, "control.resources", "the request for cpu (3) is above"),
        ({"control": None}, "control", "must be a mapping"),
    ],
)
def test_values_that_make_no_sense_are_refused_by_their_path(values: Document, field: str, text: str) -> None:
    with pytest.raises(InvalidResource) as refused:
        read_values(values)
    [problem] = refused.value.problems
    assert (problem.field or problem.message).startswith(field)
    assert text in problem.message


@pytest.mark.parametrize(
    ("name", "namespace"),
    [("Weft", "mesh"), ("1weft", "mesh"), ("w" * 25, "mesh"), ("weft", "a.b"), ("weft", "")],
)
def test_names_that_are_none_are_refused(name: str, namespace: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be"):
        installation(name=name, namespace=namespace)


def test_a_gateway_cannot_take_the_account_of_a_part() -> None:
    with pytest.raises(InvalidRequest, match="gateway 'weft-nats' would have the service account"):
        made({"gateways": {"weft-nats": {}}})


def test_values_go_over_the_defaults_however_few_they_are() -> None:
    given: Document = {"resources": {"limits": {"cpu": "4"}}}
    found = read_values({"control": given, "gateways": {"public": given}})
    for values in (found.control, found.gateways["public"]):
        assert values.resources.limits.cpu == "4"
        assert values.resources.requests.cpu == "500m"
    assert found.control.resources.limits.memory == "2Gi"


def test_all_defaults_are_values_again() -> None:
    shown = json.loads(InstallationValues().model_dump_json(by_alias=True))
    assert read_values(shown) == InstallationValues()


def test_render_writes_the_namespace_then_the_definitions_then_the_installation(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["kubernetes", "render", "--set", "gateways.public={}", "--namespace", "mesh"]) == 0
    documents = [*yaml.safe_load_all(capsys.readouterr().out)]
    assert documents[0] == namespace_document("mesh")
    assert documents[1]["kind"] == "CustomResourceDefinition"
    rest = [each for each in documents[1:] if each["kind"] != "CustomResourceDefinition"]
    assert rest == made(GATEWAY, namespace="mesh")


@VALUES
def test_every_command_is_one_that_weft_has_with_these_options(values: Document) -> None:
    seen = set()
    for each in containers(made(values)):
        if each["command"][0] == "weft":
            tokens = [expanded(token, POD) for token in (*each["command"][1:], *each.get("args", []))]
            command, bound, _ = make_app().parse_args(tokens, print_error=False, exit_on_error=False)
            assert callable(command)
            seen.add((*each["command"], bool(bound.arguments)))
        else:
            assert each["command"][:3] == ["python", "-P", "-m"]
            assert importlib.util.find_spec(each["command"][3]) is not None
    assert ("weft", "kubernetes", "nats", True) in seen


def test_what_is_told_to_no_command_is_refused() -> None:
    """Or the test before would tell nothing."""
    with pytest.raises(CycloptsError):
        make_app().parse_args(["kubernetes", "nats", "--nonsense=1"], print_error=False, exit_on_error=False)
