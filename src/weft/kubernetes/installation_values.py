"""What an installation on a cluster is told: values of the Helm chart, and of `weft kubernetes render`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from weft.errors import FieldProblem, InvalidResource
from weft.kubernetes.agent_deployment import PullPolicy, Quantity, Replicas, quantity
from weft.kubernetes.secret_references import SubdomainName
from weft.model.spec import MAX_ITEMS, Spec, Text, TypeName
from weft.model.spiffe import DEFAULT_TRUST_DOMAIN
from weft.model.validation import explain

MAX_NAME_LENGTH: Final = 24
"""Of an installation, and of a gateway in it: names of Services are made of both."""

GATEWAY_NAME_PATTERN: Final = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"

KubernetesObject = dict[str, Any]
"""Something that is handed on to Kubernetes as it is."""

Labels = Annotated[dict[str, Annotated[str, StringConstraints(max_length=63)]], Field(max_length=MAX_ITEMS)]
Annotations = Annotated[dict[str, Text], Field(max_length=MAX_ITEMS)]
Peers = Annotated[tuple[KubernetesObject, ...], Field(max_length=MAX_ITEMS)]
"""NetworkPolicyPeers: who is let in. None: nobody."""

ImageTag = Annotated[str, StringConstraints(max_length=128, pattern=r"^([A-Za-z0-9_][-A-Za-z0-9_.]*)?$")]
ImageDigest = Annotated[str, StringConstraints(max_length=135, pattern=r"^(sha256:[0-9a-f]{64})?$")]
ImagePath = Annotated[
    str, StringConstraints(max_length=255, pattern=r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?(/[a-z0-9._-]+)*$")
]
Registry = Annotated[
    str,
    StringConstraints(
        max_length=255, pattern=r"^([A-Za-z0-9][-A-Za-z0-9.]*(:[0-9]{1,5})?(/[a-z0-9._-]+)*)?$"
    ),
]
DomainName = Annotated[
    str,
    StringConstraints(
        max_length=253, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
    ),
]
OptionalName = Annotated[
    str, StringConstraints(max_length=253, pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")
]
"""The name of something in Kubernetes; empty: of nothing."""

Namespace = Annotated[
    str, StringConstraints(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
]
NamespaceOrAll = Annotated[
    str, StringConstraints(max_length=63, pattern=r"^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$")
]

SettingName = Annotated[str, StringConstraints(max_length=128, pattern=r"^WEFT_CONTROL_[A-Z0-9_]+$")]


FIXED_SETTINGS: Final = frozenset(
    f"WEFT_CONTROL_{name}"
    for name in (
        *("NATS", "NATS_ROOTS_FILE", "NATS_CREDENTIALS_FILE", "NATS_SEED_FILE", "NATS_ISSUER_FILE"),
        *("NATS_REPLICAS", "HOST", "API_PORT", "XDS_PORT", "METRICS_HOST", "METRICS_PORT"),
        *("DASHBOARD_HOST", "DASHBOARD_PORT", "ADVERTISE_API", "ADVERTISE_XDS", "ADVERTISE_METRICS"),
        *(
            "TRUST_DOMAIN",
            "TRUST_PROPAGATION",
            "LEASE_TTL",
            "SEALING_KEY",
            "REPLICA",
            "NAMES",
            "OPERATOR_TOKEN_FILE",
            "BUNDLE_FILE",
        ),
        *("SERVICE_ACCOUNT_REVIEW", "SERVICE_ACCOUNT_ISSUER", "SERVICE_ACCOUNT_KEYS_FILE", "LOG_LEVEL"),
    )
)
"""Settings of the control plane that follow from the installation."""


class Image(Spec):
    """The image that everything runs from; sidecars too."""

    registry: Registry = ""
    """Where it is: `registry.example:5000/team`. Empty: wherever the nodes look by themselves."""
    repository: ImagePath = "weft"
    tag: ImageTag = ""
    """By default the version of Weft that this is of."""
    digest: ImageDigest = ""
    """`sha256:...`, in place of the tag: nothing can change below it."""
    pull_policy: PullPolicy = PullPolicy.IF_NOT_PRESENT
    pull_secrets: Annotated[tuple[SubdomainName, ...], Field(max_length=16)] = ()
    """Secrets of Kubernetes with which nodes get it."""

    @model_validator(mode="after")
    def _fixed(self) -> Self:
        if self.tag == "latest":
            raise ValueError("the tag latest is another image tomorrow: name a version, or a digest")
        return self


class Amounts(Spec):
    """CPU and memory of a container."""

    cpu: Quantity
    memory: Quantity


class ContainerResources(Spec):
    """What is set aside for a container, and what it can have at most."""

    requests: Amounts
    limits: Amounts

    @model_validator(mode="after")
    def _within(self) -> Self:
        for name in ("cpu", "memory"):
            request, limit = getattr(self.requests, name), getattr(self.limits, name)
            if quantity(request) > quantity(limit):
                raise ValueError(f"the request for {name} ({request}) is above the limit ({limit})")
        return self


def _of(cpu: str, memory: str, most_cpu: str, most_memory: str) -> ContainerResources:
    """So much set aside, so much at most."""
    return ContainerResources(
        requests=Amounts(cpu=cpu, memory=memory), limits=Amounts(cpu=most_cpu, memory=most_memory)
    )


class AntiAffinity(StrEnum):
    """How pods of the same kind are kept on different nodes."""

    PREFERRED = "preferred"
    REQUIRED = "required"
    """A pod that finds no node of its own does not start."""


class LogLevel(StrEnum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class BootstrapValues(Spec):
    """The Job that makes the first keys."""

    enabled: bool = True
    """Without it the Secrets must be there: see `weft kubernetes bootstrap`."""
    resources: ContainerResources = _of("100m", "128Mi", "1", "256Mi")


class StorageValues(Spec):
    """The volume of each NATS server."""

    size: Quantity = "10Gi"
    """Fixed once the volume is there, as is its class: afterwards its claim can be enlarged, by itself."""
    class_name: OptionalName = ""
    """The StorageClass; empty: the cluster's default."""
    most: Quantity = "8Gi"
    """How much of it NATS fills: less than all, or a volume that is full stops it."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if quantity(self.most) > quantity(self.size):
            raise ValueError(f"most ({self.most}) is above the volume's size ({self.size})")
        return self


class NatsValues(Spec):
    """NATS, in which everything is kept."""

    replicas: Literal[1, 3, 5] = 3
    """Servers: an odd number, since more than half of them must be there. One cannot become several later."""
    storage: StorageValues = StorageValues()
    memory_target: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,9}(MiB|GiB)$")] = "1600MiB"
    """What it tries to keep its memory below (GOMEMLIMIT): some 80 % of the limit."""
    resources: ContainerResources = _of("250m", "256Mi", "2", "2Gi")


class ControlValues(Spec):
    """The control plane."""

    replicas: Annotated[int, Field(ge=0, le=9)] = 3
    """0: none, while a backup is restored."""
    settings: Annotated[dict[SettingName, Text], Field(max_length=MAX_ITEMS)] = {}
    """Further settings by their variables: `WEFT_CONTROL_OTLP_ENDPOINT: http://collector:4318`."""
    files_secret: OptionalName = ""
    """A Secret of Kubernetes whose values are files in `/etc/weft/files`, for settings that name files."""
    resources: ContainerResources = _of("500m", "512Mi", "2", "2Gi")
    publisher_resources: ContainerResources = _of("50m", "96Mi", "500m", "256Mi")
    """Of the container beside it that publishes the mesh's roots."""


