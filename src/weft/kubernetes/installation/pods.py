"""What all pods of an installation have in common: nobody's user, nothing allowed, limits, a place apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from weft.kubernetes.injection_settings import ROOTS_FILE, USER
from weft.kubernetes.installation.setup import Document, Setup
from weft.kubernetes.installation_values import AntiAffinity, ContainerResources

KEYS_DIRECTORY: Final = "/etc/weft/nats"
TRUST_DIRECTORY: Final = "/etc/weft/trust"
OPERATOR_DIRECTORY: Final = "/etc/weft/operator"
FILES_DIRECTORY: Final = "/etc/weft/files"
TLS_DIRECTORY: Final = "/etc/weft/tls"
RUN_DIRECTORY: Final = "/var/run/weft"

ROOTS_PATH: Final = f"{TRUST_DIRECTORY}/{ROOTS_FILE}"
"""Where the mesh's roots are in pods that mount them."""

LEAVE_SECONDS: Final = 5
"""Seconds for which a pod goes on serving after it was taken out of its Service, until all have heard."""


def container(
    setup: Setup,
    name: str,
    command: Sequence[str],
    arguments: Sequence[str],
    resources: ContainerResources,
    **fields: Any,
) -> Document:
    """A container that runs `command`: nothing allowed, and nothing to write to but what is mounted."""
    return {
        "name": name,
        "image": setup.image,
        "imagePullPolicy": setup.values.image.pull_policy.value,
        "command": list(command),
        **({"args": list(arguments)} if arguments else {}),
        **fields,
        "resources": resources.model_dump(by_alias=True),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
        },
    }


def pod(
    setup: Setup,
    part: str,
    account: str,
    containers: Sequence[Document],
    volumes: Sequence[Document],
    *,
    token: bool,
    grace: int,
    annotations: Mapping[str, str] | None = None,
) -> Document:
    """The template of a part's pods. `token`: whether they speak to the cluster's API."""
    values = setup.values
    metadata: Document = {"labels": setup.labels(part)}
    if annotations:
        metadata["annotations"] = dict(annotations)
    spec: Document = {
        "serviceAccountName": account,
        "automountServiceAccountToken": token,
        # Variables of all Services of the namespace: nobody reads them.
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": list(containers),
        "volumes": [*volumes, {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}],
    }
    if values.image.pull_secrets:
        spec["imagePullSecrets"] = [{"name": each} for each in values.image.pull_secrets]
    if values.node_selector:
        spec["nodeSelector"] = dict(values.node_selector)
    if values.tolerations:
        spec["tolerations"] = list(values.tolerations)
    if values.priority_class_name:
        spec["priorityClassName"] = values.priority_class_name
    return {"metadata": metadata, "spec": spec}


def apart(setup: Setup, part: str) -> Document:
    """The affinity of pods that should not, or must not, be on one node; and rather not in one zone."""
    selector = {"matchLabels": setup.selector(part)}
    node = {"topologyKey": "kubernetes.io/hostname", "labelSelector": selector}
    zone = {"topologyKey": "topology.kubernetes.io/zone", "labelSelector": selector}
    rather = [{"weight": 50, "podAffinityTerm": zone}]
    if setup.values.anti_affinity is AntiAffinity.REQUIRED:
        return {
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [node],
                "preferredDuringSchedulingIgnoredDuringExecution": rather,
            }
        }
    rather = [{"weight": 100, "podAffinityTerm": node}, *rather]
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": rather}}


def deployment(setup: Setup, part: str, template: Document, replicas: int | None) -> Document:
    """A Deployment whose pods are apart; without `replicas` an autoscaler says how many there are."""
    template["spec"]["affinity"] = apart(setup, part)
    # A pod that needs a node of its own may find none before another has gone.
    first_new = setup.values.anti_affinity is AntiAffinity.PREFERRED
    spec: Document = {
        "selector": {"matchLabels": setup.selector(part)},
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": 1 if first_new else 0, "maxUnavailable": 0 if first_new else 1},
        },
        "revisionHistoryLimit": 5,
        "template": template,
    }
    if replicas is not None:
        spec["replicas"] = replicas
    return setup.document("apps/v1", "Deployment", part, spec=spec)


def disruption_budget(setup: Setup, part: str) -> Document:
    """One pod at a time may be taken away by whoever drains a node."""
    spec = {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": setup.selector(part)},
    }
    return setup.document("policy/v1", "PodDisruptionBudget", part, spec=spec)


def service_account(setup: Setup, part: str, name: str = "") -> Document:
    """As whom a part's pods come; whether they get its token is said by the pods."""
    return setup.document("v1", "ServiceAccount", part, name=name, automountServiceAccountToken=False)


def scraped(setup: Setup, port: int) -> dict[str, str]:
    """The annotations by which Prometheus usually finds pods; none where they are not wanted."""
    if not setup.values.monitoring.annotations:
        return {}
    return {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(port),
        "prometheus.io/path": "/metrics",
    }


def variable(name: str, value: str) -> Document:
    """A variable as it is written; `$(NAME)` in it is another's value."""
    return {"name": name, "value": value}


def field_variable(name: str, path: str) -> Document:
    """A variable with something of the pod."""
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


POD_FIELDS: Final = (
    field_variable("POD_NAME", "metadata.name"),
    field_variable("POD_NAMESPACE", "metadata.namespace"),
    field_variable("POD_IP", "status.podIP"),
)


def mounted(name: str, path: str, *, writable: bool = False) -> Document:
    """A volume in a container."""
    return {"name": name, "mountPath": path, **({} if writable else {"readOnly": True})}


TMP: Final = mounted("tmp", "/tmp", writable=True)  # noqa: S108 -- a volume of the pod's own


def secret_volume(name: str, secret: str, keys: Sequence[str] = ()) -> Document:
    """A volume with those values of a Secret; with all, if none are named."""
    source: Document = {"secretName": secret, "defaultMode": 0o440}
    if keys:
        source["items"] = [{"key": each, "path": each} for each in keys]
    return {"name": name, "secret": source}


def roots_volume(setup: Setup, *, optional: bool = False) -> Document:
    """The mesh's roots: a pod waits until they are there, unless it can begin without."""
    source: Document = {"name": setup.roots, "items": [{"key": ROOTS_FILE, "path": ROOTS_FILE}]}
    return {"name": "trust", "configMap": source | ({"optional": True} if optional else {})}


def probe(path: str, port: int, *, every: int, failures: int, scheme: str = "HTTP") -> Document:
    """A question of the kubelet's."""
    return {
        "httpGet": {"path": path, "port": port, "scheme": scheme},
        "periodSeconds": every,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def probes(live: str, ready: str, port: int, *, scheme: str = "HTTP", start_seconds: int = 120) -> Document:
    """The three probes of a container; it has `start_seconds` until it first answers."""
    return {
        "startupProbe": probe(live, port, every=2, failures=start_seconds // 2, scheme=scheme),
        "readinessProbe": probe(ready, port, every=5, failures=2, scheme=scheme),
        "livenessProbe": probe(live, port, every=10, failures=6, scheme=scheme),
    }


LEAVE: Final[Document] = {"preStop": {"exec": {"command": ["/bin/sh", "-c", f"sleep {LEAVE_SECONDS}"]}}}
"""Goes on serving for a moment after the pod was taken out of its Service."""
