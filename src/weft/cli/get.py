"""`weft get`: resources, as a table, as the manifest they came from, or as JSON."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from cyclopts import Parameter

from weft.cli.api import control_api
from weft.cli.options import ControlPlane
from weft.cli.resources import as_manifest, read_resource
from weft.cli.show import age, print_json, print_table
from weft.model.access import AccessPolicySpec, Mode
from weft.model.agent_spec import AgentSpec
from weft.model.egress import EgressMode, EgressSpec
from weft.model.queue import QueueSpec
from weft.model.resource import AnyResource
from weft.model.route import RouteSpec
from weft.model.secret import SecretSpec
from weft.model.topic import TopicSpec
from weft.model.traffic import TrafficPolicySpec

_HERE = ControlPlane()


class Form(StrEnum):
    """How resources are shown."""

    TABLE = "table"
    YAML = "yaml"
    JSON = "json"


async def get(
    kind: Annotated[str, Parameter(help="agents, routes or trafficpolicies (or one of them, singular).")],
    name: Annotated[str | None, Parameter(help="Only the one of this name.", show_default=False)] = None,
    /,
    *,
    output: Annotated[Form, Parameter(name=["--output", "-o"], help="How to show them.")] = Form.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """Show the resources of a kind, as they were declared. What runs is shown by `weft agents`."""
    async with control_api(where) as api:
        found = await api.resources(kind) if name is None else [await api.resource(kind, name)]
    if output is Form.JSON:
        print_json(found if name is None else found[0])
    elif output is Form.YAML:
        print(as_manifest(found), end="")
    else:
        rows = (_row(read_resource(each)) for each in found)
        print_table(("NAME", "GENERATION", "AGE", "WHAT"), rows, none=f"no {kind} are declared")


def _row(resource: AnyResource) -> tuple[str, ...]:
    metadata = resource.metadata
    created = metadata.creation_timestamp
    since = age(datetime.fromisoformat(created).timestamp()) if created else ""
    return (metadata.name, str(metadata.generation or ""), since, summary(resource))


def summary(resource: AnyResource) -> str:
    """What a resource says, in a few words."""
    words = ""
    match resource.spec:
        case AgentSpec() as spec:
            words = _agent(spec)
        case RouteSpec() as spec:
            words = f"{spec.destination}, {len(spec.rules)} rule{'s' if len(spec.rules) > 1 else ''}"
        case TrafficPolicySpec() as spec:
            words = f"{spec.target or 'the whole mesh'}, {spec.load_balancing.policy.value}"
        case AccessPolicySpec() as spec:
            words = _access(spec)
        case TopicSpec(encrypted=True) | QueueSpec(encrypted=True):
            words = "encrypted"
        case SecretSpec() as spec:
            words = _secret(spec)
        case EgressSpec() as spec:
            words = _egress(spec)
    return words


def _secret(spec: SecretSpec) -> str:
    hosts = sorted({each.host for each in spec.inject})
    return ", ".join(spec.data) + (f", for {', '.join(hosts)}" if hosts else "")


def _egress(spec: EgressSpec) -> str:
    callers = ", ".join(spec.for_types or ()) or "the whole mesh"
    allowed = ", ".join(each.host for each in spec.allow) or "nothing"
    return f"{callers}, {'open' if spec.mode is EgressMode.OPEN else allowed}"


def _access(spec: AccessPolicySpec) -> str:
    dry = " (dry run)" if spec.mode is Mode.DRY_RUN else ""
    if spec.default is not None:
        return f"default {spec.default.value}{dry}"
    counts = (("callers", spec.callers), ("destinations", spec.destinations), ("rules", spec.rules))
    parts = [f"{what}: {len(those) or 'any'}" for what, those in counts]
    return f"{spec.effect.value if spec.effect else ''}{dry}, {', '.join(parts)}"


def _agent(spec: AgentSpec) -> str:
    parts = [", ".join(spec.capabilities)] if spec.capabilities else []
    parts += [f"version {spec.version}"] if spec.version else []
    parts += [f"{spec.run.replicas} run by weft up"] if spec.run else []
    return "; ".join(parts) or spec.description
