"""CustomResourceDefinitions: every kind of resource of Weft as one of Kubernetes, by the same model."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final, Literal

from weft.kubernetes.agent_deployment import KIND, SERVICE_NAME_PATTERN, AgentDeploymentSpec
from weft.kubernetes.openapi import Schema, structural_schema
from weft.kubernetes.secret_references import KubernetesSecretSpec
from weft.model.names import MAX_NAME_LENGTH, NAME_PATTERN
from weft.model.resource import KINDS
from weft.model.spec import Spec

GROUP: Final = "weft.dev"
VERSION: Final = "v1alpha1"

API_VERSION: Final = f"{GROUP}/{VERSION}"
"""As resources have it."""

READY: Final = "Ready"
"""The type of the condition that says whether the mesh has a resource as it is declared."""

ROLLOUT_FIGURES: Final = ("replicas", "readyReplicas", "updatedReplicas")
"""What the status of an AgentDeployment says of its pods: how many there are, are ready, are of the newest
version."""

Document = dict[str, Any]
"""An object of Kubernetes, as JSON types."""


@dataclass(frozen=True, slots=True)
class Column:
    """What `kubectl get` shows of a resource."""

    name: str
    path: str
    """In JSONPath as Kubernetes has it, from the resource on."""
    type: Literal["string", "integer", "number", "boolean", "date"] = "string"
    wide: bool = False
    """Whether it is shown with `-o wide` only."""

    def document(self) -> Document:
        """As a CustomResourceDefinition has it."""
        shown = {"name": self.name, "type": self.type, "jsonPath": self.path}
        return shown | {"priority": 1} if self.wide else shown


@dataclass(frozen=True, slots=True)
class CustomKind:
    """A kind of custom resource."""

    name: str
    spec: type[Spec]
    plural: str
    short: str
    """What people write in its place."""
    columns: tuple[Column, ...] = ()
    rules: tuple[Schema, ...] = ()
    """What may not change in `spec`, in CEL."""
    name_pattern: str = NAME_PATTERN
    figures: tuple[str, ...] = ()
    """Whole numbers in `status`."""


def custom_kinds() -> tuple[CustomKind, ...]:
    """Every kind: those of the mesh in the order of `KINDS`, then those that only a cluster has."""
    return (*(_custom_kind(kind) for kind in KINDS), _AGENT_DEPLOYMENT)


def custom_resource_definitions() -> list[Document]:
    """One CustomResourceDefinition for every kind."""
    return [custom_resource_definition(each) for each in custom_kinds()]


def custom_resource_definition(kind: CustomKind) -> Document:
    """The CustomResourceDefinition of a kind."""
    names = {
        "kind": kind.name,
        "listKind": f"{kind.name}List",
        "plural": kind.plural,
        "singular": kind.name.lower(),
        "shortNames": [kind.short],
        "categories": ["weft"],
    }
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [each.document() for each in (*kind.columns, *_OF_ALL)],
        "schema": {"openAPIV3Schema": _schema(kind)},
    }
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{GROUP}",
            "labels": {"app.kubernetes.io/name": "weft", "app.kubernetes.io/part-of": "weft"},
        },
        "spec": {"group": GROUP, "names": names, "scope": "Namespaced", "versions": [version]},
    }
    # What several have in common is each one's own, whoever changes it.
    return deepcopy(definition)


def _schema(kind: CustomKind) -> Schema:
    spec = structural_schema(kind.spec)
    if kind.rules:
        spec["x-kubernetes-validations"] = list(kind.rules)
    name = {"type": "string", "maxLength": MAX_NAME_LENGTH, "pattern": kind.name_pattern}
    return {
        "description": spec["description"],
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object", "properties": {"name": name}},
            "spec": spec,
            "status": _status(kind),
        },
    }


def _status(kind: CustomKind) -> Schema:
    figures = {name: {"type": "integer", "format": "int32", "minimum": 0} for name in kind.figures}
    return {**_STATUS, "properties": {**_STATUS["properties"], **figures}}


_TIME: Final[Schema] = {"type": "string", "format": "date-time"}
_GENERATION: Final[Schema] = {"type": "integer", "format": "int64", "minimum": 0}

# The limits are those of metav1.Condition.
_CONDITION: Final[Schema] = {
    "type": "object",
    "required": ["type", "status", "reason", "message", "lastTransitionTime"],
    "properties": {
        "type": {"type": "string", "minLength": 1, "maxLength": 316},
        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
        "observedGeneration": {"description": "The generation it is about.", **_GENERATION},
        "lastTransitionTime": {"description": "When the status last changed.", **_TIME},
        "reason": {
            "type": "string",
            "maxLength": 1024,
            "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
        },
        "message": {"description": "What happened, and what to do.", "type": "string", "maxLength": 32768},
    },
}

_STATUS: Final[Schema] = {
    "description": "What became of it.",
    "type": "object",
    "properties": {
        "observedGeneration": {"description": "The generation that this is about.", **_GENERATION},
        "meshRevision": {
            "description": "The resourceVersion in the mesh of what this was last the same as.",
            "type": "string",
            "maxLength": 64,
        },
        "mesh": {
            "description": "Which mesh that was in, where it was declared there.",
            "type": "string",
            "maxLength": 64,
        },
        "conditions": {
            "type": "array",
            "maxItems": 16,
            "items": _CONDITION,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
        },
    },
}

_OF_ALL: Final = (
    Column(READY, f'.status.conditions[?(@.type=="{READY}")].status'),
    Column("Reason", f'.status.conditions[?(@.type=="{READY}")].reason', wide=True),
    Column("Age", ".metadata.creationTimestamp", "date"),
)
_TARGET: Final = (Column("Type", ".spec.target.type"), Column("Capability", ".spec.target.capability"))


@dataclass(frozen=True, slots=True)
class _Names:
    plural: str
    short: str


_NAMES: Final[Mapping[str, _Names]] = {
    "Agent": _Names("agents", "wag"),
    "Route": _Names("routes", "wrt"),
    "TrafficPolicy": _Names("trafficpolicies", "wtp"),
    "Secret": _Names("secrets", "wsec"),
    "Egress": _Names("egresses", "weg"),
    "AccessPolicy": _Names("accesspolicies", "wap"),
    "Topic": _Names("topics", "wto"),
    "Queue": _Names("queues", "wq"),
    "Broker": _Names("brokers", "wbr"),
    "Gateway": _Names("gateways", "wgw"),
    "ModelPool": _Names("modelpools", "wmp"),
    "Budget": _Names("budgets", "wbu"),
    "Tool": _Names("tools", "wtl"),
    "Telemetry": _Names("telemetries", "wte"),
    "ExternalAgent": _Names("externalagents", "wex"),
}
"""Short names begin with w: secrets, routes and gateways are others' first."""