class ControllerValues(Spec):
    """What keeps custom resources and the mesh the same."""

    enabled: bool = True
    replicas: Annotated[int, Field(ge=1, le=9)] = 2
    """One works, the others wait."""
    namespaces: Annotated[tuple[Namespace, ...], Field(max_length=MAX_ITEMS)] = ()
    """Namespaces whose custom resources, HTTPRoutes and Services count, beside that of Weft. By default all:
    whoever may write such things in any namespace has a say in the mesh."""
    secrets_in: Annotated[tuple[NamespaceOrAll, ...], Field(max_length=MAX_ITEMS)] = ()
    """Namespaces whose Secrets of Kubernetes it may read, for the mesh's Secrets that refer to them; `"*"`:
    all. By default none."""
    resources: ContainerResources = _of("100m", "192Mi", "1", "512Mi")


class WebhookValues(Spec):
    """What puts sidecars into pods, and checks custom resources."""

    enabled: bool = True
    replicas: Annotated[int, Field(ge=1, le=9)] = 2
    resources: ContainerResources = _of("100m", "192Mi", "1", "512Mi")


class ServiceType(StrEnum):
    """How a gateway is reached."""

    LOAD_BALANCER = "LoadBalancer"
    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"


class GatewayService(Spec):
    """The Service of a gateway."""

    type: ServiceType = ServiceType.LOAD_BALANCER
    port: Annotated[int, Field(ge=1, le=65535)] = 80
    annotations: Annotations = {}
    """Such as the cloud's load balancer reads."""


class GatewayValues(Spec):
    """The instances of one Gateway; what it lets through is said by the resource of that name."""

    replicas: Replicas = Replicas()
    cpu_percent: Annotated[int, Field(ge=1, le=1000)] = 70
    """Of the CPU requested, in the mean of all pods: more pods above it."""
    service: GatewayService = GatewayService()
    tls_secret: OptionalName = ""
    """A Secret of type kubernetes.io/tls, mounted at `/etc/weft/tls`: for `tls` of the Gateway, which names
    `/etc/weft/tls/tls.crt` and `/etc/weft/tls/tls.key`."""
    resources: ContainerResources = _of("500m", "384Mi", "2", "1Gi")


