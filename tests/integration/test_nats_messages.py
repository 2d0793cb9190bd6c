"""What members can do with queues, topics and tasks in a real nats-server: across accounts, as granted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StreamConfig
from tests.conformance.codecs import JsonCodec
from tests.secured_nats import PATIENCE, Secured, secured_nats

from weft.aio.poll import until
from weft.controlplane.message_grants import MAX_CONSUMERS, Declared, message_grants
from weft.errors import Conflict, Denied
from weft.model.access import AccessPolicySpec
from weft.model.message_subjects import (
    CANCELLATION_SIGNALS,
    TASK_EVENTS_BUCKET,
    TASK_SIGNALS,
    TASKS_BUCKET,
    group_consumers,
    lane_consumer,
    lane_subject,
    queue_stream,
    queue_subjects,
    topic_stream,
    topic_subject,
    topic_subjects,
    type_group,
)
from weft.model.spiffe import agent_id
from weft.model.topic import TopicSpec
from weft.store.bucket import Entry
from weft.store.nats import NatsStore
from weft.store.nats_accounts import MEMBER_API

WORKER = agent_id("weft.local", "worker", "w")
CLIENT = agent_id("weft.local", "client", "c")
STRANGER = agent_id("weft.local", "stranger", "s")

LANE = lane_subject("work", 1)
NEXT = f"{MEMBER_API}.CONSUMER.MSG.NEXT"
NEXT_TASK = f"{NEXT}.{queue_stream('work')}.{lane_consumer(1)}"
ACK_OF_WORK = f"$JS.ACK.{queue_stream('work')}.{lane_consumer(1)}.1.1.1.1700000000000000000.0"
ACK_WAIT = 5.0


def allow(caller: str, *rules: tuple[str, dict[str, str]]) -> dict[str, AccessPolicySpec]:
    """Policies by which agents of a type may do these things."""
    return {
        f"{caller}-{index}": AccessPolicySpec.model_validate(
            {
                "from": [{"type": caller}],
                "to": [destination],
                "rules": [{"actions": [action]}],
                "effect": "allow",
            }
        )
        for index, (action, destination) in enumerate(rules)
    }


POLICIES = {
    "none": AccessPolicySpec.model_validate({"default": "deny"}),
    **allow("worker", ("consume", {"queue": "work"}), ("subscribe", {"topic": "orders"})),
    **allow("client", ("submit", {"queue": "work"}), ("publish", {"topic": "orders"})),
}
DECLARED = Declared({"orders": TopicSpec(partitions=2), "other": TopicSpec()}, ["work", "other"])


@pytest.fixture
async def secured(tmp_path: Path) -> AsyncIterator[Secured]:
    async with secured_nats(tmp_path) as running:
        jetstream = (await running.control._connection.client()).jetstream()
        for queue in ("work", "other"):
            await jetstream.add_stream(
                StreamConfig(
                    queue_stream(queue),
                    subjects=[queue_subjects(queue)],
                    retention=RetentionPolicy.WORK_QUEUE,
                    allow_direct=True,
                )
            )
            await consumer(jetstream, queue_stream(queue), lane_consumer(1), lane_subject(queue, 1))
        await jetstream.add_stream(StreamConfig(topic_stream("orders"), subjects=[topic_subjects("orders")]))
        for group in (type_group("worker"), type_group("client")):
            for partition, name in enumerate(group_consumers(group, 2)):
                await consumer(jetstream, topic_stream("orders"), name, topic_subject("orders", partition))
        for bucket in (TASKS_BUCKET, TASK_EVENTS_BUCKET):
            await running.control.bucket(bucket, JsonCodec(), direct=True)
        for identity in (WORKER, CLIENT, STRANGER):
            running.messages[identity] = message_grants(POLICIES, identity, DECLARED)
        yield running


async def consumer(jetstream: Any, stream: str, name: str, subject: str) -> None:
    config = ConsumerConfig(
        durable_name=name, filter_subject=subject, ack_policy=AckPolicy.EXPLICIT, ack_wait=ACK_WAIT
    )
    await jetstream.add_consumer(stream, config)


class Puller:
    """Pulls as a member, by nothing but what a member may send."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._inbox = client.new_inbox()
        self._got: asyncio.Queue[Msg] = asyncio.Queue()
        self._listens = False

    async def pull(self, batch: int, *, consumer: str = NEXT_TASK, expires: float = PATIENCE) -> list[Msg]:
        """A batch, complete; or what there was of it when the server said that this is all."""
        if not self._client._subs or self._inbox not in {
            each.subject for each in self._client._subs.values()
        }:
            await self._client.subscribe(self._inbox, cb=self._got.put)
        request = {"batch": batch, "expires": int(expires * 1e9)}
        await self._client.publish(consumer, json.dumps(request).encode(), reply=self._inbox)
        found: list[Msg] = []
        async with asyncio.timeout(PATIENCE):
            while len(found) < batch:
                message = await self._got.get()
                if message.headers and "Status" in message.headers:
                    break
                found.append(message)
        return found


