"""`weft get`: resources, as a table, as the manifest they came from, or as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from cyclopts import Parameter

from weft.cli.api import control_api
from weft.cli.options import ControlPlane
from weft.cli.resources import as_manifest, read_resource
from weft.cli.show import age, print_json, print_table
from weft.model.access import AccessPolicySpec, Mode
from weft.model.agent_spec import AgentSpec
from weft.model.duration import format_duration
from weft.model.egress import EgressMode, EgressSpec
from weft.model.external_agent import ExternalAgentSpec, ExternalTls
from weft.model.gateway import GatewaySpec
from weft.model.message_broker import BrokerSpec
from weft.model.queue import QueueSpec
from weft.model.resource import AnyResource
from weft.model.route import RouteSpec
from weft.model.secret import SecretSpec
from weft.model.spec import Spec
from weft.model.telemetry import AccessLogging, TelemetrySpec
from weft.model.topic import TopicSpec
from weft.model.traffic import TrafficPolicySpec

_HERE = ControlPlane()


class Form(StrEnum):
    """How resources are shown."""

    TABLE = "table"
    YAML = "yaml"
    JSON = "json"


async def get(
    kind: Annotated[str, Parameter(help="agents, routes, queues, topics, gateways and so on (or singular).")],
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
    words = _SUMMARIES.get(type(resource.spec))
    return words(resource.spec) if words is not None else ""


def _queue(spec: QueueSpec) -> str:
    parts = ["encrypted"] if spec.encrypted else []
    parts += [f"{spec.concurrency} at once per worker", f"{spec.max_deliveries} attempts"]
    return ", ".join(parts)


def _topic(spec: TopicSpec) -> str:
    parts = ["encrypted"] if spec.encrypted else []
    parts += [f"ordered by key in {spec.partitions} partitions"] if spec.partitions else []
    return ", ".join([*parts, f"kept for {format_duration(spec.max_age)}"])


def _gateway(spec: GatewaySpec) -> str:
    lets_in = ["API keys", *(each.issuer for each in spec.jwt), *(["anyone"] if spec.anonymous else [])]
    return f"{spec.url} for {', '.join(lets_in)}; {spec.replicas} run by weft up"


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


def _external(spec: ExternalAgentSpec) -> str:
    first, *others = spec.endpoints
    parts = [first + (f" and {len(others)} more" if others else "")]
    parts += [", ".join(spec.capabilities)] if spec.capabilities else []
    parts += [f"version {spec.version}"] if spec.version else []
    parts += ["in plain text"] if spec.tls is ExternalTls.NONE else []
    return "; ".join(parts)


def _route(spec: RouteSpec) -> str:
    return f"{spec.destination}, {len(spec.rules)} rule{'s' if len(spec.rules) > 1 else ''}"


def _traffic(spec: TrafficPolicySpec) -> str:
    return f"{spec.target or 'the whole mesh'}, {spec.load_balancing.policy.value}"


def _telemetry(spec: TelemetrySpec) -> str:
    parts = [str(spec.target or "the whole mesh")]
    if spec.tracing.sampling_percent is not None:
        parts.append(f"{spec.tracing.sampling_percent:g} % traced")
    if spec.access_log is not AccessLogging.NONE:
        parts.append(f"access log of {spec.access_log.value}")
    if spec.recording.messages:
        parts.append("messages recorded")
    return ", ".join(parts)


def _broker(spec: BrokerSpec) -> str:
    return f"{spec.type.value}, {spec.url}" if spec.url else spec.type.value


_SUMMARIES: Mapping[type[Spec], Callable[[Any], str]] = {
    AgentSpec: _agent,
    RouteSpec: _route,
    TrafficPolicySpec: _traffic,
    AccessPolicySpec: _access,
    TopicSpec: _topic,
    QueueSpec: _queue,
    BrokerSpec: _broker,
    GatewaySpec: _gateway,
    SecretSpec: _secret,
    EgressSpec: _egress,
    TelemetrySpec: _telemetry,
    ExternalAgentSpec: _external,
}
