"""What an AgentDeployment stands for: the objects of Kubernetes of which it is made. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from weft.kubernetes.agent_deployment import (
    API_VERSION,
    KIND,
    AgentDeployment,
    AgentDeploymentSpec,
    QueueScaling,
    read_agent_deployment,
)
from weft.kubernetes.injection import InjectionSettings, inject
from weft.kubernetes.problem import Problem
from weft.model.agent_card import CARD_PATH
from weft.model.agent_spec import AgentSpec
from weft.model.model_pool import DEFAULT_URLS, Preset
from weft.model.node import AgentProtocol
from weft.model.offer import DESCRIPTION_VARIABLE, VERSION_VARIABLE

Document = dict[str, Any]
"""An object of Kubernetes, as JSON types."""

CONTAINER: Final = "agent"
PORT_NAME: Final = "http"
SERVICE_PORT: Final = 80

_NAME_LABEL: Final = "app.kubernetes.io/name"
_MANAGED_LABEL: Final = "app.kubernetes.io/managed-by"
_VERSION_LABEL: Final = "app.kubernetes.io/version"
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")

_KEY_VARIABLE: Final = "HOLYSHEEP_API_KEY"
_URL_VARIABLE: Final = "HOLYSHEEP_BASE_URL"


@dataclass(frozen=True, slots=True)
class AgentManifests:
    """What is made of one AgentDeployment."""

    documents: tuple[Document, ...]
    """In the order in which they are to be applied; none where a problem stands against it."""
    problems: tuple[Problem, ...] = ()


def agent_manifests(deployment: AgentDeployment, settings: InjectionSettings | None = None) -> AgentManifests:
    """The manifests that `deployment` stands for, with a sidecar by `settings`.

    Without `settings` there is none: it is put in later, as into any other pod.
    """
    template = _pod_template(deployment)
    problems: tuple[Problem, ...] = ()
    if settings is not None:
        injection = inject(template, settings)
        if injection.refused:
            return AgentManifests((), injection.problems)
        template, problems = injection.pod, injection.problems
    documents = (
        _service_account(deployment),
        _service(deployment),
        _deployment(deployment, template),
        _disruption_budget(deployment),
        *_autoscalers(deployment),
    )
    return AgentManifests(documents, problems)


def expanded(document: Any, file: str = "") -> list[Any]:
    """What a manifest's document stands for: an AgentDeployment for what is made of it, without a sidecar.

    Those in a List are replaced there, and everything else is itself. Raises InvalidResource.
    """
    if not isinstance(document, dict):
        return [document]
    if document.get("kind") == "List" and isinstance(document.get("items"), list):
        return [{**document, "items": [one for each in document["items"] for one in expanded(each, file)]}]
    if (document.get("apiVersion"), document.get("kind")) != (API_VERSION, KIND):
        return [document]
    return list(agent_manifests(read_agent_deployment(document, file)).documents)


def _named(deployment: AgentDeployment, api_version: str, kind: str) -> Document:
    metadata: Document = {"name": deployment.name, "labels": _labels(deployment)}
    if deployment.namespace is not None:
        metadata["namespace"] = deployment.namespace
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def _selector(deployment: AgentDeployment) -> dict[str, str]:
    """What never changes of the pods: a Deployment's selector cannot."""
    return {_NAME_LABEL: deployment.name, _MANAGED_LABEL: "weft"}


def _labels(deployment: AgentDeployment) -> dict[str, str]:
    version = deployment.spec.agent.version
    labels = _selector(deployment)
    return labels | {_VERSION_LABEL: version} if _LABEL_VALUE.fullmatch(version) else labels


def _service_account(deployment: AgentDeployment) -> Document:
    # The identity is made of its name. Its token is for the sidecar only, and good for nothing but the mesh.
    return {**_named(deployment, "v1", "ServiceAccount"), "automountServiceAccountToken": False}


def _service(deployment: AgentDeployment) -> Document:
    """For whoever is outside the mesh; agents find each other without it."""
    ports = [{"name": PORT_NAME, "port": SERVICE_PORT, "targetPort": PORT_NAME, "protocol": "TCP"}]
    spec = {"type": "ClusterIP", "selector": _selector(deployment), "ports": ports}
    return {**_named(deployment, "v1", "Service"), "spec": spec}


