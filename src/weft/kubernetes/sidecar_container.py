"""The sidecar's own container, and what is mounted into it. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from weft.errors import InvalidRequest
from weft.kubernetes.agent_in_pod import AgentInPod
from weft.kubernetes.injection_settings import LEASE_SECONDS, ROOTS_FILE, USER, InjectionSettings
from weft.kubernetes.problem import Refusal
from weft.sidecar.arguments import parse_arguments
from weft.sidecar.kubelet_answers import LIVE_PATH, READY_PATH
from weft.sidecar.settings import SidecarSettings

AUDIENCE: Final = "weft"
"""That of the token by which a pod proves itself."""

SIDECAR: Final = "weft-sidecar"
TRUST_VOLUME: Final = "weft-trust"
RUNTIME_VOLUME: Final = "weft-runtime"
IDENTITY_VOLUME: Final = "weft-identity"

INBOUND_PORT: Final = "weft-in"
METRICS_PORT: Final = "weft-metrics"

_COMMAND: Final = ("python", "-P", "-m")
_TOKEN: Final = "token"  # noqa: S105 -- a file's name
_REGION: Final = "topology.kubernetes.io/region"
_ZONE: Final = "topology.kubernetes.io/zone"
_START_PATIENCE: Final = 60.0
"""Seconds beyond the sidecar's own patience after which the kubelet starts it anew."""

_FIELDS: Final = {
    "POD_NAME": "metadata.name",
    "POD_NAMESPACE": "metadata.namespace",
    "POD_UID": "metadata.uid",
    "POD_IP": "status.podIP",
    # Kubernetes copies them from the node where it is new enough; elsewhere they are empty.
    "POD_REGION": f"metadata.labels['{_REGION}']",
    "POD_ZONE": f"metadata.labels['{_ZONE}']",
}

_SAMPLE: Final = {
    "POD_NAME": "pod-0",
    "POD_NAMESPACE": "default",
    "POD_UID": "0",
    "POD_IP": "127.0.0.1",
    "POD_REGION": "",
    "POD_ZONE": "",
}


def sidecar_arguments(
    agent: AgentInPod, probes: Mapping[str, str], settings: InjectionSettings
) -> tuple[str, ...]:
    """The sidecar's command line, with variables that the kubelet puts in; `probes` are paths by name."""
    return (
        f"--type={agent.type}",
        "--id=$(POD_NAME)",
        # The same for as long as the pod lives: a sidecar that is started anew takes its name at once.
        "--incarnation=$(POD_UID)",
        f"--port={agent.port}",
        *(_literal(each) for each in agent.options),
        "--label=namespace=$(POD_NAMESPACE)",
        "--region=$(POD_REGION)",
        "--zone=$(POD_ZONE)",
        "--bind=$(POD_IP)",
        f"--inbound-port={settings.inbound_port}",
        f"--outbound-port={settings.outbound_port}",
        "--metrics-host=$(POD_IP)",
        f"--metrics-port={settings.metrics_port}",
        *(_literal(f"--probe={name}={path}") for name, path in probes.items()),
        f"--api={','.join(settings.api)}",
        f"--xds={','.join(settings.xds)}",
        f"--nats={','.join(settings.nats)}",
        f"--trust-bundle={settings.trust_directory}/{ROOTS_FILE}",
        f"--service-account-token={settings.trust_directory}/{_TOKEN}",
        f"--runtime-dir={settings.runtime_directory}",
        f"--identity-dir={settings.identity_directory}",
        "--identity-group",
        f"--drain-socket={settings.drain_socket}",
        f"--lease-ttl={LEASE_SECONDS}",
    )


def understood(arguments: Sequence[str]) -> SidecarSettings:
    """What the sidecar makes of its command line. Raises Refusal where it would not take it."""
    try:
        return parse_arguments([expanded(each, _SAMPLE) for each in arguments], {})
    except InvalidRequest as error:
        raise Refusal(
            "InvalidAnnotation", f"the sidecar would refuse its annotations: {error.detail}"
        ) from error


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """`text` with `$(NAME)` replaced as a kubelet does it: unknown names stay, `$$` is one `$`."""
    parts: list[str] = []
    at = 0
    while (dollar := text.find("$", at)) >= 0:
        parts.append(text[at:dollar])
        following = text[dollar + 1 : dollar + 2]
        end = text.find(")", dollar) if following == "(" else -1
        if following == "$":
            parts.append("$")
            at = dollar + 2
        elif end > 0:
            name = text[dollar + 2 : end]
            parts.append(variables.get(name, text[dollar : end + 1]))
            at = end + 1
        else:
            parts.append("$")
            at = dollar + 1
    return "".join([*parts, text[at:]])


def sidecar_container(
    arguments: Sequence[str], understood_as: SidecarSettings, settings: InjectionSettings
) -> dict[str, Any]:
    """The container, as an init container that goes on: a native sidecar."""
    return {
        "name": SIDECAR,
        "image": settings.image,
        "restartPolicy": "Always",
        "command": [*_COMMAND, "weft.sidecar"],
        "args": list(arguments),
        "env": [
            {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
            for name, path in _FIELDS.items()
        ],
        "ports": [
            {"name": INBOUND_PORT, "containerPort": settings.inbound_port, "protocol": "TCP"},
            {"name": METRICS_PORT, "containerPort": settings.metrics_port, "protocol": "TCP"},
        ],
        # The containers behind it are started when this one succeeds: with a way out.
        "startupProbe": _probe(READY_PATH, settings, every=1, failures=_start_seconds(understood_as)),
        "readinessProbe": _probe(READY_PATH, settings, every=5, failures=2),
        "livenessProbe": _probe(LIVE_PATH, settings, every=10, failures=6),
        # Run when the pod is to end, while the agent still runs and waits for it.
        "lifecycle": {
            "preStop": {"exec": {"command": [*_COMMAND, "weft.sidecar.drain_hook", settings.drain_socket]}}
        },
        "resources": {name: dict(each) for name, each in settings.resources.items()},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsGroup": USER,
            "runAsNonRoot": True,
            "runAsUser": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": TRUST_VOLUME, "mountPath": settings.trust_directory, "readOnly": True},
            {"name": RUNTIME_VOLUME, "mountPath": settings.runtime_directory},
            {"name": IDENTITY_VOLUME, "mountPath": settings.identity_directory},
        ],
    }


def sidecar_volumes(settings: InjectionSettings) -> list[dict[str, Any]]:
    """What the container mounts."""
    token = {"audience": AUDIENCE, "expirationSeconds": settings.token_seconds, "path": _TOKEN}
    roots = {"name": settings.roots, "items": [{"key": ROOTS_FILE, "path": ROOTS_FILE}]}
    return [
        {
            "name": TRUST_VOLUME,
            "projected": {"sources": [{"serviceAccountToken": token}, {"configMap": roots}]},
        },
        # Private keys lie there: in memory, never on a node's disk.
        {"name": RUNTIME_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "32Mi"}},
        {"name": IDENTITY_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
    ]


def _probe(path: str, settings: InjectionSettings, *, every: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": settings.metrics_port, "scheme": "HTTP"},
        "periodSeconds": every,
        "timeoutSeconds": 3,
        "failureThreshold": failures,
    }


def _start_seconds(understood_as: SidecarSettings) -> int:
    return math.ceil(understood_as.start_timeout + _START_PATIENCE)


def _literal(text: str) -> str:
    """`text` so that the kubelet leaves it as it is."""
    return text.replace("$", "$$")
