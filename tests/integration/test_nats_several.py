"""The store and the broker over three NATS servers, of which one or two go away."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.conformance.codecs import JsonCodec
from tests.nats_cluster import NatsCluster, NatsNode, nats_cluster
from tests.servers import NatsServer, nats_server

from weft.aio.guard import Guard
from weft.aio.poll import until
from weft.errors import Unavailable
from weft.messaging.broker import BrokerAdmin, QueueSettings, TopicSettings
from weft.messaging.message import Message
from weft.messaging.opening import BrokerAccess, open_broker
from weft.store.bucket import Bucket, Put, Snapshot
from weft.store.journal import Journal
from weft.store.nats import NatsStore

T = TypeVar("T")

PATIENCE = 180.0
LIMIT = 10.0
"""Seconds that an operation may take: more than NATS needs to find another leader."""

STREAMS = {"KV_things", "record", "TOPIC_news"}


@asynccontextmanager
async def connected(
    cluster: NatsCluster, *, replicas: int = 3, timeout: float = LIMIT, only: NatsNode | None = None
) -> AsyncIterator[NatsStore]:
    store = await cluster.control(replicas=replicas, timeout=timeout, only=only)
    try:
        yield store
    finally:
        await store.close()


async def eventually(operation: Callable[[], Awaitable[T]]) -> T:
    """What it gives, done again if need be: a stream may have no leader, and what was under way got lost."""
    results: list[T] = []

    async def is_done() -> bool:
        with suppress(Unavailable):
            results.append(await operation())
        return bool(results)

    async with asyncio.timeout(PATIENCE):
        await until(is_done)
    return results[0]


async def told(store: NatsStore, stream: str) -> dict[str, Any]:
    """What NATS says of a stream; asked until somebody answers, as it may have no leader."""
    answers: list[dict[str, Any]] = []

    async def is_told() -> bool:
        with suppress(Unavailable):
            answer = await store.connection.request("look", f"$JS.API.STREAM.INFO.{stream}")
            answers.append(json.loads(answer.data))
        return bool(answers) and "error" not in answers[-1]

    async with asyncio.timeout(PATIENCE):
        await until(is_told)
    return answers[-1]


async def leader(cluster: NatsCluster, store: NatsStore, stream: str) -> NatsNode:
    name = (await told(store, stream))["cluster"]["leader"]
    return next(each for each in cluster.nodes if each.name == name)


async def opened(store: NatsStore) -> tuple[Bucket[Any], Journal[Any], BrokerAdmin]:
    """A bucket, a journal, and a broker with a topic."""
    broker = await open_broker(BrokerAccess("nats"), store)
    await broker.declare_topic(TopicSettings("news"))
    return await store.bucket("things", JsonCodec()), await store.journal("record", JsonCodec()), broker


async def all_streams(store: NatsStore) -> set[str]:
    answer = await store.connection.request("look", "$JS.API.STREAM.NAMES")
    return set(json.loads(answer.data)["streams"])


async def copied(store: NatsStore) -> None:
    """Wait until three servers have all of each stream."""

    async def are_copied() -> bool:
        for name in await all_streams(store):
            cluster = (await told(store, name))["cluster"]
            followers = [each["current"] for each in cluster.get("replicas") or ()]
            if "desired" in cluster or followers != [True, True]:
                return False
        return True

    async with asyncio.timeout(PATIENCE):
        await until(are_copied)


async def test_what_one_server_kept_is_copied_to_three_and_then_any_one_of_them_may_die(
    tmp_path: Path,
) -> None:
    async with nats_cluster(tmp_path) as cluster:
        async with connected(cluster, replicas=1) as store:
            bucket, journal, broker = await eventually(lambda: opened(store))
            await eventually(lambda: bucket.put("first", 1))
            await eventually(lambda: journal.append("tail", "entry"))
            await eventually(lambda: broker.publish("news", Message("one", b"body", {})))
            before = {name: (await told(store, name))["config"] for name in await all_streams(store)}
        assert before.keys() == STREAMS
        assert {each["num_replicas"] for each in before.values()} == {1}
        async with connected(cluster) as store:
            bucket, journal, broker = await eventually(lambda: opened(store))
            await copied(store)
            for name, config in before.items():
                now = (await told(store, name))["config"]
                assert {**now, "metadata": None} == {**config, "num_replicas": 3, "metadata": None}, name
            node = await leader(cluster, store, "KV_things")
            await node.kill()
            await eventually(lambda: bucket.put("second", 2))
            # Two of three are enough for what is new, too.
            made = await eventually(lambda: store.bucket("made", JsonCodec()))
            await eventually(lambda: made.put("key", 1))
            # Nor does it matter that its volume is gone.
            shutil.rmtree(node.store)
            await node.start()
            await copied(store)
            entries = await eventually(bucket.entries)
            assert {each.key: each.value for each in entries} == {"first": 1, "second": 2}
            assert {each.record for each in await eventually(journal.recent)} == {"entry"}
            assert (await eventually(lambda: broker.topic_stats("news"))).messages
            await broker.aclose()


async def test_what_a_server_does_not_answer_that_stands_still_another_does(tmp_path: Path) -> None:
    async with nats_cluster(tmp_path) as cluster:
        async with connected(cluster) as store:
            things = await eventually(lambda: store.bucket("things", JsonCodec()))
            await eventually(lambda: things.put("key", 1))
            node = await leader(cluster, store, "KV_things")
        other = next(each for each in cluster.nodes if each is not node)
        async with connected(cluster, timeout=PATIENCE / 2, only=other) as store:
            bucket = await eventually(lambda: store.bucket("things", JsonCodec()))
            node.freeze()
            try:
                found = await bucket.get("key")
            finally:
                node.thaw()
            assert found is not None
            assert found.value == 1


async def test_with_two_of_three_away_it_says_so_and_goes_on_when_one_is_back(tmp_path: Path) -> None:
    async with nats_cluster(tmp_path) as cluster, connected(cluster, timeout=2.0) as store:
        bucket = await eventually(lambda: store.bucket("things", JsonCodec()))
        one = await eventually(lambda: bucket.put("one", 1))
        async with asyncio.timeout(PATIENCE), bucket.watch() as changes:
            assert isinstance(await anext(changes), Snapshot)
            await cluster.nodes[0].kill()
            await cluster.nodes[1].kill()
            said: list[str] = []

            async def is_said_plainly() -> bool:
                try:
                    await bucket.put("one", 2)
                except Unavailable as error:
                    said.append(error.detail)
                return bool(said) and "more than half of the servers" in said[-1]

            await until(is_said_plainly)
            await cluster.nodes[1].start()
            await eventually(lambda: bucket.put("one", 3))
            async for change in changes:
                entries = change.entries if isinstance(change, Snapshot) else ()
                now = change.entry if isinstance(change, Put) else next(iter(entries), None)
                if now is not None and now.value == 3:
                    assert now.revision > one
                    return


async def test_copies_that_are_not_to_be_had_are_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with nats_server(tmp_path) as server:
        single = await NatsStore.connect([server.url], name="test")
        try:
            await (await single.bucket("things", JsonCodec())).put("key", 1)
            broker = await open_broker(BrokerAccess("nats"), single)
            await broker.declare_queue(QueueSettings("work"))
        finally:
            await single.close()
        store = await NatsStore.connect([server.url], name="test", replicas=3)
        try:
            # What is there goes on as it is.
            found = await (await store.bucket("things", JsonCodec())).get("key")
            assert found is not None
            broker = await open_broker(BrokerAccess("nats"), store)
            await broker.declare_queue(QueueSettings("work", max_length=7))
            assert "stream KV_things is kept by 1 NATS servers, not yet by 3" in caplog.text
            assert "stream QUEUE_work is kept by 1 NATS servers, not yet by 3" in caplog.text
            assert (await told(store, "QUEUE_work"))["config"]["max_msgs"] == 7
            with pytest.raises(Unavailable, match="fewer NATS servers than are to keep copies"):
                await store.bucket("others", JsonCodec())
        finally:
            await store.close()


class _Lingering(NatsServer):
    """A server that keeps its clients for minutes after it was told to stop."""

    def _arguments(self) -> Sequence[str]:
        file = self._directory / "lingering.conf"
        file.write_text(json.dumps({"lame_duck_duration": "10m", "lame_duck_grace_period": "9m"}))
        return (*super()._arguments(), "--config", str(file))

    def say_goodbye(self) -> None:
        """Have it tell its clients to go."""
        self._send(signal.SIGUSR2)


async def test_a_server_that_is_about_to_stop_is_left_before_it_does(tmp_path: Path) -> None:
    async with Guard(grace=0.1) as guard, AsyncExitStack() as ends:
        servers = {}
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            server = _Lingering(tmp_path / name, guard)
            ends.push_async_callback(server.kill)
            await server.start()
            servers[server.port] = server
        store = await NatsStore.connect([each.url for each in servers.values()], name="test", timeout=LIMIT)
        ends.push_async_callback(store.close)
        left = await store.connection.client()
        assert left.connected_url is not None
        assert left.connected_url.port is not None
        servers[left.connected_url.port].say_goodbye()

        async def has_left() -> bool:
            assert store.connected
            return await store.connection.client() is not left

        async with asyncio.timeout(PATIENCE):
            await until(has_left)