async def complained(complaints: Sequence[str], number: int) -> None:
    async def enough() -> bool:
        return len(complaints) >= number

    async with asyncio.timeout(PATIENCE):
        await until(enough)


async def test_a_worker_pulls_batches_across_accounts_and_acknowledges_in_every_way(secured: Secured) -> None:
    async with secured.raw(CLIENT) as (client, _):
        for number in range(6):
            answer = await client.request(LANE, b"%d" % number, timeout=PATIENCE)
            assert json.loads(answer.data)["seq"] == number + 1
    async with secured.raw(WORKER) as (worker, complaints):
        puller = Puller(worker)
        done, later, kept, lost, confirmed, last = await puller.pull(6)
        assert [each.data for each in (done, later, kept, lost, confirmed, last)] == [
            b"%d" % number for number in range(6)
        ]
        await worker.publish(done.reply, b"+ACK")
        await worker.publish(last.reply, b"-NAK")
        assert [each.data for each in await puller.pull(1)] == [b"5"]
        await worker.publish(later.reply, b'-NAK {"delay": 500000000}')
        assert (await worker.request(confirmed.reply, b"+ACK", timeout=PATIENCE)).data == b""
        assert [each.data for each in await puller.pull(1)] == [b"1"]
        # One of the rest is extended for as long as the other takes to come back.
        again: list[bytes] = []
        async with asyncio.timeout(PATIENCE):
            while b"3" not in again:
                await worker.publish(kept.reply, b"+WPI")
                again += [each.data for each in await puller.pull(1, expires=0.3)]
        assert b"2" not in again
        assert complaints == []


async def test_a_subscriber_takes_for_its_own_type_only(secured: Secured) -> None:
    orders = topic_stream("orders")
    async with secured.raw(CLIENT) as (client, complaints):
        for partition in range(2):
            await client.request(topic_subject("orders", partition), b"%d" % partition, timeout=PATIENCE)
        await client.publish(f"{NEXT}.{orders}.client_0", b'{"batch":1}', reply=client.new_inbox())
        await client.publish(topic_subject("other", 0), b"", reply=client.new_inbox())
        await complained(complaints, 2)  # it may publish there, and neither subscribe nor publish elsewhere
    async with secured.raw(WORKER) as (worker, complaints):
        puller = Puller(worker)
        for partition in range(2):
            (message,) = await puller.pull(1, consumer=f"{NEXT}.{orders}.worker_{partition}")
            assert message.data == b"%d" % partition
            await worker.request(message.reply, b"+ACK", timeout=PATIENCE)
            with pytest.raises(NoRespondersError):  # it may, but nobody keeps that topic here
                await worker.request(f"topics.dead-letters.0.orders.{type_group('worker')}", timeout=PATIENCE)
        assert complaints == []
        forbidden = (
            f"{NEXT}.{orders}.client_0",
            f"$JS.ACK.{orders}.client_0.1.1.1.1700000000000000000.0",
            "topics.dead-letters.0.orders.client",
            "topics.dead-letters.0.other.worker",
            topic_subject("orders", 0),
        )
        for subject in forbidden:
            await worker.publish(subject, b'{"batch":1}', reply=worker.new_inbox())
        await complained(complaints, len(forbidden))


