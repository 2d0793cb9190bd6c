"""The broker in Redis: what is particular to it, beyond the conformance suite."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from redis.asyncio import Redis
from tests.pki import Pki
from tests.redis_server import RedisServer, redis_server

from weft.aio.poll import until
from weft.errors import Denied, InvalidRequest, NotFound, Unavailable
from weft.messaging.broker import (
    ALL,
    Consumer,
    Delivery,
    GroupSettings,
    QueueSettings,
    Start,
    TopicSettings,
)
from weft.messaging.brokers import redis_consumer
from weft.messaging.brokers.redis import RedisBroker
from weft.messaging.message import Message

_LIMIT = 60.0
_PASSWORD = "correct-horse-battery"
_PERMITTED = "+@all -@admin -@dangerous +info +config|get ~weft:* &weft:wake:*"
"""As redis.py says."""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with redis_server(tmp_path) as running:
        yield running


@pytest.fixture
async def broker(server: RedisServer) -> AsyncIterator[RedisBroker]:
    connected = await RedisBroker.connect(server.url)
    yield connected
    await connected.aclose()


@pytest.fixture
async def raw(server: RedisServer) -> AsyncIterator[Redis]:
    client = Redis.from_url(server.url, decode_responses=True)
    yield client
    await client.aclose()


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Consumers look only when they are told to: a word that gets lost is noticed."""
    monkeypatch.setattr(redis_consumer, "_RECHECK", 600.0)


def _message(body: bytes = b"x") -> Message:
    return Message(secrets.token_hex(8), body)


async def _queue(broker: RedisBroker, **settings: float) -> str:
    name = f"q-{secrets.token_hex(4)}"
    await broker.declare_queue(QueueSettings(name, **settings))  # type: ignore[arg-type] # whole numbers where due
    return name


async def _one(consumer: Consumer) -> Delivery:
    async with asyncio.timeout(_LIMIT):
        [delivery] = await consumer.pull(1, wait=600)
    return delivery


async def _calls(raw: Redis) -> int:
    """How often scripts ran."""
    stats = await raw.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {}).get("calls", 0))


async def _set_user(raw: Redis, *rules: str) -> None:
    await raw.execute_command("ACL", "SETUSER", *rules)  # type: ignore[no-untyped-call]


async def _until_waiting(raw: Redis, kind: str, count: int) -> None:
    async def waiting() -> bool:
        return int(await raw.zcard(f"weft:{{{kind}}}:waiting")) == count

    async with asyncio.timeout(_LIMIT):
        await until(waiting)


