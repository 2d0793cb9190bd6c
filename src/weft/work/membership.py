"""What a member of the mesh uses topics, queues, tasks and contexts by: a broker, a store, its identity."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from weft.contexts.contexts import AskedTenant, Contexts
from weft.events.publisher import EventPublisher
from weft.messaging.broker import Broker
from weft.messaging.control import Ask, Directory
from weft.messaging.keyed import KeyedProtection
from weft.messaging.protection import Protection
from weft.model.spiffe import SpiffeId
from weft.store.bucket import Store
from weft.tasks.client import TaskClient
from weft.work.metrics import WorkMetrics


@dataclass(frozen=True, slots=True)
class Membership:
    """A program's place in the mesh, as far as topics and queues go."""

    name: str
    """`<type>.<instance>`, or `operator.<name>` for a program without an agent."""
    identity: str
    """Its SPIFFE ID."""
    store: Store
    broker: Broker
    directory: Directory
    protection: Protection
    tasks: TaskClient
    events: EventPublisher
    contexts: Contexts
    metrics: WorkMetrics = field(default_factory=WorkMetrics)
    resources: AsyncExitStack = field(default_factory=AsyncExitStack)
    """What `aclose` lets go of."""

    async def aclose(self) -> None:
        """Let go of all connections."""
        await self.resources.aclose()


async def join(
    store: Store,
    broker: Broker,
    ask: Ask,
    *,
    identity: SpiffeId,
    resources: AsyncExitStack,
    metrics: WorkMetrics | None = None,
) -> Membership:
    """The membership of `identity` over `store` and `broker`; `ask` asks the control plane.

    Closing it closes `resources`; `metrics` counts what it does. Raises Unavailable and Denied.
    """
    metrics = metrics or WorkMetrics()
    directory = Directory(ask)
    protection = KeyedProtection(ask)
    who = str(identity)
    return Membership(
        name=".".join(identity.segments[1:]) or who,
        identity=who,
        store=store,
        broker=broker,
        directory=directory,
        protection=protection,
        tasks=await TaskClient.open(
            store,
            broker,
            directory.queue,
            submitter=who,
            protection=protection,
            metrics=metrics.submissions,
        ),
        events=EventPublisher(broker, directory.topic, source=who, protection=protection),
        contexts=await Contexts.open(store, AskedTenant(ask), author=who),
        metrics=metrics,
        resources=resources,
    )
