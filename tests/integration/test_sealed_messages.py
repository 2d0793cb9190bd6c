"""Encrypted topics and queues over a real nats-server, which must see ciphertext only and lose nothing."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import StreamConfig
from tests.servers import NatsServer, nats_server

from weft.aio.poll import until
from weft.controlplane.message_keys import MessageKeys
from weft.controlplane.sealing import Sealer
from weft.errors import InvalidRequest, Unavailable
from weft.messaging.channel import Channel, ChannelKind
from weft.messaging.keyring import ConsumerKeyring, PublisherKeyring
from weft.messaging.sealing import Binding, sealed_epoch
from weft.store.nats import NatsStore

NEWS = Channel(ChannelKind.TOPIC, "news")
GOSSIP = Channel(ChannelKind.TOPIC, "gossip")
TASKS = Channel(ChannelKind.QUEUE, "tasks")

SEALING_KEY = bytes(range(32))
CONTENT_TYPE = "text/plain"
PATIENCE = 60.0


@dataclass
class Broker:
    """A nats-server, a stream for all messages, and the keys in the same server."""

    server: NatsServer
    client: Client
    jetstream: JetStreamContext
    store: NatsStore

    async def keys(self) -> MessageKeys:
        """The keys as one more replica of the control plane has them."""
        return await MessageKeys.open(self.store, Sealer([SEALING_KEY]))

    async def send(self, channel: Channel, message_id: str, data: bytes) -> None:
        await self.jetstream.publish(subject(channel), data, headers={"Nats-Msg-Id": message_id})

    def holds(self, data: bytes) -> bool:
        """Whether `data` is anywhere in the server's files."""
        return any(data in each for each in self._files())

    def _files(self) -> Iterator[bytes]:
        for path in self.server.data.rglob("*"):
            if path.is_file():
                yield path.read_bytes()


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with nats_server(tmp_path) as server:
        store = await NatsStore.connect([server.url], name="test")
        client = await nats.connect(server.url, reconnect_time_wait=0.1)
        jetstream = client.jetstream()
        await jetstream.add_stream(StreamConfig(name="messages", subjects=["topic.*", "queue.*"]))
        yield Broker(server, client, jetstream, store)
        await client.close()
        await store.close()


def subject(channel: Channel) -> str:
    return f"{channel.kind}.{channel.name}"


def binding(message: Msg, channel: Channel) -> Binding:
    assert message.headers is not None
    return Binding(channel, message.headers["Nats-Msg-Id"], CONTENT_TYPE)


def publisher(keys: MessageKeys, channel: Channel) -> PublisherKeyring:
    return PublisherKeyring(channel, lambda: keys.publishing_key(channel))


def consumer(keys: MessageKeys, channel: Channel) -> ConsumerKeyring:
    return ConsumerKeyring(channel, lambda: keys.consuming_keys(channel))


async def publish(
    broker: Broker, keyring: PublisherKeyring, channel: Channel, messages: dict[str, bytes]
) -> None:
    for message_id, payload in messages.items():
        sealed = await keyring.seal(payload, Binding(channel, message_id, CONTENT_TYPE))
        await broker.send(channel, message_id, sealed)


async def consume(
    broker: Broker, keyring: ConsumerKeyring, channel: Channel, name: str, count: int
) -> dict[str, bytes]:
    """What a consumer called `name` gets: `count` messages, by their ids."""
    subscription = await broker.jetstream.pull_subscribe(subject(channel), durable=name, stream="messages")
    opened: dict[str, bytes] = {}
    async with asyncio.timeout(PATIENCE):
        while len(opened) < count:
            for message in await subscription.fetch(50, timeout=PATIENCE):
                bound = binding(message, channel)
                try:
                    opened[bound.message_id] = await keyring.open(message.data, bound)
                except Unavailable:
                    await message.nak(delay=0.2)
                else:
                    await message.ack()
    return opened