@pytest.mark.usefixtures("deaf")
async def test_idle_consumers_do_not_poll_and_one_message_wakes_one_of_them(
    broker: RedisBroker, raw: Redis
) -> None:
    queue = await _queue(broker)
    consumers = [await broker.queue_consumer(queue) for _ in range(300)]
    async with asyncio.TaskGroup() as tasks:
        pulls = [tasks.create_task(each.pull(1, wait=600)) for each in consumers]
        await _until_waiting(raw, f"q:{queue}", 300)
        before = await _calls(raw)
        await broker.enqueue(queue, _message())
        done, waiting = await asyncio.wait(pulls, timeout=_LIMIT, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1
        await asyncio.sleep(0.5)
        assert await _calls(raw) - before == 2
        assert len([each for each in waiting if each.done()]) == 0
        for _ in waiting:
            await broker.enqueue(queue, _message())
        async with asyncio.timeout(_LIMIT):
            await asyncio.wait(waiting)


@pytest.mark.usefixtures("deaf")
async def test_what_becomes_due_together_reaches_all_who_wait(broker: RedisBroker) -> None:
    queue = await _queue(broker, visibility_timeout=1.5)
    holder = await broker.queue_consumer(queue)
    for _ in range(4):
        await broker.enqueue(queue, _message())
    kept = await holder.pull(4, wait=5)
    consumers = [await broker.queue_consumer(queue) for _ in range(12)]
    pulls = [asyncio.create_task(each.pull(1, wait=600)) for each in consumers]
    for delay in (0.5, 0.5, 0.5, 1.0, 1.0, 0.2):
        await broker.enqueue(queue, _message(), delay=delay)
    for each in kept[:2]:
        await each.nack(0.7)
    async with asyncio.timeout(_LIMIT):
        # Two of them get again what others, who got it first, did not finish.
        await asyncio.wait(pulls)


@pytest.mark.usefixtures("deaf")
async def test_a_word_to_a_consumer_that_stops_waiting_goes_to_another(
    broker: RedisBroker, server: RedisServer, raw: Redis
) -> None:
    queue = await _queue(broker)
    gone = await RedisBroker.connect(server.url)
    leaving = [asyncio.create_task((await gone.queue_consumer(queue)).pull(1, wait=600)) for _ in range(5)]
    await _until_waiting(raw, f"q:{queue}", 5)
    staying = asyncio.create_task((await broker.queue_consumer(queue)).pull(1, wait=600))
    await _until_waiting(raw, f"q:{queue}", 6)
    # Three of them hear of a message that they do not take any more.
    for each in leaving[:3]:
        await broker.enqueue(queue, _message())
        each.cancel()
    for each in leaving[3:]:
        each.cancel()
    await asyncio.wait(leaving)
    async with asyncio.timeout(_LIMIT):
        assert len(await staying) == 1
    await gone.aclose()


@pytest.mark.usefixtures("deaf")
async def test_a_client_that_died_does_not_keep_others_waiting(
    broker: RedisBroker, server: RedisServer, raw: Redis
) -> None:
    queue = await _queue(broker)
    dead = await RedisBroker.connect(server.url)
    consumer = await dead.queue_consumer(queue)
    pulling = asyncio.create_task(consumer.pull(1, wait=600))
    await _until_waiting(raw, f"q:{queue}", 1)
    await dead._tasks.close()  # as if it had been killed: it does not take its leave
    await dead._connection.close()
    staying = asyncio.create_task((await broker.queue_consumer(queue)).pull(1, wait=600))
    await _until_waiting(raw, f"q:{queue}", 2)
    await broker.enqueue(queue, _message())
    async with asyncio.timeout(_LIMIT):
        assert len(await staying) == 1
    pulling.cancel()
    await asyncio.wait([pulling])


async def test_what_a_cancelled_pull_had_taken_comes_again_at_once(
    broker: RedisBroker, server: RedisServer
) -> None:
    queue = await _queue(broker, visibility_timeout=3600)
    consumer = await broker.queue_consumer(queue)
    await broker.enqueue(queue, _message())
    other = await broker.queue_consumer(queue)
    server.freeze()
    pulling = asyncio.create_task(consumer.pull(1, wait=600))
    await asyncio.sleep(0.1)  # it is on its way, and nobody answers
    pulling.cancel()
    await asyncio.wait([pulling])
    server.thaw()
    delivery = await _one(other)
    await delivery.ack()
    assert (await broker.queue_stats(queue)).in_flight == 0


async def test_what_a_closed_consumer_held_comes_again_at_once(broker: RedisBroker) -> None:
    queue = await _queue(broker, visibility_timeout=3600)
    await broker.enqueue(queue, _message())
    consumer = await broker.queue_consumer(queue)
    await _one(consumer)
    waiting = asyncio.create_task(consumer.pull(1, wait=600))
    await asyncio.sleep(0)
    await consumer.aclose()
    with pytest.raises(Unavailable):
        await waiting
    assert (await _one(await broker.queue_consumer(queue))).deliveries == 2


async def test_a_server_that_does_not_answer_is_unavailable_within_the_time_limit(
    server: RedisServer,
) -> None:
    broker = await RedisBroker.connect(server.url, timeout=0.5)
    queue = await _queue(broker)
    server.freeze()
    with pytest.raises(Unavailable, match="no answer within"):
        async with asyncio.timeout(_LIMIT):
            await broker.enqueue(queue, _message())
    server.thaw()

    async def works() -> bool:
        try:
            await broker.enqueue(queue, _message())
        except Unavailable:
            return False
        return True

    async with asyncio.timeout(_LIMIT):
        await until(works)
    await broker.aclose()


async def test_a_server_that_is_back_serves_the_first_call(broker: RedisBroker, server: RedisServer) -> None:
    queue = await _queue(broker)
    await server.restart()
    await broker.enqueue(queue, _message())
    assert (await broker.queue_stats(queue)).ready == 1


async def test_a_primary_that_is_none_any_more_is_looked_for_again(broker: RedisBroker, raw: Redis) -> None:
    queue = await _queue(broker)

    async def connections() -> int:
        return int((await raw.info("stats"))["total_connections_received"])

    await raw.replicaof("127.0.0.1", "1")
    before = await connections()
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"READONLY|read only"):
            await broker.enqueue(queue, _message())
    await raw.replicaof("NO", "ONE")
    await broker.enqueue(queue, _message())
    assert await connections() > before


