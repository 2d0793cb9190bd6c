"""AgentDeployment: one type of agent on a cluster, in the few words in which such deployments differ."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Final, Self

from pydantic import (
    AfterValidator,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from weft.errors import FieldProblem, InvalidRequest, InvalidResource
from weft.kubernetes.secret_references import SecretKeyReference, SubdomainName
from weft.model.agent_spec import AgentSpec, EnvironmentVariable
from weft.model.duration import Duration, between
from weft.model.gateway import HttpUrl
from weft.model.names import check_type
from weft.model.node import AgentProtocol
from weft.model.spec import MAX_ITEMS, Name, Spec, Text
from weft.model.validation import explain

API_VERSION: Final = "weft.dev/v1alpha1"
KIND: Final = "AgentDeployment"
DEFAULT_PORT: Final = 8080

SERVICE_NAME_PATTERN: Final = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
"""What the name of a Service looks like (RFC 1035)."""

_UNITS: Final[Mapping[str, Decimal]] = {
    "m": Decimal("0.001"),
    "": Decimal(1),
    **{unit: Decimal(1000) ** power for power, unit in enumerate(("k", "M", "G", "T", "P", "E"), start=1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", start=1)},
}
_QUANTITY = re.compile(r"^([0-9]{1,18}(?:\.[0-9]{1,9})?)(m|k|[MGTPE]|[KMGTPE]i)?$")


def quantity(text: int | str) -> Decimal:
    """How much `500m`, `2` or `512Mi` is. Raises ValueError."""
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        raise ValueError("is no quantity: use a number, with a unit where needed: 2, 500m, 512Mi")
    number, unit = match.groups(default="")
    return Decimal(number) * _UNITS[unit]


def _quantity(text: int | str) -> str:
    quantity(text)
    return str(text)


Quantity = Annotated[int | str, AfterValidator(_quantity)]
"""An amount of something, as Kubernetes writes it."""

ImageName = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=r"^[^\s-]\S*$")]
"""An image: `registry/name:tag`, or better `registry/name@sha256:...`."""

DeviceName = Annotated[
    str,
    StringConstraints(
        max_length=316, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
    ),
]


class PullPolicy(StrEnum):
    """When nodes ask for the image."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class Requests(Spec):
    """What is set aside for the agent in each pod."""

    cpu: Quantity = "500m"
    memory: Quantity = "512Mi"


class Limits(Spec):
    """What the agent can have at most in each pod."""

    cpu: Quantity = "2"
    memory: Quantity = "2Gi"
    devices: Annotated[dict[DeviceName, Annotated[int, Field(ge=1, le=1000)]], Field(max_length=16)] = {}
    """Such as `nvidia.com/gpu: 1`."""


class Resources(Spec):
    """What the agent's container gets; the sidecar's own comes on top."""

    requests: Requests = Requests()
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _within(self) -> Self:
        for name in ("cpu", "memory"):
            request, limit = getattr(self.requests, name), getattr(self.limits, name)
            if quantity(request) > quantity(limit):
                raise ValueError(f"the request for {name} ({request}) is above the limit ({limit})")
        return self


class Replicas(Spec):
    """Between how many pods the autoscaler may choose; without one, where both are the same."""

    least: Annotated[int, Field(ge=1, le=1000)] = 3
    most: Annotated[int, Field(ge=1, le=1000)] = 20

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"least ({self.least}) is above most ({self.most})")
        return self


class QueueScaling(Spec):
    """Pods by how a queue stands. That takes KEDA, and a Prometheus with the control plane's metrics."""

    name: Name
    """The Queue: as many pods as keep up with what arrives and what waits."""
    prometheus: HttpUrl
    """Where Prometheus is, as KEDA reaches it: `http://prometheus-operated.monitoring.svc:9090`."""
    oldest: Annotated[Duration, AfterValidator(between("1s", "24h"))] | None = None
    """More pods, too, where the oldest task is older; by default its age makes no difference."""


class Scaling(Spec):
    """What the number of pods goes by; the most that any of these asks for."""

    cpu_percent: Annotated[int, Field(ge=1, le=1000)] = 70
    """Of the CPU that the agent requests, in the mean of all pods."""
    queue: QueueScaling | None = None


class Probes(Spec):
    """How the kubelet looks after the agent; where it asks is `agent.health.path`."""

    initial_delay: Annotated[Duration, AfterValidator(between("0s", "1h"))] = 30.0
    """Before it first asks. Whole seconds, rounded up."""
    period: Annotated[Duration, AfterValidator(between("1s", "5m"))] = 10.0
    """From one question to the next. Whole seconds, rounded up."""


@dataclass(frozen=True, slots=True)
class _Without:
    """Leaves fields out of the schema of a model."""

    names: frozenset[str]

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Pydantic's hook."""
        schema = deepcopy(handler.resolve_ref_schema(handler(core_schema)))
        for name in self.names:
            del schema["properties"][name]
        return schema


