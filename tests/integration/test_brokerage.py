"""The broker brought in line with what is declared, in a real NATS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.servers import nats_server

from weft.aio.poll import until
from weft.aio.tasks import TaskOwner
from weft.controlplane.brokerage import Brokerage
from weft.controlplane.inboxes import Inboxes
from weft.errors import MeshError, NotFound
from weft.messaging.broker import TopicSettings, TopicStats
from weft.messaging.brokers.nats import NatsBroker
from weft.messaging.message import Message
from weft.model.decision import Decision
from weft.model.inbox import inbox_queue
from weft.model.manifest import parse_documents
from weft.model.spiffe import parse_spiffe_id
from weft.model.task import TaskState
from weft.resources.store import Resources
from weft.resources.view import ResourceView
from weft.store.nats import NatsStore
from weft.tasks.client import TaskClient

LIMIT = 60.0

SMALL = "{maxBytes: 1048576}"


class Scene:
    """A brokerage at work."""

    def __init__(
        self,
        store: NatsStore,
        resources: Resources,
        brokerage: Brokerage,
        broker: NatsBroker,
        inboxes: Inboxes,
    ) -> None:
        self.store = store
        self.resources = resources
        self.brokerage = brokerage
        self.broker = broker
        self.inboxes = inboxes

    async def apply(self, *documents: tuple[str, str, str]) -> None:
        """Declare these: kind, name, spec."""
        text = "---\n".join(
            f"apiVersion: weft.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
            for kind, name, spec in documents
        )
        await self.resources.apply(parse_documents(text))

    async def takes(self, topic: str, *, partition: int = 0) -> None:
        """Wait until events can be published to the topic."""

        async def taken() -> bool:
            try:
                return await self.broker.publish(topic, Message("m", b"1"), partition=partition) > 0
            except MeshError:
                return False

        async with asyncio.timeout(LIMIT):
            await until(taken)

    async def stands(self, topic: str, holds: Callable[[TopicStats | None], bool]) -> None:
        """Wait until that is true of a topic as it stands; None: there is none."""

        async def so() -> bool:
            try:
                return holds(await self.broker.topic_stats(topic))
            except NotFound:
                return holds(None)

        async with asyncio.timeout(LIMIT):
            await until(so)


@asynccontextmanager
async def scene(directory: Path) -> AsyncIterator[Scene]:
    async with nats_server(directory, max_store=64 * 1024 * 1024) as server, TaskOwner("test") as tasks:
        store = await NatsStore.connect([server.url], name="test")
        resources = await Resources.open(store)
        broker = NatsBroker(store.connection)
        # Made before there is any control plane, and otherwise than it will be declared.
        await broker.declare_topic(TopicSettings("a-other", partitions=2, max_bytes=1024 * 1024))
        async with ResourceView.follow(resources) as declared, Inboxes.follow(store) as inboxes:
            brokerage = await Brokerage.open(
                store,
                declared,
                lambda _secret, _key: None,
                lambda _member, _request: Decision(allowed=True, policy="", reason=""),
                inboxes,
            )
            tasks.start(brokerage.run(), name="brokerage", endless=True)
            yield Scene(store, resources, brokerage, broker, inboxes)
            await tasks.close()
        await store.close()


async def test_what_the_broker_refuses_keeps_nothing_else_from_being_declared(tmp_path: Path) -> None:
    async with scene(tmp_path) as mesh:
        await mesh.apply(
            ("Topic", "a-other", SMALL),
            *(("Topic", f"b-huge-{number}", "{maxBytes: 1099511627776}") for number in range(4)),
            ("Topic", "z", SMALL),
        )
        await mesh.takes("z")
        await mesh.apply(("Topic", "b-huge-2", SMALL))
        await mesh.takes("b-huge-2")


async def test_a_topic_deleted_and_declared_anew_at_once_begins_anew(tmp_path: Path) -> None:
    async with scene(tmp_path) as mesh:
        await mesh.apply(("Topic", "z", SMALL))
        await mesh.takes("z")
        await mesh.resources.delete("Topic", "z")
        await mesh.apply(("Topic", "z", "{maxBytes: 1048576, partitions: 4}"))
        await mesh.stands("z", lambda stats: stats is not None and stats.messages == 0)
        await mesh.takes("z", partition=3)


async def test_who_subscribes_to_a_topic_hears_of_it_when_it_was_deleted_and_declared_anew(
    tmp_path: Path,
) -> None:
    reader = parse_spiffe_id("spiffe://weft.local/agent/reader/r-1")
    async with scene(tmp_path) as mesh:
        await mesh.apply(("Topic", "z", SMALL))
        await mesh.takes("z")
        [subscription] = await mesh.brokerage.subscribe(reader, "z", every_instance=False)
        await mesh.resources.delete("Topic", "z")
        await mesh.stands("z", lambda stats: stats is None)
        await mesh.apply(("Topic", "z", SMALL))
        await mesh.stands("z", lambda stats: stats is not None and len(stats.groups) == 1)
        await mesh.broker.publish("z", Message("m", b"1"))
        consumer = await mesh.broker.group_consumer("z", subscription.group)
        assert [each.message.body for each in await consumer.pull(1, wait=LIMIT)] == [b"1"]
        await consumer.aclose()


async def test_what_the_broker_has_lost_is_declared_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weft.controlplane.brokerage.LOOK_INTERVAL", 0.2)
    async with scene(tmp_path) as mesh:
        await mesh.apply(("Topic", "z", SMALL))
        await mesh.takes("z")
        await mesh.broker.remove_topic("z")
        await mesh.takes("z")


async def test_what_is_left_of_a_queue_that_is_deleted_are_cancelled_tasks(tmp_path: Path) -> None:
    async with scene(tmp_path) as mesh:
        await mesh.apply(("Queue", "work", "{}"))
        client = await TaskClient.open(
            mesh.store, mesh.broker, mesh.brokerage.queue, submitter="operator/test"
        )

        async def is_there() -> bool:
            try:
                return (await mesh.broker.queue_stats("work")).ready == 0
            except NotFound:
                return False

        async with asyncio.timeout(LIMIT):
            await until(is_there)
            task = (await client.submit("work", 1)).task
            await mesh.resources.delete("Queue", "work")
            assert (await client.wait(task.id, LIMIT)).state is TaskState.CANCELLED


async def test_an_inbox_that_is_asked_for_is_a_queue_of_the_broker(tmp_path: Path) -> None:
    async with scene(tmp_path) as mesh:
        queue = inbox_queue("editor")
        with pytest.raises(NotFound):
            await mesh.brokerage.queue(queue)
        await mesh.inboxes.have("editor")
        await mesh.inboxes.have("editor")

        async def taken() -> bool:
            try:
                await mesh.broker.enqueue(queue, Message("m", b"1"))
            except MeshError:
                return False
            return True

        async with asyncio.timeout(LIMIT):
            await until(taken)
        assert (await mesh.brokerage.queue(queue)).max_deliveries == 3


async def test_a_queue_declared_by_the_name_of_an_inbox_goes_before_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as mesh:
        await mesh.inboxes.have("editor")
        await mesh.apply(("Queue", inbox_queue("editor"), "{maxDeliveries: 7}"))
        async with asyncio.timeout(LIMIT):
            await until(lambda: _deliveries(mesh, 7))


async def _deliveries(mesh: Scene, number: int) -> bool:
    return mesh.brokerage.queues[inbox_queue("editor")].max_deliveries == number
