"""Pods as authors write them, and what a kubelet makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from weft.kubernetes.injection import Injection, InjectionSettings, inject
from weft.kubernetes.sidecar_container import expanded

SETTINGS = InjectionSettings()

POD = """
metadata:
  labels: {app: summarizer}
spec:
  serviceAccountName: summarizer
  containers:
  - name: agent
    image: example.test/summarizer:1
    ports: [{name: http, containerPort: 8080}]
    livenessProbe: {httpGet: {path: /health, port: http}, initialDelaySeconds: 30, periodSeconds: 10}
    readinessProbe: {tcpSocket: {port: 8080}}
"""


def pod(**annotations: str) -> dict[str, Any]:
    """An agent's pod template; `health_path="/x"` is the annotation `weft.dev/health-path: /x`."""
    found: dict[str, Any] = yaml.safe_load(POD)
    if annotations:
        named = {f"weft.dev/{name.replace('_', '-')}": value for name, value in annotations.items()}
        found["metadata"]["annotations"] = named
    return found


def agent(found: dict[str, Any]) -> dict[str, Any]:
    """The container of the agent in a pod."""
    containers: list[dict[str, Any]] = found["spec"]["containers"]
    return next(each for each in containers if each["name"] == "agent")


def sidecar(found: dict[str, Any]) -> dict[str, Any]:
    """The container of the sidecar in an injected pod."""
    first: dict[str, Any] = found["spec"]["initContainers"][0]
    assert first["name"] == "weft-sidecar"
    return first


def injected(found: dict[str, Any], settings: InjectionSettings = SETTINGS) -> Injection:
    """The injection, which was not refused."""
    injection = inject(found, settings)
    assert injection.injected, injection.problems
    return injection


def reasons(injection: Injection) -> list[str]:
    """Of all its problems."""
    return [each.reason for each in injection.problems]


def environment_of(container: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, str]:
    """The environment as a kubelet makes it, from top to bottom; `fields` are those of the pod by path."""
    made: dict[str, str] = {}
    for each in container.get("env", []):
        if "valueFrom" in each:
            made[each["name"]] = fields[each["valueFrom"]["fieldRef"]["fieldPath"]]
        else:
            made[each["name"]] = expanded(each["value"], made)
    return made


def fields_of(name: str, address: str = "127.0.0.1") -> dict[str, str]:
    """What the downward API says of a pod."""
    return {
        "metadata.name": name,
        "metadata.namespace": "crew",
        "metadata.uid": f"uid-of-{name}",
        "status.podIP": address,
        "metadata.labels['topology.kubernetes.io/region']": "north",
        "metadata.labels['topology.kubernetes.io/zone']": "",
    }