async def test_without_memory_it_takes_nothing_and_gives_out_what_it_has(
    broker: RedisBroker, raw: Redis
) -> None:
    queue = await _queue(broker)
    topic = f"t-{secrets.token_hex(4)}"
    await broker.declare_topic(TopicSettings(topic))
    await raw.config_set("maxmemory", "6mb")
    consumer = await broker.queue_consumer(queue)
    large = _message(bytes(600_000))
    with pytest.raises(Unavailable, match="maxmemory"):
        await asyncio.gather(*(broker.enqueue(queue, large) for _ in range(20)))
    await raw.config_set("maxmemory", "1mb")
    with pytest.raises(Unavailable, match="maxmemory"):
        await broker.publish(topic, _message())
    taken = 0
    for delivery in await consumer.pull(20, wait=5):
        await delivery.extend()
        await delivery.ack()
        taken += 1
    assert taken > 1
    await raw.config_set("maxmemory", "0")
    await broker.enqueue(queue, _message())


async def test_a_disk_that_takes_no_writes_is_said_to_be_the_reason(tmp_path: Path) -> None:
    async with redis_server(tmp_path, "--save", "3600 1000000", "--dbfilename", "taken") as server:
        broker = await RedisBroker.connect(server.url)
        queue = await _queue(broker)
        (tmp_path / "taken").mkdir()  # no file can be put there
        raw = Redis.from_url(server.url, decode_responses=True)
        await raw.bgsave()

        async def failed() -> bool:
            return str((await raw.info("persistence"))["rdb_last_bgsave_status"]) == "err"

        async with asyncio.timeout(_LIMIT):
            await until(failed)
        with pytest.raises(Unavailable, match="disk"):
            await broker.enqueue(queue, _message())
        await raw.aclose()
        await broker.aclose()


@pytest.mark.usefixtures("deaf")
async def test_a_user_needs_no_more_than_what_is_documented(server: RedisServer, raw: Redis) -> None:
    await _set_user(raw, "mesh", "on", f">{_PASSWORD}", *_PERMITTED.split())
    broker = await RedisBroker.connect(server.url, username="mesh", password=_PASSWORD)
    queue = await _queue(broker)
    consumer = await broker.queue_consumer(queue)
    pulling = asyncio.create_task(consumer.pull(1, wait=600))
    await broker.enqueue(queue, _message(), delay=0.2)
    async with asyncio.timeout(_LIMIT):
        [delivery] = await pulling
    await delivery.dead_letter("no")
    assert await broker.redrive(queue, [delivery.message.id]) == 1
    assert await broker.purge(queue) == 1
    await broker.declare_topic(TopicSettings("t", partitions=2))
    await broker.declare_group(GroupSettings("t", "g"))
    await broker.publish("t", _message(), partition=1)
    await (await _one(await broker.group_consumer("t", "g"))).ack()
    assert (await broker.topic_stats("t")).messages == 1
    await broker.remove_topic("t")
    await broker.remove_queue(queue)
    assert await raw.keys("*") == []
    await broker.aclose()


