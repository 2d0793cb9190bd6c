"""Topics, queues and tasks, as the control plane uses them for operators: put together."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from weft.controlplane.brokerage import Brokerage, Decide, SecretValue
from weft.controlplane.gateways import Gateways
from weft.controlplane.inboxes import Inboxes
from weft.controlplane.message_custody import MessageCustody
from weft.controlplane.queue_figures import QueueFigures
from weft.controlplane.sealing import Sealer
from weft.events.publisher import EventPublisher
from weft.messaging.broker import Broker, Consumer, Priority
from weft.messaging.channel import Channel
from weft.messaging.message import Message
from weft.messaging.protection import NoProtection
from weft.messaging.sealing import Binding, seal
from weft.resources.view import ResourceView
from weft.store.bucket import Store
from weft.store.nats import NatsStore
from weft.tasks.client import TaskClient
from weft.tasks.purge import Purge
from weft.tasks.redrive import Redrive

SOURCE = "/control"
"""The attribute `source` of events that operators publish by way of the control plane."""


@dataclass(frozen=True, slots=True)
class Messaging:
    """The parts; have `brokerage.run` and `figures.run` run."""

    store: Store
    brokerage: Brokerage
    tasks: TaskClient
    events: EventPublisher
    gateways: Gateways
    figures: QueueFigures
    decide: Decide
    inboxes: Inboxes

    async def redrive(self, queue: str, ids: Collection[str] | None) -> int:
        """Have these tasks, or all that failed, tried anew; how many. Raises NotFound and Unavailable."""
        return await (await Redrive.open(self.store, self.brokerage.broker)).redrive(queue, ids)

    async def purge(self, queue: str, *, dead: bool) -> int:
        """Throw away what waits, and cancel the tasks that it was; or the dead letters. How many messages.

        Raises NotFound and Unavailable.
        """
        if dead:
            return await self.brokerage.broker.purge(queue, dead=True)
        return await (await Purge.open(self.store, self.brokerage.broker)).purge(queue)


async def open_messaging(
    store: NatsStore,
    declared: ResourceView,
    custody: MessageCustody,
    *,
    sealer: Sealer,
    secret_value: SecretValue,
    decide: Decide,
    inboxes: Inboxes,
    metrics: CollectorRegistry,
) -> Messaging:
    """Everything over `store`, which stays the caller's to close. Raises Unavailable."""
    brokerage = await Brokerage.open(store, declared, secret_value, decide, inboxes)
    broker = _CurrentBroker(brokerage)
    protection = _Sealing(custody)
    tasks = await TaskClient.open(store, broker, brokerage.queue, submitter="operator", protection=protection)
    return Messaging(
        store,
        brokerage,
        tasks,
        EventPublisher(broker, brokerage.topic, source=SOURCE, protection=protection),
        await Gateways.open(store, sealer),
        QueueFigures(brokerage, tasks, metrics),
        decide,
        inboxes,
    )


class _CurrentBroker:
    """Whichever broker is declared at the moment, as a Broker."""

    def __init__(self, brokerage: Brokerage) -> None:
        self._brokerage = brokerage

    @property
    def _broker(self) -> Broker:
        return self._brokerage.broker

    async def enqueue(
        self, queue: str, message: Message, *, priority: Priority = Priority.NORMAL, delay: float = 0.0
    ) -> None:
        await self._broker.enqueue(queue, message, priority=priority, delay=delay)

    async def publish(self, topic: str, message: Message, *, subtopic: str = "", partition: int = 0) -> int:
        return await self._broker.publish(topic, message, subtopic=subtopic, partition=partition)

    async def queue_consumer(self, queue: str) -> Consumer:
        return await self._broker.queue_consumer(queue)

    async def group_consumer(self, topic: str, group: str) -> Consumer:
        return await self._broker.group_consumer(topic, group)

    async def aclose(self) -> None:
        """The brokerage closes it."""


class _Sealing(NoProtection):
    """Seals what operators send. It opens nothing: who operates the mesh need not read its messages."""

    def __init__(self, custody: MessageCustody) -> None:
        super().__init__("is encrypted for its consumers: the control plane does not open its messages")
        self._custody = custody

    async def seal(
        self, channel: Channel, message_id: str, content_type: str, body: bytes, *, encrypted: bool
    ) -> bytes:
        if not encrypted:
            return body
        key = await self._custody.keys.publishing_key(channel)
        return seal(body, key, Binding(channel, message_id, content_type))