_COLUMNS: Final[Mapping[str, tuple[Column, ...]]] = {
    "Agent": (
        Column("Capabilities", ".spec.capabilities"),
        Column("Version", ".spec.version"),
        Column("Protocol", ".spec.protocol", wide=True),
        Column("Description", ".spec.description", wide=True),
    ),
    "Route": (
        Column("Type", ".spec.destination.type"),
        Column("Capability", ".spec.destination.capability"),
    ),
    "TrafficPolicy": (
        *_TARGET,
        Column("Balancing", ".spec.loadBalancing.policy"),
        Column("Timeout", ".spec.timeout"),
    ),
    "Secret": (Column("For", ".spec.inject[0].host"),),
    "Egress": (Column("For", ".spec.for"), Column("Mode", ".spec.mode")),
    "AccessPolicy": (
        Column("Effect", ".spec.effect"),
        Column("Default", ".spec.default"),
        Column("Mode", ".spec.mode"),
    ),
    "Topic": (
        Column("Partitions", ".spec.partitions", "integer"),
        Column("Kept", ".spec.maxAge"),
        Column("Encrypted", ".spec.encrypted", "boolean"),
    ),
    "Queue": (
        Column("At once", ".spec.concurrency", "integer"),
        Column("Attempts", ".spec.maxDeliveries", "integer"),
        Column("Encrypted", ".spec.encrypted", "boolean"),
    ),
    "Broker": (Column("Type", ".spec.type"), Column("URL", ".spec.url")),
    "Gateway": (
        Column("Port", ".spec.port", "integer"),
        Column("Anonymous", ".spec.anonymous", "boolean"),
    ),
    "ModelPool": (
        Column("Models", ".spec.models"),
        Column("Providers", ".spec.providers[0].preset"),
    ),
    "Budget": (
        Column("Scope", ".spec.scope"),
        Column("Period", ".spec.period"),
        Column("Tokens", ".spec.tokens", "integer"),
        Column("USD", ".spec.usd", "number"),
    ),
    "Tool": (Column("Server", ".spec.server"), Column("Prefix", ".spec.prefix")),
    "Telemetry": (
        *_TARGET,
        Column("Sampled %", ".spec.tracing.samplingPercent", "number"),
        Column("Access log", ".spec.accessLog"),
        Column("Recorded", ".spec.recording.messages", "boolean"),
    ),
    "ExternalAgent": (
        Column("Endpoints", ".spec.endpoints"),
        Column("Capabilities", ".spec.capabilities"),
        Column("Version", ".spec.version", wide=True),
        Column("Protocol", ".spec.protocol", wide=True),
        Column("TLS", ".spec.tls", wide=True),
    ),
}
"""What `weft get` says of them in words, as far as it is a field of theirs."""

_PARTITIONS: Final = "(has({0}.partitions) ? {0}.partitions : 0)"

_RULES: Final[Mapping[str, tuple[Schema, ...]]] = {
    "Topic": (
        {
            "rule": f"{_PARTITIONS.format('self')} == {_PARTITIONS.format('oldSelf')}",
            "message": "partitions stay as they are, since events were published by them: "
            "declare another topic, or delete this one with all it holds",
        },
    ),
}
"""What the mesh refuses to change (weft.model.unchangeable), in CEL."""

_SPECS: Final[Mapping[str, type[Spec]]] = {**KINDS, "Secret": KubernetesSecretSpec}


def _custom_kind(kind: str) -> CustomKind:
    names = _NAMES[kind]
    return CustomKind(
        kind, _SPECS[kind], names.plural, names.short, _COLUMNS.get(kind, ()), _RULES.get(kind, ())
    )


_AGENT_DEPLOYMENT: Final = CustomKind(
    KIND,
    AgentDeploymentSpec,
    "agentdeployments",
    "wad",
    (
        Column("Image", ".spec.image"),
        Column("Pods", ".status.readyReplicas", "integer"),
        Column("Least", ".spec.replicas.least", "integer"),
        Column("Most", ".spec.replicas.most", "integer"),
        Column("Queue", ".spec.scaling.queue.name", wide=True),
    ),
    name_pattern=SERVICE_NAME_PATTERN,
    figures=ROLLOUT_FIGURES,
)
