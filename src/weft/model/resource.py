"""Resources: what operators declare, in the same YAML for `weft apply` and for Kubernetes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

from pydantic import Field

from weft.model.access import AccessPolicySpec
from weft.model.agent_spec import AgentSpec, Labels
from weft.model.budget import BudgetSpec
from weft.model.egress import EgressSpec
from weft.model.external_agent import ExternalAgentSpec
from weft.model.gateway import GatewaySpec
from weft.model.message_broker import BrokerSpec
from weft.model.model_pool import ModelPoolSpec
from weft.model.queue import QueueSpec
from weft.model.route import RouteSpec
from weft.model.secret import STORED, SecretSpec
from weft.model.spec import Name, ShortText, Spec, Text
from weft.model.telemetry import TelemetrySpec
from weft.model.tool import ToolSpec
from weft.model.topic import TopicSpec
from weft.model.traffic import TrafficPolicySpec

KINDS: Final[Mapping[str, type[Spec]]] = {
    "Agent": AgentSpec,
    "Route": RouteSpec,
    "TrafficPolicy": TrafficPolicySpec,
    "Secret": SecretSpec,
    "Egress": EgressSpec,
    "AccessPolicy": AccessPolicySpec,
    "Topic": TopicSpec,
    "Queue": QueueSpec,
    "Broker": BrokerSpec,
    "Gateway": GatewaySpec,
    "ModelPool": ModelPoolSpec,
    "Budget": BudgetSpec,
    "Tool": ToolSpec,
    "Telemetry": TelemetrySpec,
    "ExternalAgent": ExternalAgentSpec,
}
"""The spec of each kind of resource."""


DECLARED_IN: Final = "weft.dev/declared-in"
"""Annotation: in which cluster and namespace a resource is declared that came from a cluster.

It stays when the resource is applied without it, since it says who else has the resource.
"""


class Metadata(Spec):
    """Who a resource is, and where it stands."""

    name: Name
    labels: Labels = {}
    annotations: Annotated[dict[ShortText, Text], Field(max_length=128)] = {}
    resource_version: Annotated[str, Field(pattern=r"^\d{1,20}$")] | None = None
    """Changes with every write. An update that carries one is refused if another was written meanwhile."""
    generation: Annotated[int, Field(ge=0)] | None = None
    """Grows with every change of the spec. Set by the mesh."""
    creation_timestamp: ShortText | None = None
    """RFC 3339. Set by the mesh."""


SpecT = TypeVar("SpecT", bound=Spec)


class Resource(Spec, Generic[SpecT]):
    """One declared resource; what kind it is shows in the class of its spec."""

    api_version: Literal["weft.dev/v1alpha1"]
    kind: str
    metadata: Metadata
    spec: SpecT

    @property
    def key(self) -> str:
        """Its key in the store: `<kind>.<name>`, the kind in lower case."""
        return f"{self.kind.lower()}.{self.metadata.name}"

    def document(self) -> dict[str, Any]:
        """This resource as JSON types, in the form in which it is declared, without what is not set.

        The values of a Secret are not shown.
        """
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)

    def stored(self) -> dict[str, Any]:
        """The same for the store, with a Secret's values as they were sealed.

        Raises ValueError if they are not sealed.
        """
        return self.model_dump(
            mode="json", by_alias=True, exclude_unset=True, exclude_none=True, context=STORED
        )


AnyResource = Resource[Any]


def resource_model(kind: str) -> type[AnyResource] | None:
    """The model of the resources of a kind; None if there is no such kind."""
    spec = KINDS.get(kind)
    return Resource[spec] if spec is not None else None  # type: ignore[valid-type]


def canonical_kind(name: str) -> str | None:
    """The kind that people mean by `agent`, `agents`, `Agent`, `trafficpolicies`; None if there is none."""
    given = name.lower()
    for kind in KINDS:
        singular = kind.lower()
        if given in {singular, f"{singular}s", f"{singular}es", f"{singular.removesuffix('y')}ies"}:
            return kind
    return None