async def test_who_was_granted_nothing_of_a_queue_can_do_nothing_with_it(secured: Secured) -> None:
    forbidden = (
        LANE,
        "queues.work.later.x",
        "queues.weft-webhooks.1",
        NEXT_TASK,
        ACK_OF_WORK,
        "dead.work.1",
        "$KV.tasks.work.t",
        "$KV.task-events.work.t.1-1",
        f"{MEMBER_API}.DIRECT.GET.KV_tasks.$KV.tasks.work.t",
        f"{MEMBER_API}.DIRECT.GET.KV_tasks",
        f"{MEMBER_API}.STREAM.INFO.KV_tasks",
        f"{MEMBER_API}.STREAM.INFO.{queue_stream('work')}",
        "signals.member.tasks.work.t",
        "signals.control.tasks.work.t",
    )
    async with secured.raw(STRANGER) as (stranger, complaints):
        for subject in forbidden:
            await stranger.publish(subject, b'{"last_by_subj":">"}', reply=stranger.new_inbox())
        for subject in ("signals.>", "signals.*.tasks.work.t", "signals.member.tasks.>"):
            await stranger.subscribe(subject)
        await complained(complaints, len(forbidden) + 3)
    async with secured.member(STRANGER) as store:
        tasks = await store.bucket(TASKS_BUCKET, JsonCodec(), direct=True)
        for attempt in (tasks.get("work.t"), tasks.put("work.t", 1), tasks.recent(), tasks.entries()):
            with pytest.raises(Denied, match="permit"):
                await attempt
        with pytest.raises(Denied, match="permit"):
            async with store.signals(TASK_SIGNALS).listen("work.t"):
                pass
        await store.signals(TASK_SIGNALS).send("work.t")  # heard by nobody
        assert store.connected


async def test_who_submits_may_not_consume_and_nobody_may_manage_streams(secured: Secured) -> None:
    stream = queue_stream("work")
    forbidden = [
        NEXT_TASK,
        ACK_OF_WORK,
        "dead.work.1",
        "$KV.task-events.work.t.1-1",
        lane_subject("other", 1),
        f"{MEMBER_API}.DIRECT.GET.KV_tasks.$KV.tasks.other.t",
        f"{MEMBER_API}.DIRECT.GET.{stream}.{LANE}",
    ]
    unheard_of = [
        f"{MEMBER_API}.{each}"
        for each in (
            f"CONSUMER.CREATE.{stream}",
            f"CONSUMER.CREATE.{stream}.mine.{LANE}",
            f"CONSUMER.DURABLE.CREATE.{stream}.mine",
            f"CONSUMER.DELETE.{stream}.{lane_consumer(1)}",
            f"CONSUMER.INFO.{stream}.{lane_consumer(1)}",
            f"CONSUMER.PAUSE.{stream}.{lane_consumer(1)}",
            f"STREAM.PURGE.{stream}",
            f"STREAM.MSG.GET.{stream}",
            f"STREAM.MSG.DELETE.{stream}",
            f"STREAM.UPDATE.{stream}",
            "STREAM.MSG.GET.KV_tasks",
        )
    ]
    for identity, subjects in ((CLIENT, forbidden + unheard_of), (WORKER, unheard_of)):
        async with secured.raw(identity) as (client, complaints):
            for subject in subjects:
                await client.publish(subject, b"{}", reply=client.new_inbox())
            await complained(complaints, len(subjects))


async def test_records_of_tasks_are_written_and_read_by_name_by_members_and_listed_by_the_control_plane(
    secured: Secured,
) -> None:
    async with secured.member(CLIENT) as client, secured.member(WORKER) as worker:
        submitted = await client.bucket(TASKS_BUCKET, JsonCodec(), direct=True)
        revision = await submitted.create("work.t", "queued")
        taken = await worker.bucket(TASKS_BUCKET, JsonCodec(), direct=True)
        newer = await taken.update("work.t", "running", revision=revision)
        with pytest.raises(Conflict):
            await submitted.update("work.t", "cancelled", revision=revision)
        assert await submitted.get("work.t") == Entry("work.t", "running", newer)
        assert await submitted.get("work.u") is None
        events = await worker.bucket(TASK_EVENTS_BUCKET, JsonCodec(), direct=True)
        await events.put("work.t.1-1", "half", ttl=60)
        heard = await client.bucket(TASK_EVENTS_BUCKET, JsonCodec(), direct=True)
        entry = await heard.get("work.t.1-1")
        assert entry is not None
        assert entry.value == "half"
        for attempt in (
            heard.put("work.t.1-2", 1),
            submitted.put("other.t", 1),
            submitted.recent(),
            heard.recent(),
        ):
            with pytest.raises(Denied):
                await attempt
        await submitted.delete("work.t", revision=newer)
        await submitted.create("work.v", "queued")
        control = await secured.control.bucket(TASKS_BUCKET, JsonCodec(), direct=True)
        assert [each.key for each in await control.recent(10, "work")] == ["work.v"]


