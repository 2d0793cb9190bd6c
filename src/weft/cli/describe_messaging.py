"""All about one queue, topic or gateway: how it is declared, and how it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from weft.cli.queue_table import queue_facts
from weft.cli.resources import as_manifest, read_resource
from weft.cli.show import age, console, print_facts, print_table
from weft.cli.topic_table import group_table, topic_facts
from weft.errors import Denied, NotFound
from weft.local.control import ControlApi
from weft.local.messaging_control import MessagingApi


@dataclass(frozen=True, slots=True)
class QueueDescription:
    """What there is to say about a queue."""

    resource: dict[str, Any] | None
    """None for those of the mesh itself, which nobody declared."""
    status: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """As JSON types."""
        return {"resource": self.resource, "status": self.status}

    def show(self) -> None:
        """Print it for people."""
        _print_resource(self.resource)
        print("\nStatus")
        print_facts(queue_facts(self.status))


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """What there is to say about a topic."""

    resource: dict[str, Any] | None
    """None for those of the mesh itself, which nobody declared."""
    status: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """As JSON types."""
        return {"resource": self.resource, "status": self.status}

    def show(self) -> None:
        """Print it for people."""
        _print_resource(self.resource)
        print("\nStatus")
        print_facts(topic_facts(self.status))
        print("\nGroups")
        if self.status["groups"]:
            console().print(group_table(self.status))
        else:
            console(stderr=True).print("  nobody has subscribed yet")


@dataclass(frozen=True, slots=True)
class GatewayDescription:
    """What there is to say about a gateway."""

    resource: dict[str, Any]
    instances: list[dict[str, Any]]
    keys: list[dict[str, Any]] | None
    """Of its callers, without the keys themselves; None for those who may not see them."""

    def document(self) -> dict[str, Any]:
        """As JSON types."""
        return {"resource": self.resource, "instances": self.instances, "keys": self.keys}

    def show(self) -> None:
        """Print it for people."""
        _print_resource(self.resource)
        print(f"\nListens at {read_resource(self.resource).spec.url}")
        print("\nInstances")
        rows = (
            (f"  {each['id']}", each["status"], str(each["inFlight"]), age(each["startedAt"]), each["reason"])
            for each in self.instances
        )
        columns = ("  INSTANCE", "STATUS", "IN FLIGHT", "AGE", "REASON")
        print_table(columns, rows, none="  none is running")
        if self.keys is not None:
            print("\nAPI keys")
            print(f"  {', '.join(each['name'] for each in self.keys) or 'none'}")


async def describe_queue(api: ControlApi, name: str) -> QueueDescription:
    """All about a queue. Raises NotFound."""
    status = await MessagingApi(api).queue(name)
    return QueueDescription(await _declared(api, "queues", name), status)


async def describe_topic(api: ControlApi, name: str) -> TopicDescription:
    """All about a topic. Raises NotFound."""
    status = await MessagingApi(api).topic(name)
    return TopicDescription(await _declared(api, "topics", name), status)


async def describe_gateway(api: ControlApi, name: str) -> GatewayDescription:
    """All about a gateway. Raises NotFound."""
    resource = await api.resource("gateways", name)
    try:
        keys = await MessagingApi(api).keys(name)
    except Denied:
        keys = None
    return GatewayDescription(resource, await api.agents([("type", name), ("status", "any")]), keys)


async def _declared(api: ControlApi, kind: str, name: str) -> dict[str, Any] | None:
    try:
        return await api.resource(kind, name)
    except NotFound:
        return None


def _print_resource(resource: dict[str, Any] | None) -> None:
    if resource is None:
        print("# not declared: it is the mesh's own")
    else:
        print(as_manifest([resource]), end="")
