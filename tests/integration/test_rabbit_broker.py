"""What RabbitMQ has of its own: alarms, passwords, settings that cannot be changed, and servers that hang."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiormq.exceptions import ChannelNotFoundEntity
from tests.conformance.rabbit_broker import connected
from tests.hosting import hosted
from tests.rabbitmq_server import MISSING, RabbitServer, rabbitmq_server
from yarl import URL

from weft.aio.poll import until
from weft.errors import Conflict, Denied, MeshError, NotFound, QueueFull, Unavailable
from weft.messaging.broker import QueueSettings
from weft.messaging.brokers import rabbitmq_publisher
from weft.messaging.brokers.rabbitmq import RabbitBroker
from weft.messaging.brokers.rabbitmq_link import Link
from weft.messaging.message import Message

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]

LIMIT = 60.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RabbitServer]:
    """A server for all tests; each uses queues of its own."""
    async with hosted(rabbitmq_server(tmp_path_factory.mktemp("rabbitmq"))) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def broker(server: RabbitServer) -> AsyncIterator[RabbitBroker]:
    """A client with the management plugin."""
    client = await connected(server)
    yield client
    await client.aclose()


async def _queue(broker: RabbitBroker, **settings: int) -> str:
    name = f"q-{secrets.token_hex(5)}"
    await broker.declare_queue(QueueSettings(name, **settings))
    return name


def _message() -> Message:
    return Message(secrets.token_hex(8), b"body")


async def test_a_disk_alarm_refuses_what_is_published_and_lets_consumers_go_on(
    server: RabbitServer, broker: RabbitBroker
) -> None:
    queue = await _queue(broker)
    consumer = await broker.queue_consumer(queue)
    await broker.enqueue(queue, _message())
    await server.raise_alarm()
    try:
        impatient = await RabbitBroker.connect(
            server.url, username=server.username, password=server.username, timeout=1.0
        )
        with pytest.raises(Unavailable, match="little memory or disk"):
            await impatient.enqueue(queue, _message())
        async with asyncio.timeout(LIMIT):
            [delivery] = await consumer.pull(1, wait=LIMIT)
            await delivery.ack()
        await impatient.aclose()
    finally:
        await server.clear_alarm()
    await broker.enqueue(queue, _message())


async def test_a_wrong_password_is_denied_and_told_to_nobody(
    server: RabbitServer, caplog: pytest.LogCaptureFixture
) -> None:
    password = secrets.token_hex(12)
    with caplog.at_level(logging.DEBUG), pytest.raises(Denied) as failure:
        await RabbitBroker.connect(server.url, username="guest", password=password)
    assert password not in failure.value.detail
    assert password not in caplog.text
    nowhere = server.url.replace(str(server.port), "1")
    with caplog.at_level(logging.DEBUG), pytest.raises(Unavailable) as unreachable:
        await RabbitBroker.connect(nowhere, username="guest", password=password)
    assert password not in unreachable.value.detail
    assert password not in caplog.text


async def test_without_the_management_plugin_limits_stay_as_they_were_declared(
    server: RabbitServer, broker: RabbitBroker
) -> None:
    plain = await RabbitBroker.connect(server.url, username=server.username, password=server.username)
    try:
        queue = await _queue(plain, max_length=2)
        await plain.declare_queue(QueueSettings(queue, max_length=2, visibility_timeout=5.0))
        for each in (plain, broker):
            with pytest.raises(Conflict, match="management plugin"):
                await each.declare_queue(QueueSettings(queue, max_length=3))
        for _ in range(2):
            await plain.enqueue(queue, _message())
        with pytest.raises(QueueFull):
            await plain.enqueue(queue, _message())
        stats = await plain.queue_stats(queue)
        assert (stats.ready, stats.in_flight) == (2, 0)
    finally:
        await plain.aclose()


async def test_a_server_that_hangs_is_unavailable_and_its_messages_come_again(server: RabbitServer) -> None:
    client = await RabbitBroker.connect(
        server.url, username=server.username, password=server.username, timeout=1.0
    )
    try:
        queue = await _queue(client)
        consumer = await client.queue_consumer(queue)
        sent = _message()
        await client.enqueue(queue, sent)
        [held] = await consumer.pull(1, wait=LIMIT)
        server.freeze()
        try:
            async with asyncio.timeout(LIMIT):
                with pytest.raises(Unavailable):
                    await client.enqueue(queue, _message())
                with pytest.raises(Unavailable):
                    await consumer.pull(1, wait=LIMIT)
        finally:
            server.thaw()
        with pytest.raises(Conflict):
            await held.extend()

        async def again() -> bool:
            try:
                return sent in [each.message for each in await consumer.pull(5, wait=5)]
            except Unavailable:
                return False

        async with asyncio.timeout(LIMIT):
            await until(again)
    finally:
        await client.aclose()


async def test_one_client_follows_what_another_has_declared(
    server: RabbitServer, broker: RabbitBroker
) -> None:
    queue = await _queue(broker, max_length=2)
    for _ in range(2):
        await broker.enqueue(queue, _message())
    other = await connected(server)
    try:
        await other.declare_queue(QueueSettings(queue, max_length=4))
        async with asyncio.timeout(LIMIT):
            await until(lambda: _taken(broker, queue))
    finally:
        await other.aclose()


async def _taken(broker: RabbitBroker, queue: str) -> bool:
    try:
        await broker.enqueue(queue, _message())
    except QueueFull:
        return False
    return True


async def test_what_a_queue_or_a_delay_that_was_just_made_has_confirmed_survives_the_servers_death(
    server: RabbitServer, broker: RabbitBroker
) -> None:
    queue, after_delay = await _queue(broker), await _queue(broker)
    await broker.enqueue(queue, _message())
    await server.restart()
    await broker.enqueue(after_delay, _message(), delay=3.0)
    await server.restart()
    for each in (queue, after_delay):
        consumer = await broker.queue_consumer(each)
        async with asyncio.timeout(LIMIT):
            [delivery] = await consumer.pull(1, wait=LIMIT)
        await delivery.ack()
        await consumer.aclose()


async def test_what_waits_is_not_lost_though_who_made_its_queue_did_not_see_that_it_is_there_for_good(
    server: RabbitServer, broker: RabbitBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = await _queue(broker)

    async def not_yet(*_: object) -> None:
        """Somebody who is about to."""

    with monkeypatch.context() as patched:
        patched.setattr(rabbitmq_publisher, "have_for_good", not_yet)
        await broker.enqueue(queue, _message(), delay=4.0)
    other, waits = await connected(server), _message()
    await other.enqueue(queue, waits, delay=4.0)
    await server.restart()
    consumer = await other.queue_consumer(queue)
    taken: list[Message] = []
    async with asyncio.timeout(LIMIT):
        while waits not in taken:
            for delivery in await consumer.pull(2, wait=LIMIT):
                taken.append(delivery.message)
                await delivery.ack()
    await consumer.aclose()
    await other.aclose()


async def test_a_server_that_breaks_down_over_delays_is_said_to_need_a_restart_and_works_after_it(
    server: RabbitServer, broker: RabbitBroker
) -> None:
    queue, waits = await _queue(broker), _message()
    await server.settle()
    await server.stop_delays()
    with pytest.raises(Unavailable, match=r"broke down over it.*started anew"):
        await broker.enqueue(queue, waits, delay=1.0)
    await server.restart()

    async def enqueued() -> bool:
        try:
            await broker.enqueue(queue, waits, delay=1.0)
        except Unavailable:
            return False
        return True

    consumer = await broker.queue_consumer(queue)
    async with asyncio.timeout(LIMIT):
        await until(enqueued)
        [delivery] = await consumer.pull(1, wait=LIMIT)
        await delivery.ack()
    assert delivery.message == waits
    await consumer.aclose()


@pytest.mark.parametrize(
    ("told", "meaning"),
    [
        ("NOT_FOUND - no queue 'q' in vhost '/'", NotFound),
        ("NOT_FOUND - no exchange 't' in vhost '/'", NotFound),
        ("NOT_FOUND - home node 'rabbit@here' of durable queue 'q' in vhost '/' is down", Unavailable),
        ("NOT_FOUND - queue 'q' in vhost '/' process is stopped by supervisor", Unavailable),
    ],
)
async def test_a_queue_that_starts_is_not_one_that_was_never_declared(
    told: str, meaning: type[MeshError]
) -> None:
    link = Link(URL("amqp://127.0.0.1:1"), name="test", timeout=1.0)
    with pytest.raises(meaning), link.translated("removing topic 't'"):
        raise ChannelNotFoundEntity(told)
    await link.aclose()
