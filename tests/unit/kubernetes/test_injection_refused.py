"""Pods that cannot have a sidecar: each is told why, and what to do."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from typing import Any

import pytest
from tests.unit.kubernetes.pods import SETTINGS, agent, injected, pod, reasons

from weft.errors import InvalidRequest
from weft.kubernetes.edits import RECORD
from weft.kubernetes.injection import InjectionSettings, inject


def _in_spec(**fields: Any) -> dict[str, Any]:
    found = pod()
    found["spec"] |= fields
    return found


def _in_agent(**fields: Any) -> dict[str, Any]:
    found = pod()
    agent(found).update(fields)
    return found


def _beside(**container: Any) -> dict[str, Any]:
    found = pod()
    found["spec"]["containers"].append(container)
    return found


REFUSED = [
    ("NoServiceAccount", _in_spec(serviceAccountName=""), "set serviceAccountName"),
    ("NoServiceAccount", _in_spec(serviceAccountName="default"), "create a ServiceAccount"),
    ("InvalidType", _in_spec(serviceAccountName="team.summarizer"), "team.summarizer"),
    ("InvalidType", _in_spec(serviceAccountName="control"), "reserved"),
    ("TypeNotServiceAccount", pod(type="other"), "name them the same"),
    ("HostNetwork", _in_spec(hostNetwork=True), "remove hostNetwork"),
    ("WindowsNode", _in_spec(os={"name": "windows"}), "run the agent on Linux"),
    ("WindowsNode", _in_spec(nodeSelector={"kubernetes.io/os": "windows"}), "Linux"),
    ("OtherProxy", _beside(name="envoy", image="example.test/own:1"), "remove it"),
    ("OtherProxy", _beside(name="front", image="registry.test:5000/x/envoy-alpine:v1@sha256:0"), "front"),
    ("OtherProxy", _in_spec(initContainers=[{"name": "istio-proxy", "image": "a/proxyv2:1"}]), "istio.io"),
    ("PortTaken", _beside(name="other", ports=[{"containerPort": 7443}]), "7443"),
    ("PortTaken", pod(port="7480"), "choose another"),
    ("PortsDiffer", _in_agent(env=[{"name": "PORT", "value": "9"}]) | pod(port="8"), "leave one"),
    ("PortUnclear", _in_agent(ports=[{"containerPort": 1}, {"containerPort": 2}]), "weft.dev/port"),
    ("InvalidPort", pod(port="http"), "1 to 65535"),
    ("NoSuchContainer", pod(container="other"), "agent"),
    ("UnknownAnnotation", pod(capability="x"), "capabilities"),
    ("InvalidAnnotation", pod(weight="heavy"), "not a number"),
    ("InvalidAnnotation", pod(weight="5000"), "1000"),
    ("InvalidAnnotation", pod(protocol="soap"), "protocol"),
    ("InvalidAnnotation", pod(capabilities="Not A Name"), "Not A Name"),
    ("InvalidAnnotation", pod(labels="nothing"), "NAME=VALUE"),
    ("InvalidAnnotation", pod(health_path="x" * 20_000), "longer"),
    ("ProtocolImpossible", pod(protocol="mcp-stdio"), "weft.mcp_stdio"),
    ("NameTaken", _in_spec(volumes=[{"name": "weft-trust", "emptyDir": {}}]), "another name"),
    ("NameTaken", _in_spec(initContainers=[{"name": "weft-sidecar", "image": "a:1"}]), "another name"),
]


@pytest.mark.parametrize(("reason", "found", "words"), REFUSED)
def test_a_pod_without_a_place_for_a_sidecar_is_refused(
    reason: str, found: dict[str, Any], words: str
) -> None:
    if reason == "PortsDiffer":
        agent(found)["env"] = [{"name": "PORT", "value": "9"}]
    before = deepcopy(found)
    injection = inject(found, SETTINGS)
    assert injection.refused
    assert not injection.injected
    [problem] = injection.problems
    assert problem.reason == reason
    assert re.fullmatch("[A-Z][A-Za-z]+", reason)
    assert words in problem.message
    assert injection.pod == before


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"spec": None},
        {"spec": {"containers": []}},
        {"spec": {"containers": ["agent"]}},
        {"spec": {"containers": [{"image": "a"}]}},
        {"spec": {"containers": [{"name": "a", "env": [{"value": "x"}]}]}},
        {"spec": {"containers": [{"name": "a", "ports": "80"}]}},
        {"spec": {"containers": [{"name": "a", "livenessProbe": {"httpGet": "/"}}]}},
        {"spec": {"containers": [{"name": "a"}], "terminationGracePeriodSeconds": "10"}},
        {"spec": {"containers": [{"name": "a"}], "securityContext": {"supplementalGroups": 1}}},
        {"metadata": {"annotations": {"weft.dev/port": 80}}, "spec": {"containers": [{"name": "a"}]}},
        {"metadata": [], "spec": {"containers": [{"name": "a"}]}},
    ],
)
def test_what_is_no_pod_is_refused(found: Any) -> None:
    assert reasons(inject(found, SETTINGS)) == ["InvalidPod"]


@pytest.mark.parametrize("record", ["", "{", "[1]", '[{"at":"spec"}]', '[{"at":["spec"]}]', "[" * 100_000])
def test_a_record_that_was_changed_is_refused(record: str) -> None:
    found = injected(pod()).pod
    found["metadata"]["annotations"][RECORD] = record
    assert reasons(inject(found, SETTINGS)) == ["RecordBroken"]
    del found["metadata"]["annotations"][RECORD]
    assert reasons(inject(found, SETTINGS)) == ["RecordBroken"]


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        ({"at": ["metadata", "namespace"], "was": "kube-system"}, "RecordBroken"),
        ({"at": ["metadata", "annotations"], "was": "none"}, "RecordBroken"),
        ({"at": ["metadata", "labels", "a"], "was": 3}, "InvalidPod"),
        ({"at": ["spec", "containers"]}, "InvalidPod"),
        ({"at": ["spec", "containers", "agent"], "was": 5}, "InvalidPod"),
        ({"at": ["spec", "containers", "agent", "env"], "was": [7]}, "InvalidPod"),
        ({"at": ["spec", "securityContext"], "was": 7}, "InvalidPod"),
    ],
)
def test_a_record_that_makes_something_else_of_a_pod_is_refused(edit: dict[str, Any], reason: str) -> None:
    found = pod()
    found["metadata"]["annotations"] = {RECORD: json.dumps([edit])}
    assert reasons(inject(found, SETTINGS)) == [reason]


def test_a_record_that_is_too_deep_to_be_copied_is_refused() -> None:
    found = pod()
    deep = "[" * 400 + "]" * 400
    found["metadata"]["annotations"] = {RECORD: f'[{{"at":["metadata","labels","a"],"was":{deep}}}]'}
    assert reasons(inject(found, SETTINGS)) == ["RecordBroken"]


def test_an_init_container_that_speaks_of_the_mesh_is_told_its_way_there() -> None:
    migrate: dict[str, Any] = {
        "name": "migrate",
        "image": "example.test/m:1",
        "command": ["curl", "http://ledger.mesh/up"],
    }
    injection = injected(_in_spec(initContainers=[migrate]))
    [problem] = injection.problems
    assert problem.reason == "InitContainerOutside"
    assert not problem.refused
    assert "http://127.0.0.1:7480" in problem.message
    migrate["env"] = [{"name": "HTTP_PROXY", "value": "http://127.0.0.1:7480"}]
    assert injected(_in_spec(initContainers=[migrate])).problems == ()


@pytest.mark.parametrize(
    "changes",
    [{"image": ""}, {"image": "two words"}, {"api": ()}, {"token_seconds": 10}, {"inbound_port": 7490}],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        InjectionSettings(**changes)