async def test_over_tls_a_server_has_to_be_who_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pki = Pki()
    certificate, key = pki.svid("", dns_names=(), ip_addresses=("127.0.0.1",))
    (tmp_path / "cert.pem").write_bytes(certificate)
    (tmp_path / "key.pem").write_bytes(key)
    (tmp_path / "root.pem").write_bytes(pki.root.public_bytes(Encoding.PEM))
    async with redis_server(tmp_path, *_tls_options(tmp_path)) as server:
        with pytest.raises(Unavailable, match="certificate"):
            await RedisBroker.connect(server.tls_url, timeout=2)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "root.pem"))
        with pytest.raises(Unavailable, match="certificate"):
            await RedisBroker.connect(server.tls_url.replace("127.0.0.1", "localhost"), timeout=2)
        broker = await RedisBroker.connect(server.tls_url)
        queue = await _queue(broker)
        waiting = asyncio.create_task((await broker.queue_consumer(queue)).pull(1, wait=600))
        await broker.enqueue(queue, _message())
        async with asyncio.timeout(_LIMIT):
            assert len(await waiting) == 1
        await broker.aclose()


def _tls_options(directory: Path) -> tuple[str, ...]:
    files = {"cert": "cert.pem", "key": "key.pem", "ca-cert": "root.pem"}
    options = [(f"--tls-{name}-file", str(directory / file)) for name, file in files.items()]
    return ("--tls-auth-clients", "no", *(text for option in options for text in option))


async def test_passwords_and_permissions_that_do_not_do_are_denied_and_not_repeated(
    server: RedisServer, raw: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await _set_user(raw, "mesh", "on", f">{_PASSWORD}", *_PERMITTED.split())
    await _set_user(raw, "default", "off")
    for username, password in (("mesh", "wrong-" + _PASSWORD), ("", ""), ("nobody", _PASSWORD)):
        with pytest.raises(Denied) as failure:
            await RedisBroker.connect(server.url, username=username, password=password)
        assert _PASSWORD not in str(failure.value)
    other = await RedisBroker.connect(server.url, username="mesh", password=_PASSWORD, prefix="other")
    with pytest.raises(Denied) as failure:
        await other.declare_queue(QueueSettings("q"))
    assert _PASSWORD not in str(failure.value)
    assert _PASSWORD not in repr(other._connection.address)
    await other.aclose()
    assert _PASSWORD not in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{_PASSWORD}@127.0.0.1",
        f"redis://127.0.0.1?password={_PASSWORD}",
        "http://127.0.0.1",
        "redis://",
        "redis://127.0.0.1/x",
        "redis://127.0.0.1:port",
    ],
)
async def test_urls_that_are_none_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InvalidRequest) as failure:
        await RedisBroker.connect(url)
    assert _PASSWORD not in str(failure.value)


async def test_meshes_share_a_redis_by_their_prefixes(broker: RedisBroker, server: RedisServer) -> None:
    queue = await _queue(broker)
    other = await RedisBroker.connect(server.url, prefix="other")
    with pytest.raises(NotFound):
        await other.enqueue(queue, _message())
    await other.declare_queue(QueueSettings(queue))
    await other.enqueue(queue, _message(b"theirs"))
    assert (await broker.queue_stats(queue)).ready == 0
    await other.remove_queue(queue)
    await broker.enqueue(queue, _message(b"ours"))
    await other.aclose()


async def test_a_group_begins_at_a_sequence_in_every_partition(broker: RedisBroker) -> None:
    await broker.declare_topic(TopicSettings("t", partitions=3))
    sequences = [await broker.publish("t", _message(str(n).encode()), partition=n % 3) for n in range(30)]
    assert sequences == list(range(1, 31))
    for start in (1, 2, 17, 30):
        await broker.declare_group(GroupSettings("t", f"g{start}", start=Start(sequence=start)))
        member = await broker.group_consumer("t", f"g{start}")
        got = []
        while deliveries := await member.pull(10, wait=0):
            for each in deliveries:
                got.append(each.sequence)
                await each.ack()
        assert sorted(got) == list(range(start, 31))


