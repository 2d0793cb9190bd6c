"""`weft describe`: all about one resource; of an agent also who runs, how they are, and what applies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

from cyclopts import Parameter

from weft.cli.api import control_api
from weft.cli.describe_messaging import (
    GatewayDescription,
    QueueDescription,
    TopicDescription,
    describe_gateway,
    describe_queue,
    describe_topic,
)
from weft.cli.external_agents import in_the_way
from weft.cli.options import ControlPlane, Output, OutputOption
from weft.cli.resources import as_manifest, read_resource
from weft.cli.show import age, print_json, print_table, printable
from weft.errors import InvalidRequest, NotFound
from weft.local.control import ControlApi
from weft.model.resource import KINDS, canonical_kind

_HERE = ControlPlane()

_KINDS = ", ".join(sorted(each.lower() for each in KINDS))


@dataclass(frozen=True, slots=True)
class Description:
    """What there is to say about a resource."""

    resource: dict[str, Any] | None
    """None for agents that run without being declared."""
    instances: list[dict[str, Any]]
    policies: list[dict[str, Any]]
    routes: list[dict[str, Any]]
    remark: str = ""
    """What stands in the way of it; empty: nothing."""

    def document(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "resource": self.resource,
            "instances": self.instances,
            "trafficPolicies": [each["metadata"]["name"] for each in self.policies],
            "routes": [each["metadata"]["name"] for each in self.routes],
            **({"remark": self.remark} if self.remark else {}),
        }

    def show(self) -> None:
        """Print it for people."""
        _print(self)


async def describe(
    kind: Annotated[
        str, Parameter(help="agent, route, trafficpolicy, queue, topic, gateway, or another kind.")
    ],
    name: Annotated[str, Parameter(help="Its name; of an agent its type.")],
    /,
    *,
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """Show all about one resource.

    Of an agent: what is declared, its instances with their health and the state of their sidecars'
    configuration, and the policies and routes that apply to it. Of a queue or topic: how it stands. Of a
    gateway: where it listens, its instances, and whose API keys it takes.
    """
    known = canonical_kind(kind)
    if known is None:
        raise InvalidRequest(f"there is no kind {kind!r}: use {_KINDS}")
    async with control_api(where) as api:
        description = await _describe(api, known, name)
    if output is Output.JSON:
        print_json(description.document())
    else:
        description.show()


async def _describe(
    api: ControlApi, kind: str, name: str
) -> Description | QueueDescription | TopicDescription | GatewayDescription:
    match kind:
        case "Agent":
            return await _describe_agent(api, name)
        case "ExternalAgent":
            return await _describe_external(api, name)
        case "Queue":
            return await describe_queue(api, name)
        case "Topic":
            return await describe_topic(api, name)
        case "Gateway":
            return await describe_gateway(api, name)
    return await _describe_rule(api, kind, name)


async def _describe_agent(api: ControlApi, name: str) -> Description:
    listed = await api.agents([("type", name), ("status", "any")])
    instances = [await _in_detail(api, each) for each in listed]
    try:
        resource = await api.resource("agents", name)
    except NotFound:
        if not instances:
            raise
        resource = None
    return await _as_called(api, name, resource, instances)


async def _describe_external(api: ControlApi, name: str) -> Description:
    resource = await api.resource("externalagents", name)
    instances = await api.agents([("status", "any")])
    description = await _as_called(
        api, name, resource, [await _in_detail(api, each) for each in instances if each["type"] == name]
    )
    return replace(description, remark=in_the_way(read_resource(resource), instances))


async def _as_called(
    api: ControlApi, name: str, resource: dict[str, Any] | None, instances: list[dict[str, Any]]
) -> Description:
    """With what applies to calls of a type."""
    capabilities = {capability for each in instances for capability in each["capabilities"]}
    capabilities |= set((resource or {}).get("spec", {}).get("capabilities", ()))
    return Description(
        resource,
        instances,
        [
            each
            for each in await api.resources("trafficpolicies")
            if _concerns(each, "target", name, capabilities)
        ],
        [
            each
            for each in await api.resources("routes")
            if _concerns(each, "destination", name, capabilities)
        ],
    )


async def _describe_rule(api: ControlApi, kind: str, name: str) -> Description:
    resource = await api.resource(kind, name)
    spec = resource["spec"]
    target = spec.get("destination") or spec.get("target") or {}
    query = [(member, str(value)) for member, value in target.items()]
    return Description(resource, await api.agents([*query, ("status", "any")]), [], [])


async def _in_detail(api: ControlApi, instance: dict[str, Any]) -> dict[str, Any]:
    try:
        return await api.agent(instance["type"], instance["id"])
    except NotFound:
        return {**instance, "sync": None}  # it has just gone


def _concerns(resource: dict[str, Any], member: str, agent_type: str, capabilities: set[str]) -> bool:
    """Whether a rule is about agents of this type; one without a target is about all."""
    target = resource["spec"].get(member)
    return not target or target.get("type") == agent_type or target.get("capability") in capabilities


def _print(description: Description) -> None:
    if description.resource is None:
        print("# not declared: these agents run by themselves")
    else:
        print(as_manifest([description.resource]), end="")
    if description.remark:
        print(f"\nIt does not get all its calls\n  {description.remark}")
    external = (description.resource or {}).get("kind") == "ExternalAgent"
    print(f"\nInstances{' with sidecars' if external else ''}")
    rows = (_row(each) for each in description.instances)
    columns = ("  INSTANCE", "STATUS", "IN FLIGHT", "VERSION", "ENDPOINT", "AGE", "CONFIGURATION", "REASON")
    print_table(columns, rows, none="  none run")
    for instance in description.instances:
        _print_rejections(instance)
    for title, found in (("Traffic policies", description.policies), ("Routes", description.routes)):
        if found:
            print(f"\n{title} that apply\n  {', '.join(each['metadata']['name'] for each in found)}")


def _row(instance: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"  {instance['id']}",
        instance["status"],
        str(instance["inFlight"]),
        instance["version"],
        instance["endpoint"],
        age(instance["startedAt"]),
        _configuration(instance.get("sync")),
        instance["reason"],
    )


def _configuration(sync: dict[str, Any] | None) -> str:
    if sync is None:
        return "unknown"
    if sync.get("rejected"):
        return "rejected"
    return "in sync" if sync.get("inSync") else "updating"


def _print_rejections(instance: dict[str, Any]) -> None:
    """What the sidecar's Envoy refused; it goes on with what it had."""
    for each in (instance.get("sync") or {}).get("rejected", ()):
        names = ", ".join(each["resources"]) or "everything"
        print(f"\n  {instance['id']} rejected {names} of {each['typeUrl']}:")
        print(f"    {printable(each['reason'])}")
