"""Members of a mesh use topics and queues in a real nats-server: across accounts, as policies grant it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.secured_nats import PATIENCE, Secured, secured_nats

from weft.controlplane.message_grants import Declared, message_grants
from weft.errors import Denied, QueueFull
from weft.messaging.broker import Consumer, Delivery, GroupSettings, Priority, QueueSettings, TopicSettings
from weft.messaging.brokers.nats import NatsBroker
from weft.messaging.message import Message
from weft.model.access import AccessPolicySpec
from weft.model.message_subjects import lane_subject, type_group
from weft.model.spiffe import SpiffeId, agent_id
from weft.model.topic import TopicSpec

WORKER = agent_id("weft.local", "worker", "w")
CLIENT = agent_id("weft.local", "client", "c")
STRANGER = agent_id("weft.local", "stranger", "s")
GROUP = type_group("worker")

_QUIET = 0.3
"""Seconds without a message after which there is none."""


def _allow(caller: str, action: str, target: dict[str, str]) -> AccessPolicySpec:
    return AccessPolicySpec.model_validate(
        {"from": [{"type": caller}], "to": [target], "rules": [{"actions": [action]}], "effect": "allow"}
    )


POLICIES = {
    "none": AccessPolicySpec.model_validate({"default": "deny"}),
    "consume": _allow("worker", "consume", {"queue": "work"}),
    "subscribe": _allow("worker", "subscribe", {"topic": "orders"}),
    "submit": _allow("client", "submit", {"queue": "work"}),
    "publish": _allow("client", "publish", {"topic": "orders"}),
}
DECLARED = Declared({"orders": TopicSpec(partitions=2), "other": TopicSpec()}, ["work", "other"])


class Mesh:
    """A control plane's broker, and those of members."""

    def __init__(self, secured: Secured, control: NatsBroker, ends: AsyncExitStack) -> None:
        self.secured = secured
        self.control = control
        self._ends = ends

    async def member(self, identity: SpiffeId) -> NatsBroker:
        """The broker as a member sees it."""
        self.secured.messages[identity] = message_grants(POLICIES, identity, DECLARED)
        store = await self._ends.enter_async_context(self.secured.member(identity))
        broker = NatsBroker(store.connection)
        self._ends.push_async_callback(broker.aclose)
        return broker


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with secured_nats(tmp_path) as secured, AsyncExitStack() as ends:
        control = NatsBroker(secured.control.connection)
        for queue in ("work", "other"):
            await control.declare_queue(QueueSettings(queue, visibility_timeout=4.0, max_length=100))
        await control.declare_topic(TopicSettings("orders", partitions=2))
        await control.declare_topic(TopicSettings("other"))
        for topic in ("orders", "other"):
            await control.declare_group(GroupSettings(topic, GROUP))
        yield Mesh(secured, control, ends)


def _message(name: str) -> Message:
    return Message(name, name.encode(), {"content-type": "text/plain"})


async def _pull(consumer: Consumer, number: int) -> Sequence[Delivery]:
    got: list[Delivery] = []
    async with asyncio.timeout(PATIENCE):
        while len(got) < number:
            got += await consumer.pull(number - len(got), wait=5)
    return got


async def _pull_until_refused(consumer: Consumer) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await consumer.pull(1, wait=_QUIET):
            pass


async def test_a_worker_takes_what_a_submitter_enqueues(mesh: Mesh) -> None:
    client, worker = await mesh.member(CLIENT), await mesh.member(WORKER)
    consumer = await worker.queue_consumer("work")
    waiting = asyncio.create_task(_pull(consumer, 1))
    await client.enqueue("work", _message("soon"), delay=0.2)
    [delayed] = await waiting
    assert (delayed.message, delayed.deliveries) == (_message("soon"), 1)
    await delayed.ack()
    names = [f"m{number}" for number in range(20)]
    for name in names:
        await client.enqueue("work", _message(name), priority=Priority.LOW)
    got = await _pull(consumer, 20)
    assert [each.message.id for each in got] == names
    assert {each.lane for each in got} == {Priority.LOW}
    for each in got[3:]:
        await each.ack()
    await got[0].nack()
    await got[1].dead_letter("it is broken")
    [again] = await _pull(consumer, 1)
    assert (again.message.id, again.deliveries) == ("m0", 2)
    await again.ack()
    # The third is extended past its visibility timeout, then comes again.
    for _ in range(9):
        await got[2].extend()
        assert not await consumer.pull(10, wait=0.5)
    [late] = await _pull(consumer, 1)
    assert (late.message.id, late.deliveries) == ("m2", 2)
    await late.ack()
    [letter] = await mesh.control.peek("work", limit=10, dead=True)
    assert (letter.message, letter.lane, letter.reason) == (_message("m1"), Priority.LOW, "it is broken")