async def test_all_subscribers_read_all_publishers_and_the_broker_none(broker: Broker) -> None:
    keys = await broker.keys()
    sent = {f"m-{number}": b"the plain text of message %d" % number for number in range(40)}
    halves = dict(list(sent.items())[:20]), dict(list(sent.items())[20:])
    await asyncio.gather(*(publish(broker, publisher(keys, NEWS), NEWS, half) for half in halves))
    received = await asyncio.gather(
        *(consume(broker, consumer(keys, NEWS), NEWS, name, 40) for name in ("first", "second"))
    )
    assert received == [sent, sent]

    await broker.send(GOSSIP, "control", b"what was never sealed")

    async def written() -> bool:
        return broker.holds(b"what was never sealed")

    async with asyncio.timeout(PATIENCE):
        await until(written)
    assert not broker.holds(b"the plain text")
    [key] = await keys.consuming_keys(NEWS)
    assert broker.holds(bytes.fromhex(key.epoch))
    private = key.key.private_bytes_raw()
    assert not broker.holds(private)
    assert not broker.holds(base64.b64encode(private))


async def test_rotation_while_messages_are_under_way_loses_none(broker: Broker) -> None:
    """Among publishers who hear of it and one who does not, and a server that is killed on the way."""
    keys, replica = await broker.keys(), await broker.keys()
    forgetful = publisher(keys, TASKS)
    receiving = asyncio.create_task(consume(broker, consumer(replica, TASKS), TASKS, "workers", 60))
    sent: dict[str, bytes] = {}
    for turn in range(6):
        await replica.rotate(TASKS)
        for name, keyring in (("aware", publisher(keys, TASKS)), ("forgetful", forgetful)):
            batch = {f"{name}-{turn}-{number}": b"task %d" % number for number in range(5)}
            await publish(broker, keyring, TASKS, batch)
            sent |= batch
    assert await receiving == sent
    assert len(await keys.consuming_keys(TASKS)) == 6

    await broker.server.restart()

    async def connected() -> bool:
        return broker.store.connected and broker.client.is_connected

    async with asyncio.timeout(PATIENCE):
        await until(connected)
    late = consumer(await broker.keys(), TASKS)
    assert await consume(broker, late, TASKS, "auditors", 60) == sent


async def test_a_message_that_the_broker_moves_renames_or_changes_is_refused(broker: Broker) -> None:
    keys = await broker.keys()
    await publish(broker, publisher(keys, NEWS), NEWS, {"m-1": b"news"})
    await publish(broker, publisher(keys, GOSSIP), GOSSIP, {"m-1": b"gossip"})
    news, gossip = consumer(keys, NEWS), consumer(keys, GOSSIP)
    stolen = await broker.jetstream.get_last_msg("messages", subject(NEWS))
    assert stolen.data is not None
    own = Binding(GOSSIP, "m-1", CONTENT_TYPE)
    original = Binding(NEWS, "m-1", CONTENT_TYPE)
    assert await news.open(stolen.data, original) == b"news"

    with pytest.raises(Unavailable, match=sealed_epoch(stolen.data, original)):
        await gossip.open(stolen.data, own)
    [key] = await keys.consuming_keys(GOSSIP)
    passed_off = stolen.data[:5] + bytes.fromhex(key.epoch) + stolen.data[13:]
    for data, bound in [
        (passed_off, own),
        (stolen.data, Binding(NEWS, "m-2", CONTENT_TYPE)),
        (stolen.data, Binding(NEWS, "m-1", "text/html")),
        (stolen.data[:-1] + bytes([stolen.data[-1] ^ 1]), original),
        (b"news", original),
    ]:
        keyring = gossip if bound is own else news
        with pytest.raises(InvalidRequest):
            await keyring.open(data, bound)


async def test_replicas_over_the_same_server_agree_on_the_first_key(broker: Broker) -> None:
    replicas = [await broker.keys() for _ in range(5)]
    given = await asyncio.gather(*(each.publishing_key(NEWS) for each in replicas))
    assert len({each.epoch for each in given}) == 1
    made = await asyncio.gather(*(each.rotate(NEWS) for each in replicas))
    live = {each.epoch for each in await replicas[0].consuming_keys(NEWS)}
    assert live == {each.epoch for each in (*given, *made)}