class NetworkPolicyValues(Spec):
    """Who reaches what of the installation."""

    enabled: bool = True
    clients: Peers = ({"namespaceSelector": {}},)
    """Who reaches the control plane and NATS: wherever sidecars are. By default all pods of the cluster."""
    metrics: Peers = ({"namespaceSelector": {}},)
    """Who reads metrics. By default all pods of the cluster."""
    callers: Peers = (
        {"ipBlock": {"cidr": "0.0.0.0/0"}},
        {"ipBlock": {"cidr": "::/0"}},
        {"namespaceSelector": {}},
    )
    """Who calls gateways. By default everybody: to some networks a block of addresses means no pods."""


class ServiceMonitorValues(Spec):
    """For the operator of Prometheus, where that is installed."""

    enabled: bool = False
    interval: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,3}(s|m)$")] = "15s"
    labels: Labels = {}
    """Such as a Prometheus picks its ServiceMonitors by."""


class RulesValues(Spec):
    """Recording rules and alerts, for the operator of Prometheus, where that is installed."""

    enabled: bool = False
    labels: Labels = {}
    """Such as a Prometheus picks its rules by."""


class DashboardValues(Spec):
    """The dashboard, in a ConfigMap where Grafana's sidecar finds it; it uses the rules."""

    enabled: bool = False
    labels: Labels = {"grafana_dashboard": "1"}
    """By which it is found."""


class MonitoringValues(Spec):
    """How metrics are found."""

    annotations: bool = True
    """Whether pods have the usual annotations: `prometheus.io/scrape` and so on."""
    service_monitor: ServiceMonitorValues = ServiceMonitorValues()
    rules: RulesValues = RulesValues()
    dashboard: DashboardValues = DashboardValues()


class InstallationValues(Spec):
    """One installation. All of it has a default."""

    image: Image = Image()
    trust_domain: DomainName = DEFAULT_TRUST_DOMAIN
    """The name of the mesh in SPIFFE IDs. Fixed once identities were given out."""
    cluster_domain: DomainName = "cluster.local"
    """The domain of the cluster's Services."""
    log_level: LogLevel = LogLevel.INFO
    anti_affinity: AntiAffinity = AntiAffinity.PREFERRED
    """Whether pods of the same kind must be, or should be, on different nodes."""
    node_selector: Labels = {}
    tolerations: Annotated[tuple[KubernetesObject, ...], Field(max_length=MAX_ITEMS)] = ()
    """As Kubernetes has them."""
    priority_class_name: OptionalName = ""
    bootstrap: BootstrapValues = BootstrapValues()
    nats: NatsValues = NatsValues()
    control: ControlValues = ControlValues()
    controller: ControllerValues = ControllerValues()
    webhook: WebhookValues = WebhookValues()
    gateways: Annotated[
        dict[
            Annotated[
                TypeName,
                StringConstraints(max_length=MAX_NAME_LENGTH, pattern=GATEWAY_NAME_PATTERN),
            ],
            GatewayValues,
        ],
        Field(max_length=16),
    ] = {}
    """Instances of Gateways, by their names. By default none."""
    network_policies: NetworkPolicyValues = NetworkPolicyValues()
    monitoring: MonitoringValues = MonitoringValues()

    @model_validator(mode="after")
    def _settings_are_further(self) -> Self:
        for name in self.control.settings:
            if name in FIXED_SETTINGS:
                raise ValueError(f"control.settings.{name} is the installation's own: leave it out")
        return self

    @model_validator(mode="after")
    def _gateways_have_accounts(self) -> Self:
        if "default" in self.gateways:
            raise ValueError("gateways.default: every namespace has an account of that name, of nobody's")
        return self


def read_values(document: Mapping[str, Any], file: str = "values") -> InstallationValues:
    """The values that a document says, over the defaults. Raises InvalidResource, with all that is wrong."""
    given = json.dumps(_over_defaults(document))
    try:
        return InstallationValues.model_validate_json(given, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise InvalidResource(
            [
                FieldProblem(
                    explain(each, InstallationValues), ".".join(str(part) for part in each["loc"]), file
                )
                for each in error.errors(include_url=False)
            ]
        ) from error


def overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with `above` over it: mappings by their names, everything else as `above` says."""
    found = dict(below)
    for name, value in above.items():
        before = found.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            found[name] = overlaid(before, value)
        else:
            found[name] = value
    return found


def _over_defaults(document: Mapping[str, Any]) -> dict[str, Any]:
    found = overlaid(InstallationValues().model_dump(mode="json", by_alias=True), document)
    gateway = GatewayValues().model_dump(mode="json", by_alias=True)
    if isinstance(found["gateways"], dict):
        found["gateways"] = {
            name: overlaid(gateway, each) if isinstance(each, Mapping) else each
            for name, each in found["gateways"].items()
        }
    return found