async def test_messages_without_anything_in_them_hold_up_nobody(mesh: Mesh) -> None:
    client, worker = await mesh.member(CLIENT), await mesh.member(WORKER)
    consumer = await worker.queue_consumer("work")
    waiting = asyncio.create_task(_pull(consumer, 2))
    for name in ("m1", "m2"):
        await mesh.secured.control.connection.publish("tease", lane_subject("work", 0), b"")
        await client.enqueue("work", _message(name), priority=Priority.HIGH)
    # Pulls that get no answer fail.
    assert {each.message.id for each in await waiting} == {"m1", "m2"}


async def test_who_waits_across_accounts_takes_nothing(mesh: Mesh) -> None:
    client, worker = await mesh.member(CLIENT), await mesh.member(WORKER)
    idle, busy = await worker.queue_consumer("work"), await worker.queue_consumer("work")
    assert not await idle.pull(5, wait=_QUIET)
    # What it waited with is still there, and hears of these.
    for lane in Priority:
        await client.enqueue("work", _message(lane.name), priority=lane)
    got = await _pull(busy, 3)
    assert [(each.message.id, each.deliveries) for each in got] == [("HIGH", 1), ("NORMAL", 1), ("LOW", 1)]


async def test_a_subscriber_gets_partitions_in_order(mesh: Mesh) -> None:
    client, worker = await mesh.member(CLIENT), await mesh.member(WORKER)
    consumer = await worker.group_consumer("orders", GROUP)
    for number in range(3):
        for partition in (0, 1):
            assert await client.publish(
                "orders", _message(f"{partition}-{number}"), subtopic="eu.new", partition=partition
            )
    seen: dict[int, list[str]] = {0: [], 1: []}
    for _ in range(6):
        [delivery] = await _pull(consumer, 1)
        assert delivery.subtopic == "eu.new"
        seen[delivery.lane].append(delivery.message.id)
        await delivery.ack()
    assert seen == {0: ["0-0", "0-1", "0-2"], 1: ["1-0", "1-1", "1-2"]}


async def test_members_are_denied_what_was_not_granted(mesh: Mesh) -> None:
    client, worker, stranger = [await mesh.member(each) for each in (CLIENT, WORKER, STRANGER)]
    for broker in (client, stranger):
        with pytest.raises(Denied):
            await broker.queue_consumer("work")
        with pytest.raises(Denied):
            await broker.group_consumer("orders", GROUP)
    for queue, broker in (("other", client), ("work", stranger)):
        with pytest.raises(Denied):
            await broker.enqueue(queue, _message("x"))
        with pytest.raises(Denied):
            await broker.enqueue(queue, _message("x"), delay=1.0)
    for topic, broker in (("other", client), ("orders", worker), ("orders", stranger)):
        with pytest.raises(Denied):
            await broker.publish(topic, _message("x"))
    for topic, group in (("other", GROUP), ("orders", type_group("client"))):
        with pytest.raises(Denied):
            await worker.group_consumer(topic, group)
    with pytest.raises(Denied):
        await worker.purge("work")
    with pytest.raises(Denied):
        await worker.peek("work", limit=1)
    with pytest.raises(Denied):
        await worker.declare_queue(QueueSettings("mine"))


async def test_a_member_whose_rights_are_taken_away_hears_it_when_it_pulls(mesh: Mesh) -> None:
    worker = await mesh.member(WORKER)
    consumer = await worker.queue_consumer("work")
    assert not await consumer.pull(1, wait=_QUIET)
    mesh.secured.messages[WORKER] = message_grants({"none": POLICIES["none"]}, WORKER, DECLARED)
    for identity in await mesh.secured.admission.outdated():
        await mesh.secured.callout.kick(str(identity))
    with pytest.raises(Denied):
        await _pull_until_refused(consumer)


async def test_no_more_are_delayed_than_the_queue_may_hold(mesh: Mesh) -> None:
    client = await mesh.member(CLIENT)
    await mesh.control.declare_queue(QueueSettings("work", visibility_timeout=2.0, max_length=2))
    for name in ("a", "b"):
        await client.enqueue("work", _message(name), delay=3600.0)
    with pytest.raises(QueueFull):
        await client.enqueue("work", _message("c"), delay=3600.0)
    await client.enqueue("work", _message("d"))
    assert (await mesh.control.queue_stats("work")).delayed == 2
    assert await mesh.control.purge("work") == 3
