"""Sidecars in pods: what is added, and what the sidecar and the agent make of it."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from tests.unit.kubernetes.pods import (
    SETTINGS,
    agent,
    environment_of,
    fields_of,
    injected,
    pod,
    reasons,
    sidecar,
)

from weft.controlplane.pods import AUDIENCE
from weft.kubernetes.edits import RECORD
from weft.kubernetes.injection import INJECTED, InjectionSettings, inject
from weft.kubernetes.sidecar_container import expanded
from weft.model.agent import Locality
from weft.model.node import Address, AgentProtocol, Inbound, Node
from weft.sidecar.arguments import parse_arguments
from weft.sidecar.program import environment
from weft.sidecar.settings import Consumption, EventIntake, SidecarSettings

FIELDS = fields_of("summarizer-7d9f-x2x9p", "10.1.2.3")


def understood(found: dict[str, Any]) -> SidecarSettings:
    """What the sidecar makes of its container, as the kubelet starts it."""
    container = sidecar(found)
    variables = environment_of(container, FIELDS)
    return parse_arguments([expanded(each, variables) for each in container["args"]], variables)


def test_the_sidecar_understands_how_it_is_started() -> None:
    settings = understood(injected(pod()).pod)
    assert (settings.type, settings.id) == ("summarizer", "summarizer-7d9f-x2x9p")
    assert settings.incarnation == "uid-of-summarizer-7d9f-x2x9p"
    assert (settings.bind_host, settings.inbound_port) == ("10.1.2.3", 7443)
    assert (settings.metrics_host, settings.metrics_port) == ("10.1.2.3", 7490)
    assert (settings.agent_port, settings.outbound_port) == (8080, 7480)
    assert settings.locality == Locality("north", "")
    assert settings.labels == {"namespace": "crew"}
    assert settings.command == ()
    assert settings.api_addresses == (Address("weft-control.weft-system.svc", 7400),)
    assert settings.service_account_token == Path("/var/run/weft/trust/token")
    assert not settings.join_token


def test_what_annotations_say_of_the_agent_reaches_the_sidecar() -> None:
    settings = understood(
        injected(
            pod(
                type="summarizer",
                capabilities="summarize, translate",
                labels="tier=gold,price=$(POD_UID)",
                version="1.2",
                weight="7",
                protocol="mcp",
                mcp_path="/tools",
                consume="reports=3,letters",
                subscribe="orders.*",
                subscribe_each="prices",
                event_format="mesh",
                health_path="/fit",
                health_interval="5",
                unhealthy_threshold="4",
                drain_timeout="90",
                trace_sampling="12.5",
                log_level="debug",
            )
        ).pod
    )
    assert settings.capabilities == {"summarize", "translate"}
    # Only what is ours to put there is put in by the kubelet.
    assert settings.labels == {"tier": "gold", "price": "$(POD_UID)", "namespace": "crew"}
    assert (settings.version, settings.weight, settings.protocol) == ("1.2", 7, AgentProtocol.MCP)
    assert settings.mcp_path == "/tools"
    assert settings.consumes == (Consumption("reports", 3), Consumption("letters"))
    assert settings.subscribes == (EventIntake("orders.*"), EventIntake("prices", every_instance=True))
    assert settings.event_format.value == "mesh"
    assert (settings.health.path, settings.health.interval) == ("/fit", 5.0)
    assert settings.health.unhealthy_threshold == 4
    assert (settings.drain_timeout, settings.trace_sampling) == (90.0, 12.5)
    assert settings.log_level == "debug"


def test_the_version_is_that_of_the_usual_label_where_nothing_else_is_said() -> None:
    found = pod()
    found["metadata"]["labels"]["app.kubernetes.io/version"] = "3.1"
    assert understood(injected(found).pod).version == "3.1"


@pytest.mark.parametrize(
    "own",
    [
        {},
        {"NO_PROXY": "db.internal", "OTEL_RESOURCE_ATTRIBUTES": "team=red"},
        {"OPENAI_API_KEY": "own", "WEFT_LLM_URL": "http://elsewhere/v1"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_SERVICE_NAME": "mine"},
        {"PORT": "8080", "COLOUR": "$$(red)"},
    ],
)
def test_the_agent_is_given_what_a_sidecar_gives_its_program(own: dict[str, str]) -> None:
    found = pod(version="2.0 beta")
    agent(found)["env"] = [{"name": name, "value": value} for name, value in own.items()]
    injection = injected(found)
    settings = understood(injection.pod)
    assert settings.type is not None
    # As `weft.sidecar.plan` makes it.
    node = Node(
        settings.id,
        Address("127.0.0.1", 7480),
        Inbound(
            settings.type, Address("10.1.2.3", 7443), Address("127.0.0.1", 8080), version=settings.version
        ),
        trace_sampling=settings.trace_sampling,
    )
    base = {name: expanded(value, {}) for name, value in own.items()}
    assert settings.identity_directory is not None
    expected = environment(base, node, settings.identity_directory, SETTINGS.trust_domain)
    assert environment_of(agent(injection.pod), FIELDS) == expected
    assert injection.problems == ()


def test_what_the_author_set_stays_and_is_told() -> None:
    found = pod()
    own = [
        {"name": "HTTP_PROXY", "value": "http://proxy.corp:3128"},
        {"name": "no_proxy", "valueFrom": {"configMapKeyRef": {"name": "net", "key": "direct"}}},
        {"name": "WEFT_TYPE", "value": "other"},
    ]
    agent(found)["env"] = deepcopy(own)
    injection = injected(found)
    entries = agent(injection.pod)["env"]
    assert entries[-3:] == own
    names = [each["name"] for each in entries]
    assert "http_proxy" not in names
    assert "NO_PROXY" not in names
    assert "HTTPS_PROXY" in names
    assert len(names) == len(set(names))
    assert reasons(injection) == ["VariableKept"] * 3


def test_variables_from_elsewhere_may_hold_a_key_for_models() -> None:
    found = pod()
    agent(found)["envFrom"] = [{"secretRef": {"name": "keys"}}]
    injection = injected(found)
    names = {each["name"] for each in agent(injection.pod)["env"]}
    assert "WEFT_LLM_URL" in names
    assert not names & {"OPENAI_API_KEY", "OPENAI_BASE_URL"}
    assert reasons(injection) == ["VariablesUnseen"]


def test_the_sidecar_is_the_first_to_start_and_goes_on() -> None:
    found = pod()
    found["spec"]["initContainers"] = [{"name": "migrate", "image": "example.test/migrate:1"}]
    injection = injected(found)
    assert [each["name"] for each in injection.pod["spec"]["initContainers"]] == ["weft-sidecar", "migrate"]
    assert sidecar(injection.pod)["restartPolicy"] == "Always"
    assert injection.problems == ()


def test_the_sidecar_has_no_privilege_and_limits_and_probes() -> None:
    container = sidecar(injected(pod()).pod)
    security = container["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    for kind in ("requests", "limits"):
        assert set(container["resources"][kind]) == {"cpu", "memory"}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == 7490
    assert not container["image"].endswith(":latest")
    assert ":" in container["image"]


def test_the_pod_proves_itself_by_a_token_for_the_mesh_and_knows_its_roots() -> None:
    found = injected(pod()).pod
    volumes = {each["name"]: each for each in found["spec"]["volumes"]}
    token, roots = volumes["weft-trust"]["projected"]["sources"]
    assert token["serviceAccountToken"] == {"audience": AUDIENCE, "expirationSeconds": 3600, "path": "token"}
    assert roots["configMap"]["name"] == "weft-roots"
    settings = understood(found)
    mounted = {each["name"]: each for each in sidecar(found)["volumeMounts"]}
    assert mounted["weft-trust"]["readOnly"] is True
    assert settings.trust_bundle == Path(mounted["weft-trust"]["mountPath"], "roots.pem")
    assert settings.runtime_parent == Path(mounted["weft-runtime"]["mountPath"])
    assert settings.identity_directory == Path(mounted["weft-identity"]["mountPath"])
    assert settings.drain_socket is not None
    assert settings.drain_socket.parent == settings.runtime_parent


def test_keys_lie_in_memory_and_the_agent_may_only_read_its_own() -> None:
    found = injected(pod()).pod
    volumes = {each["name"]: each for each in found["spec"]["volumes"]}
    for name in ("weft-runtime", "weft-identity"):
        assert volumes[name]["emptyDir"]["medium"] == "Memory"
        assert volumes[name]["emptyDir"]["sizeLimit"]
    [mount] = agent(found)["volumeMounts"]
    assert mount == {"name": "weft-identity", "mountPath": "/var/run/weft/identity", "readOnly": True}
    # Whoever its user is: the files are readable by a group that both have.
    assert understood(found).identity_group
    assert (
        sidecar(found)["securityContext"]["runAsGroup"]
        in found["spec"]["securityContext"]["supplementalGroups"]
    )


def test_probes_on_the_agents_port_are_made_by_the_sidecar() -> None:
    found = injected(pod()).pod
    liveness, readiness = agent(found)["livenessProbe"], agent(found)["readinessProbe"]
    assert liveness["httpGet"] == {"path": "/agent/probes/liveness", "port": 7490, "scheme": "HTTP"}
    assert (liveness["initialDelaySeconds"], liveness["periodSeconds"]) == (30, 10)
    assert readiness == {"httpGet": {"path": "/agent/probes/readiness", "port": 7490, "scheme": "HTTP"}}
    assert understood(found).probes == {"liveness": "/health", "readiness": ""}


@pytest.mark.parametrize(
    "probe",
    [
        {"exec": {"command": ["true"]}},
        {"httpGet": {"path": "/health", "port": 9090}},
        {"httpGet": {"path": "/health", "port": "admin"}},
        {"httpGet": {"path": "/health", "port": 8080, "scheme": "HTTPS"}},
        {"httpGet": {"path": "/health", "port": 8080, "host": "example.test"}},
    ],
)
def test_probes_that_ask_elsewhere_stay(probe: dict[str, Any]) -> None:
    found = pod()
    agent(found)["livenessProbe"] = deepcopy(probe)
    injection = injected(found)
    assert agent(injection.pod)["livenessProbe"] == probe
    assert injection.problems == ()


@pytest.mark.parametrize(
    "probe",
    [
        {"grpc": {"port": 8080}},
        {"httpGet": {"path": "/", "port": 8080, "httpHeaders": [{"name": "X-Key", "value": "1"}]}},
    ],
)
def test_probes_that_the_sidecar_cannot_make_stay_and_are_told(probe: dict[str, Any]) -> None:
    found = pod()
    agent(found)["livenessProbe"] = deepcopy(probe)
    injection = injected(found)
    assert agent(injection.pod)["livenessProbe"] == probe
    assert reasons(injection) == ["ProbeKept"]


def test_the_agent_is_stopped_when_it_has_no_call_in_flight_any_more() -> None:
    found = injected(pod(drain_timeout="90")).pod
    assert agent(found)["lifecycle"]["preStop"]["httpGet"] == {
        "path": "/drained",
        "port": 7490,
        "scheme": "HTTP",
    }
    hook = sidecar(found)["lifecycle"]["preStop"]["exec"]["command"]
    assert hook[-2:] == ["weft.sidecar.drain_hook", str(understood(found).drain_socket)]
    settings = understood(found)
    needed = settings.drain_grace + settings.drain_timeout + settings.stop_timeout
    assert found["spec"]["terminationGracePeriodSeconds"] > needed


def test_a_hook_of_the_agents_own_stays_and_time_is_only_added() -> None:
    found = pod()
    agent(found)["lifecycle"] = {"preStop": {"sleep": {"seconds": 20}}}
    found["spec"]["terminationGracePeriodSeconds"] = 10
    injection = injected(found)
    assert agent(injection.pod)["lifecycle"] == {"preStop": {"sleep": {"seconds": 20}}}
    assert injection.pod["spec"]["terminationGracePeriodSeconds"] == 46
    assert sorted(reasons(injection)) == ["GracePeriodRaised", "HookKept"]
    found["spec"]["terminationGracePeriodSeconds"] = 600
    assert injected(found).pod["spec"]["terminationGracePeriodSeconds"] == 600


def test_pods_are_found_by_prometheus_and_by_label_unless_their_author_said_otherwise() -> None:
    found = pod()
    metadata = injected(found).pod["metadata"]
    assert metadata["labels"] == {"app": "summarizer", "weft.dev/agent": "summarizer"}
    assert metadata["annotations"]["prometheus.io/port"] == "7490"
    found["metadata"]["annotations"] = {"prometheus.io/scrape": "false"}
    annotations = injected(found).pod["metadata"]["annotations"]
    assert annotations["prometheus.io/scrape"] == "false"
    assert "prometheus.io/port" not in annotations


def test_other_containers_are_left_as_they_are() -> None:
    found = pod(container="agent")
    other = {"name": "logs", "image": "example.test/logs:1", "ports": [{"containerPort": 9000}]}
    found["spec"]["containers"].insert(0, deepcopy(other))
    assert injected(found).pod["spec"]["containers"][0] == other


@pytest.mark.parametrize(
    ("container", "annotations", "port"),
    [
        ({}, {}, 8080),
        ({"ports": [{"containerPort": 9000}]}, {}, 9000),
        ({"ports": [{"containerPort": 1}, {"name": "http", "containerPort": 9000}]}, {}, 9000),
        ({"ports": [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 9000}]}, {}, 9000),
        ({"ports": [{"containerPort": 9000}], "env": [{"name": "PORT", "value": "9001"}]}, {}, 9001),
        ({"ports": [{"containerPort": 9000}]}, {"port": "9002"}, 9002),
    ],
)
def test_the_agents_port_is_found(container: dict[str, Any], annotations: dict[str, str], port: int) -> None:
    found = pod(**annotations)
    found["spec"]["containers"] = [{"name": "agent", "image": "example.test/a:1", **container}]
    injection = injected(found)
    assert understood(injection.pod).agent_port == port
    assert environment_of(agent(injection.pod), FIELDS)["PORT"] == str(port)


AUTHORS: tuple[dict[str, Any], ...] = (
    {},
    {"metadata": {}},
    {"spec.terminationGracePeriodSeconds": 10},
    {"spec.securityContext": {"supplementalGroups": [7]}},
    {"spec.volumes": [{"name": "data", "emptyDir": {}}]},
    {"agent.env": [{"name": "NO_PROXY", "value": "a"}, {"name": "B", "value": "b"}]},
    {"agent.lifecycle": {"postStart": {"sleep": {"seconds": 1}}}},
    {"spec.initContainers": [{"name": "one", "image": "example.test/one:1"}]},
)


def _with(changes: dict[str, Any]) -> dict[str, Any]:
    found = pod()
    for path, value in changes.items():
        holder, _, field = path.rpartition(".")
        place = {"": found, "spec": found["spec"], "agent": agent(found)}[holder]
        place[field] = deepcopy(value)
    return found


@pytest.mark.parametrize("changes", AUTHORS)
def test_injected_twice_is_injected_once(changes: dict[str, Any]) -> None:
    found = _with(changes)
    before = deepcopy(found)
    once = injected(found)
    assert found == before
    again = injected(once.pod)
    assert again.pod == once.pod
    assert json.dumps(again.pod) == json.dumps(once.pod)
    assert again.problems == once.problems


@pytest.mark.parametrize("changes", AUTHORS)
def test_an_older_sidecar_is_replaced_whatever_it_was_like(changes: dict[str, Any]) -> None:
    older = InjectionSettings(
        image="weft:0.0.1", inbound_port=7001, metrics_port=7002, outbound_port=7003, directory="/weft"
    )
    found = _with(changes)
    assert injected(injected(found, older).pod).pod == injected(found).pod


def test_what_its_author_changed_since_stays() -> None:
    found = injected(pod()).pod
    agent(found)["image"] = "example.test/summarizer:2"
    agent(found)["readinessProbe"] = {"httpGet": {"path": "/fit", "port": "http"}}
    found["spec"]["terminationGracePeriodSeconds"] = 300
    found["metadata"]["annotations"]["weft.dev/capabilities"] = "summarize"
    again = injected(found).pod
    assert agent(again)["image"] == "example.test/summarizer:2"
    assert understood(again).probes == {"liveness": "/health", "readiness": "/fit"}
    assert understood(again).capabilities == {"summarize"}
    assert again["spec"]["terminationGracePeriodSeconds"] == 300


def test_who_does_not_want_a_sidecar_gets_none() -> None:
    found = pod(inject="false")
    found["spec"]["hostNetwork"] = True
    injection = inject(found, SETTINGS)
    assert (injection.pod, injection.problems, injection.injected) == (found, (), False)
    assert INJECTED not in found["metadata"]["annotations"]
    assert RECORD not in found["metadata"]["annotations"]