def _deployment(deployment: AgentDeployment, template: Document) -> Document:
    replicas = deployment.spec.replicas
    spec: Document = {
        "selector": {"matchLabels": _selector(deployment)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}},
        "revisionHistoryLimit": 5,
        "template": template,
    }
    if replicas.least == replicas.most:
        # Elsewhere the number is the autoscaler's: applying this again must not change it.
        spec["replicas"] = replicas.least
    return {**_named(deployment, "apps/v1", "Deployment"), "spec": spec}


def _pod_template(deployment: AgentDeployment) -> Document:
    spec = deployment.spec
    pod: Document = {
        "serviceAccountName": deployment.name,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            **({"runAsUser": spec.user} if spec.user is not None else {}),
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": key,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": _selector(deployment)},
            }
            for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
        ],
        "containers": [_container(spec)],
    }
    if spec.pull_secrets:
        pod["imagePullSecrets"] = [{"name": each} for each in spec.pull_secrets]
    metadata: Document = {"labels": _labels(deployment)}
    annotations = {f"weft.dev/{name}": value for name, value in _annotations(spec.agent)}
    return {"metadata": metadata | ({"annotations": annotations} if annotations else {}), "spec": pod}


def _container(spec: AgentDeploymentSpec) -> Document:
    container: Document = {"name": CONTAINER, "image": spec.image}
    if spec.pull_policy is not None:
        container["imagePullPolicy"] = spec.pull_policy.value
    if spec.command:
        container["command"] = list(spec.command)
    if spec.args:
        container["args"] = list(spec.args)
    limits = spec.resources.limits
    return {
        **container,
        "env": list(_environment(spec)),
        "ports": [{"name": PORT_NAME, "containerPort": spec.port, "protocol": "TCP"}],
        "readinessProbe": _probe(spec),
        "livenessProbe": _probe(spec),
        "resources": {
            "requests": {"cpu": spec.resources.requests.cpu, "memory": spec.resources.requests.memory},
            "limits": {
                "cpu": limits.cpu,
                "memory": limits.memory,
                **{name: str(count) for name, count in limits.devices.items()},
            },
        },
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }


def _environment(spec: AgentDeploymentSpec) -> Iterator[Document]:
    agent, given = spec.agent, spec.environment
    wanted = {"PORT": str(spec.port)}
    if agent.description:
        wanted[DESCRIPTION_VARIABLE] = agent.description
    if agent.version:
        wanted[VERSION_VARIABLE] = agent.version
    if _KEY_VARIABLE in spec.secret_environment and _URL_VARIABLE not in spec.secret_environment:
        wanted[_URL_VARIABLE] = DEFAULT_URLS[Preset.HOLYSHEEP]
    for name, value in {**wanted, **given}.items():
        # The kubelet would replace `$(NAME)`, but it is meant as it is written.
        yield {"name": name, "value": value.replace("$", "$$")}
    for name, secret in spec.secret_environment.items():
        yield {"name": name, "valueFrom": {"secretKeyRef": {"name": secret.name, "key": secret.key}}}


def _probe(spec: AgentDeploymentSpec) -> Document:
    health = spec.agent.health
    path = _health_path(spec.agent)
    how: Document = (
        {"httpGet": {"path": path, "port": PORT_NAME}} if path else {"tcpSocket": {"port": PORT_NAME}}
    )
    return {
        **how,
        "initialDelaySeconds": math.ceil(spec.probes.initial_delay),
        "periodSeconds": math.ceil(spec.probes.period),
        "timeoutSeconds": max(1, math.ceil(health.timeout)),
        "failureThreshold": health.unhealthy_threshold,
    }


def _health_path(agent: AgentSpec) -> str:
    """Where the agent says how it is; empty: nowhere, and a connection is enough."""
    if agent.health.path is not None:
        return agent.health.path
    return _HEALTH_PATHS.get(agent.protocol, "")


_HEALTH_PATHS: Final = {AgentProtocol.HTTP1: "/health", AgentProtocol.A2A: CARD_PATH}
"""Of the others, kubelets speak to none as it is spoken to."""