async def test_messages_of_a_topic_grow_too_old(broker: RedisBroker) -> None:
    await broker.declare_topic(TopicSettings("t", max_age=0.5))
    await broker.declare_group(GroupSettings("t", "g", start=ALL))
    await broker.publish("t", _message())
    await broker.publish("t", _message())

    async def empty() -> bool:
        return (await broker.topic_stats("t")).messages == 0

    async with asyncio.timeout(_LIMIT):
        await until(empty)
    assert list(await (await broker.group_consumer("t", "g")).pull(1, wait=0)) == []
    assert await broker.publish("t", _message()) == 3
    stats = await broker.topic_stats("t")
    assert (stats.messages, stats.first_sequence, stats.last_sequence) == (1, 3, 3)


async def test_the_oldest_of_all_partitions_make_room(broker: RedisBroker) -> None:
    limit = 1024**2
    await broker.declare_topic(TopicSettings("t", partitions=2, max_bytes=limit))
    for number in range(60):
        # The second partition gets one in six.
        await broker.publish("t", _message(bytes(50_000)), partition=int(number % 6 == 0))
    stats = await broker.topic_stats("t")
    assert 0.8 * limit < stats.size <= limit
    assert stats.last_sequence == 60
    assert stats.messages == stats.last_sequence - stats.first_sequence + 1


async def test_an_event_that_is_gone_before_it_is_delivered_again_is_no_hindrance(
    broker: RedisBroker,
) -> None:
    await broker.declare_topic(TopicSettings("t", partitions=1, max_age=0.5))
    await broker.declare_group(GroupSettings("t", "g", visibility_timeout=1))
    member = await broker.group_consumer("t", "g")
    await broker.publish("t", _message())
    held = await _one(member)

    async def empty() -> bool:
        return (await broker.topic_stats("t")).messages == 0

    async with asyncio.timeout(_LIMIT):
        await until(empty)
    await broker.declare_topic(TopicSettings("t", partitions=1))
    await broker.publish("t", _message(b"next"))
    following = await _one(member)
    assert (following.message.body, following.deliveries) == (b"next", 1)
    await held.ack()


async def test_as_many_dead_letters_are_kept_as_the_queue_may_be_long(broker: RedisBroker) -> None:
    queue = await _queue(broker, max_length=3)
    consumer = await broker.queue_consumer(queue)
    sent = []
    for _ in range(5):
        sent.append(_message())
        await broker.enqueue(queue, sent[-1])
        await (await _one(consumer)).dead_letter("no")
    ids = [each.id for each in sent]
    assert [each.message.id for each in await broker.peek(queue, limit=10, dead=True)] == ids[2:]
    assert await broker.redrive(queue, ids) == 3
    assert (await broker.queue_stats(queue)).dead == 0


async def test_a_long_queue_is_purged_though_something_is_under_way(broker: RedisBroker) -> None:
    queue = await _queue(broker)
    await asyncio.gather(*(broker.enqueue(queue, _message()) for _ in range(350)))
    consumer = await broker.queue_consumer(queue)
    held = await _one(consumer)
    (await _one(consumer),)
    assert await broker.purge(queue) == 348
    await held.nack()
    assert (await _one(consumer)).message == held.message
    assert list(await consumer.pull(5, wait=0)) == []


async def test_an_entry_that_somebody_else_wrote_is_dropped(broker: RedisBroker, raw: Redis) -> None:
    queue = await _queue(broker)
    await raw.xadd(f"weft:{{q:{queue}}}:lane:1", {"some": "thing"})
    await broker.enqueue(queue, _message(b"good"))
    consumer = await broker.queue_consumer(queue)
    assert (await _one(consumer)).message.body == b"good"

    async def gone() -> bool:
        stats = await broker.queue_stats(queue)
        return (stats.ready, stats.in_flight) == (0, 1)

    async with asyncio.timeout(_LIMIT):
        await until(gone)


async def test_a_redis_that_may_lose_messages_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with redis_server(tmp_path, "--appendonly", "no") as server:
        await (await RedisBroker.connect(server.url)).aclose()
    assert "append-only" in caplog.text