async def heard_from(sender: NatsStore, listener: NatsStore, name: str, prefix: str) -> None:
    async with listener.signals(name).listen(prefix) as hears:
        await sender.signals(name).send("work.t")
        async with asyncio.timeout(PATIENCE):
            assert await hears.next(PATIENCE) == "work.t"
        # Not twice: what crosses accounts goes one way only.
        assert await hears.next(0.05) is None


async def test_signals_are_heard_across_accounts_both_ways_and_among_members(secured: Secured) -> None:
    async with secured.member(CLIENT) as client, secured.member(WORKER) as worker:
        for sender, listener in (
            (client, worker),
            (worker, client),
            (secured.control, client),
            (client, secured.control),
            (secured.control, secured.control),
        ):
            await heard_from(sender, listener, TASK_SIGNALS, "work.t")
        for sender in (client, secured.control):
            await heard_from(sender, worker, CANCELLATION_SIGNALS, "work")
        with pytest.raises(Denied):
            async with client.signals(CANCELLATION_SIGNALS).listen("work"):
                pass


async def test_what_is_pulled_cannot_be_sent_where_the_puller_may_not_write(secured: Secured) -> None:
    control = await secured.control.bucket(TASKS_BUCKET, JsonCodec())
    await control.put("other.t", "mine")
    async with secured.raw(CLIENT) as (client, _):
        for _ in range(20):
            await client.request(LANE, b'"forged"', timeout=PATIENCE)
    victims = ("$KV.tasks.other.t", "$KV.authority.root", lane_subject("other", 1), "audit.control.one")
    async with secured.raw(WORKER) as (worker, _):
        for victim in victims:
            await worker.publish(NEXT_TASK, b'{"batch":2,"no_wait":true}', reply=victim)
            await worker.publish(ACK_OF_WORK, b'+NXT {"batch":2}', reply=victim)
            for read in ("KV_tasks.$KV.tasks.work.t", "KV_task-events.$KV.task-events.work.t"):
                await worker.publish(f"{MEMBER_API}.DIRECT.GET.{read}", b"", reply=victim)
            await worker.publish("$KV.tasks.work.t", b'"mine"', reply=victim)
        # Whatever these led to has been done once the server answers this one.
        assert await Puller(worker).pull(1)
    entry = await control.get("other.t")
    assert entry is not None
    assert entry.value == "mine"
    jetstream = (await secured.control._connection.client()).jetstream()
    assert (await jetstream.stream_info(queue_stream("other"))).state.messages == 0


async def test_an_identity_that_may_use_very_many_long_named_topics_and_queues_is_let_in(
    secured: Secured,
) -> None:
    long = agent_id("weft.local", "t" * 63, "i" * 63)
    name = "{:x<63}".format
    partitioned = {name(n): TopicSpec(partitions=16) for n in range(MAX_CONSUMERS // 32 - 2)}
    for declared in (
        Declared(partitioned, [name(n) for n in range(40)]),
        Declared({f"topic-{n}": TopicSpec(partitions=16) for n in range(100)}, [f"q{n}" for n in range(100)]),
    ):
        secured.messages[long] = message_grants({}, long, declared)
        async with secured.raw(long) as (client, complaints):
            topic = list(declared.topics)[-1]
            for subject in (
                topic_subject(topic, 15),
                f"{NEXT}.{topic_stream(topic)}.{'t' * 63}_{'i' * 63}_15",
            ):
                with pytest.raises(NoRespondersError):  # it may; there is no such topic here
                    await client.request(subject, timeout=PATIENCE)
            assert complaints == []
