"""The broker brought in line with what is declared, in a real NATS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.servers import nats_server

from weft.aio.poll import until
from weft.aio.tasks import TaskOwner
from weft.controlplane.brokerage import Brokerage
from weft.errors import MeshError
from weft.messaging.broker import TopicSettings
from weft.messaging.brokers.nats import NatsBroker
from weft.messaging.message import Message
from weft.model.decision import Decision
from weft.model.manifest import parse_documents
from weft.resources.store import Resources
from weft.resources.view import ResourceView
from weft.store.nats import NatsStore

LIMIT = 30.0


class Scene:
    """A brokerage at work."""

    def __init__(self, resources: Resources, broker: NatsBroker) -> None:
        self.resources = resources
        self.broker = broker

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

    async def empty(self, topic: str) -> None:
        """Wait until there is a topic of that name that holds nothing."""

        async def is_empty() -> bool:
            try:
                return (await self.broker.topic_stats(topic)).messages == 0
            except MeshError:
                return False

        async with asyncio.timeout(LIMIT):
            await until(is_empty)


@asynccontextmanager
async def scene(directory: Path) -> AsyncIterator[Scene]:
    async with nats_server(directory, max_store=64 * 1024 * 1024) as server, TaskOwner("test") as tasks:
        store = await NatsStore.connect([server.url], name="test")
        resources = await Resources.open(store)
        broker = NatsBroker(store.connection)
        # Made before there is any control plane, and otherwise than it will be declared.
        await broker.declare_topic(TopicSettings("a-other", partitions=2, max_bytes=1024 * 1024))
        async with ResourceView.follow(resources) as declared:
            brokerage = await Brokerage.open(
                store,
                declared,
                lambda _secret, _key: None,
                lambda _member, _request: Decision(allowed=True, policy="", reason=""),
            )
            tasks.start(brokerage.run(), name="brokerage", endless=True)
            yield Scene(resources, broker)
            await tasks.close()
        await store.close()


async def test_what_the_broker_refuses_keeps_nothing_else_from_being_declared(tmp_path: Path) -> None:
    small = "{maxBytes: 1048576}"
    async with scene(tmp_path) as mesh:
        await mesh.apply(
            ("Topic", "a-other", small),
            *(("Topic", f"b-huge-{number}", "{maxBytes: 1099511627776}") for number in range(4)),
            ("Topic", "z", small),
        )
        await mesh.takes("z")
        await mesh.apply(("Topic", "b-huge-2", small))
        await mesh.takes("b-huge-2")


async def test_a_topic_deleted_and_declared_anew_at_once_begins_anew(tmp_path: Path) -> None:
    async with scene(tmp_path) as mesh:
        await mesh.apply(("Topic", "z", "{maxBytes: 1048576}"))
        await mesh.takes("z")
        await mesh.resources.delete("Topic", "z")
        await mesh.apply(("Topic", "z", "{maxBytes: 1048576, partitions: 4}"))
        await mesh.empty("z")
        await mesh.takes("z", partition=3)
