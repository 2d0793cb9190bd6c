"""What members ask about topics and queues: where they are, how they are declared, who gets what."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Response
from pydantic import Field

from weft.controlplane.api.access import requires
from weft.controlplane.api.authentication import CurrentCaller, Peer
from weft.controlplane.api.body import Body
from weft.controlplane.api.context import CurrentAccess, CurrentMessaging
from weft.errors import Denied
from weft.messaging.broker import Start
from weft.model.inbox import inbox_queue
from weft.model.names import MAX_NAME_LENGTH, check_type
from weft.model.operator import Scope
from weft.model.spec import Spec
from weft.model.spiffe import Role

router = APIRouter(prefix="/v1", tags=["messages"])

_MEMBERS = [Depends(requires(Scope.ADMIN, peers=[Role.AGENT, Role.OPERATOR]))]
_READERS = [Depends(requires(Scope.VIEWER, peers=[Role.AGENT, Role.OPERATOR]))]

Name = Annotated[str, Path(max_length=MAX_NAME_LENGTH)]
TypeName = Annotated[str, Path(max_length=MAX_NAME_LENGTH)]


class BrokerOut(Body):
    """Where topics and queues are."""

    type: str
    """`nats`, `redis` or `rabbitmq`."""
    url: str
    """Empty: in the NATS of the mesh."""
    username: str
    password: str


class Declared(Body):
    """How a topic or queue is declared."""

    name: str
    spec: dict[str, Any]
    """As in the resource, defaults filled in."""


class StartIn(Body):
    """Where a new group begins."""

    sequence: Annotated[int, Field(ge=1)] | None = None
    """At the message of that sequence; 1 is the first of all."""
    time: Annotated[float, Field(ge=0)] | None = None
    """At what was published then (seconds since 1970) or later."""

    @property
    def value(self) -> Start:
        """As brokers want it."""
        return Start(self.sequence, self.time)


class SubscriptionIn(Body):
    """What a member wants to subscribe to."""

    topic: Annotated[str, Field(min_length=1, max_length=300)]
    """`orders`, `orders.created`, `orders.*.eu`, `*.failed`, `>`."""
    every_instance: bool = False
    """Whether every instance of the agent's type gets each event, rather than one of them."""
    start: StartIn | None = None
    """Where it begins if it is new; if omitted, at what is published from now on."""


class GroupOut(Body):
    """A group from which the member may pull."""

    topic: str
    group: str


class SubscriptionsOut(Body):
    """One for each topic that the pattern stands for and that the member may subscribe to."""

    subscriptions: list[GroupOut]


class InboxOut(Body):
    """Where what an agent type is sent waits for it."""

    queue: str


@router.get("/broker", dependencies=_MEMBERS)
async def broker(messaging: CurrentMessaging, response: Response) -> BrokerOut:
    """Where topics and queues are, and how to get in; for processes of the mesh."""
    response.headers["cache-control"] = "no-store"
    access = messaging.brokerage.access
    return BrokerOut(type=access.type, url=access.url, username=access.username, password=access.password)


@router.get("/queues/{name}", dependencies=_READERS)
async def queue(messaging: CurrentMessaging, name: Name) -> Declared:
    """How a queue is declared."""
    return Declared(name=name, spec=_document(await messaging.brokerage.queue(name)))


@router.get("/topics/{name}", dependencies=_READERS)
async def topic(messaging: CurrentMessaging, name: Name) -> Declared:
    """How a topic is declared."""
    return Declared(name=name, spec=_document(await messaging.brokerage.topic(name)))


@router.post("/subscriptions", dependencies=_MEMBERS)
async def subscribe(
    messaging: CurrentMessaging, access: CurrentAccess, caller: CurrentCaller, body: SubscriptionIn
) -> SubscriptionsOut:
    """Have groups for the calling agent's type, or for that instance, in all topics that it may have."""
    if not isinstance(caller, Peer):
        raise Denied("only agents subscribe, which show a certificate; read a topic with `weft topic sub`")
    try:
        groups = await messaging.brokerage.subscribe(
            caller.id,
            body.topic,
            every_instance=body.every_instance,
            start=body.start.value if body.start is not None else Start(),
        )
    except Denied as error:
        access.recorder.denied(caller.who, "subscribe", f"topic/{body.topic}", error.detail)
        raise
    return SubscriptionsOut(subscriptions=[GroupOut(topic=each.topic, group=each.group) for each in groups])


@router.put("/inboxes/{agent_type}", dependencies=_MEMBERS)
async def inbox(
    messaging: CurrentMessaging, access: CurrentAccess, caller: CurrentCaller, agent_type: TypeName
) -> InboxOut:
    """Have a queue for what agents of a type are sent by A2A: they ask for it themselves. It stays."""
    check_type(agent_type)
    if isinstance(caller, Peer) and caller.id.segments[:2] != (Role.AGENT, agent_type):
        detail = f"{caller.id} is no agent of type {agent_type!r}: each type has its own inbox only"
        access.recorder.denied(caller.who, "open inbox", f"agent/{agent_type}", detail)
        raise Denied(detail)
    await messaging.inboxes.have(agent_type)
    return InboxOut(queue=inbox_queue(agent_type))


def _document(spec: Spec) -> dict[str, Any]:
    return spec.model_dump(mode="json", by_alias=True)