def _annotations(agent: AgentSpec) -> Iterator[tuple[str, str]]:
    """What the sidecar is to know, as injection reads it: that alone which is not the default."""
    health, usual = agent.health, AgentSpec()
    duties = [
        each.queue if each.concurrency is None else f"{each.queue}={each.concurrency}" for each in agent.tasks
    ]
    told = {
        "capabilities": ",".join(agent.capabilities),
        "version": agent.version,
        "labels": ",".join(f"{name}={value}" for name, value in agent.labels.items()),
        "weight": str(agent.weight) if agent.weight != usual.weight else "",
        "protocol": agent.protocol.value if agent.protocol is not usual.protocol else "",
        "mcp-path": agent.mcp_path if agent.mcp_path != usual.mcp_path else "",
        "consume": ",".join(duties),
        "subscribe": ",".join(each.topic for each in agent.events if not each.every_instance),
        "subscribe-each": ",".join(each.topic for each in agent.events if each.every_instance),
        "event-format": agent.event_format.value if agent.event_format is not usual.event_format else "",
        "health-interval": _seconds(health.interval, usual.health.interval),
        "health-timeout": _seconds(health.timeout, usual.health.timeout),
        "healthy-threshold": _count(health.healthy_threshold, usual.health.healthy_threshold),
        "unhealthy-threshold": _count(health.unhealthy_threshold, usual.health.unhealthy_threshold),
        "drain-timeout": _seconds(agent.drain_timeout, usual.drain_timeout),
    }
    yield from ((name, value) for name, value in told.items() if value)
    if health.path is not None:
        # Empty, too, means something: connecting is enough.
        yield "health-path", health.path


def _seconds(value: float, usual: float) -> str:
    return "" if value == usual else f"{value:.3f}".rstrip("0").rstrip(".")


def _count(value: int, usual: int) -> str:
    return "" if value == usual else str(value)


def _disruption_budget(deployment: AgentDeployment) -> Document:
    spec = {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": _selector(deployment)},
    }
    return {**_named(deployment, "policy/v1", "PodDisruptionBudget"), "spec": spec}


def _autoscalers(deployment: AgentDeployment) -> Iterator[Document]:
    spec = deployment.spec
    if spec.replicas.least == spec.replicas.most:
        return
    if spec.scaling.queue is not None:
        yield _scaled_object(deployment, spec.scaling.queue)
        return
    metric = {
        "type": "ContainerResource",
        "containerResource": {
            "container": CONTAINER,
            "name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": spec.scaling.cpu_percent},
        },
    }
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment.name}
    yield {
        **_named(deployment, "autoscaling/v2", "HorizontalPodAutoscaler"),
        "spec": {
            "scaleTargetRef": target,
            "minReplicas": spec.replicas.least,
            "maxReplicas": spec.replicas.most,
            "metrics": [metric],
        },
    }


def _scaled_object(deployment: AgentDeployment, queue: QueueScaling) -> Document:
    """KEDA makes an autoscaler of it, so there must be no other."""
    spec = deployment.spec
    cpu = {"value": str(spec.scaling.cpu_percent), "containerName": CONTAINER}
    triggers: list[Document] = [
        {"type": "cpu", "metricType": "Utilization", "metadata": cpu},
        # One for each worker wanted. Every control plane tells it, and they look at different times.
        _prometheus(queue, "weft_queue_desired_workers", "AverageValue", 1),
    ]
    if queue.oldest is not None:
        triggers.append(_prometheus(queue, "weft_queue_oldest_seconds", "Value", queue.oldest))
    return {
        **_named(deployment, "keda.sh/v1alpha1", "ScaledObject"),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment.name},
            "minReplicaCount": spec.replicas.least,
            "maxReplicaCount": spec.replicas.most,
            "triggers": triggers,
        },
    }


def _prometheus(queue: QueueScaling, metric: str, metric_type: str, threshold: float) -> Document:
    metadata = {
        "serverAddress": queue.prometheus,
        "query": f'max({metric}{{queue="{queue.name}"}})',
        "threshold": f"{threshold:g}",
    }
    return {"type": "prometheus", "metricType": metric_type, "metadata": metadata}