_ELSEWHERE: Final[Mapping[str, str]] = {
    "run": "is for `weft up`: here the image says what runs, or command and args do",
    "locality": "is the nodes' here: their labels say in which region and zone they are",
}


def _as_deployed(agent: AgentSpec) -> AgentSpec:
    for name, reason in _ELSEWHERE.items():
        if name in agent.model_fields_set:
            raise ValueError(f"{name} {reason}")
    if agent.protocol is AgentProtocol.MCP_STDIO:
        raise ValueError(
            "protocol mcp-stdio does not go with a sidecar in a container of its own: have the image run "
            "`python -m weft.mcp_stdio -- COMMAND`, and say mcp"
        )
    lost = next(
        (name for name, value in agent.labels.items() if "," in value or value != value.strip()), None
    )
    if lost is not None:
        raise ValueError(f"label {lost!r} has a comma, or a blank at an end, which annotations cannot carry")
    return agent


DeployedAgent = Annotated[AgentSpec, AfterValidator(_as_deployed), _Without(frozenset(_ELSEWHERE))]
"""What an Agent says, but for what a cluster knows better."""


class AgentDeploymentSpec(Spec):
    """An agent on a cluster; metadata.name is its type, and the name of all that is made for it."""

    image: ImageName
    command: Annotated[tuple[Text, ...], Field(max_length=256)] = ()
    """In place of the image's entry point. `$(NAME)` in it is a variable's value, as ever in Kubernetes."""
    args: Annotated[tuple[Text, ...], Field(max_length=256)] = ()
    """In place of the image's own."""
    pull_policy: PullPolicy | None = None
    """When nodes ask for the image; by default what Kubernetes makes of its tag."""
    pull_secrets: Annotated[tuple[SubdomainName, ...], Field(max_length=16)] = ()
    """Secrets of Kubernetes with which nodes get the image."""
    user: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    """The number of the user as which the agent runs; by default the image's, which must not be root."""
    replicas: Replicas = Replicas()
    scaling: Scaling = Scaling()
    resources: Resources = Resources()
    probes: Probes = Probes()
    environment: Annotated[dict[EnvironmentVariable, Text], Field(max_length=MAX_ITEMS)] = {}
    """Variables of the agent, as they are written here."""
    secret_environment: Annotated[
        dict[EnvironmentVariable, SecretKeyReference], Field(max_length=MAX_ITEMS)
    ] = {}
    """Variables whose values are in Secrets of Kubernetes. With HOLYSHEEP_API_KEY comes HOLYSHEEP_BASE_URL,
    unless `environment` has that."""
    agent: DeployedAgent = AgentSpec()
    """What an Agent says: capabilities, health, protocol and so on. Its port is 8080 if it says none."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        twice = sorted(self.environment.keys() & self.secret_environment.keys())
        if twice:
            raise ValueError(f"{twice[0]} is in environment and in secretEnvironment: leave one of them out")
        if "PORT" in {*self.environment, *self.secret_environment}:
            raise ValueError("PORT is what agent.port says: set that")
        return self

    @property
    def port(self) -> int:
        """Where the agent listens."""
        return self.agent.port or DEFAULT_PORT


@dataclass(frozen=True, slots=True)
class AgentDeployment:
    """One AgentDeployment."""

    name: str
    """The agent's type."""
    spec: AgentDeploymentSpec
    namespace: str | None = None
    """None: wherever it is applied."""


def read_agent_deployment(document: Mapping[str, Any], file: str = "") -> AgentDeployment:
    """The AgentDeployment that a document of that kind is, with nothing of its status.

    `file` is what errors call where it came from. Raises InvalidResource, with all that is wrong.
    """
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    namespace = metadata.get("namespace") if isinstance(metadata, dict) else None
    file = ": ".join(each for each in (file, f"{KIND}/{name}" if isinstance(name, str) else KIND) if each)
    problems = [FieldProblem(message, field, file) for field, message in _name_problems(name, namespace)]
    spec: AgentDeploymentSpec | None = None
    try:
        spec = AgentDeploymentSpec.model_validate_json(
            json.dumps(document.get("spec")), strict=True, by_alias=True, by_name=False
        )
    except ValidationError as error:
        problems += [
            FieldProblem(explain(each, AgentDeploymentSpec), _field(("spec", *each["loc"])), file)
            for each in error.errors(include_url=False)
        ]
    if problems or spec is None:
        raise InvalidResource(problems)
    return AgentDeployment(str(name), spec, namespace)


def _name_problems(name: Any, namespace: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(name, str):
        yield "metadata.name", "this field is required: it is the agent's type"
        return
    try:
        check_type(name)
    except InvalidRequest as error:
        yield "metadata.name", error.detail
    else:
        if re.fullmatch(SERVICE_NAME_PATTERN, name) is None:
            yield "metadata.name", f"{name!r} begins with a digit, which the name of a Service cannot"
    if not isinstance(namespace, str | None):
        yield "metadata.namespace", "must be text"


def _field(path: tuple[str | int, ...]) -> str:
    return ".".join(str(each) for each in path)
