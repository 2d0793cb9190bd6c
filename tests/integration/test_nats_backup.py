"""Everything out of one NATS and into another, by way of a file."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats.js.api import ConsumerConfig, StreamConfig
from tests.nats_cluster import NatsCluster, nats_cluster

from weft.errors import Conflict, InvalidRequest
from weft.store.nats import NatsStore
from weft.store.nats_backup import restore

LARGE = os.urandom(900 * 1024)
"""More than a piece of a snapshot."""
BUCKET = "things"


class AsBytes:
    """Values as they are."""

    def encode(self, value: bytes) -> bytes:
        return value

    def decode(self, data: bytes) -> bytes:
        return data


@asynccontextmanager
async def connected(cluster: NatsCluster, replicas: int) -> AsyncIterator[NatsStore]:
    store = await cluster.control(timeout=60.0, replicas=replicas)
    try:
        yield store
    finally:
        await store.close()


async def filled(store: NatsStore) -> None:
    """A bucket, and a stream with a consumer that has had one of three messages."""
    bucket = await store.bucket(BUCKET, AsBytes())
    await bucket.put("small", b"1")
    await bucket.put("small", b"2")
    await bucket.put("large", LARGE)
    client = await store.connection.client()
    jetstream = store.connection.jetstream(client)
    await jetstream.add_stream(StreamConfig(name="work", subjects=["work"]))
    for number in range(3):
        await jetstream.publish("work", str(number).encode())
    consumer = await jetstream.pull_subscribe("work", "worker", config=ConsumerConfig(durable_name="worker"))
    [first] = await consumer.fetch(1, timeout=30)
    await first.ack_sync(timeout=30)


async def test_what_one_server_had_three_servers_have_after_it(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    for each in (before, after):
        each.mkdir()
    async with nats_cluster(before, size=1) as cluster:
        async with connected(cluster, 1) as store:
            await filled(store)
        code, backup, said = await weft(cluster, "backup")
        assert (code, said.strip()) == (0, "2 streams backed up")
    async with nats_cluster(after) as cluster, connected(cluster, 3) as store:
        broken = backup[: backup.index(b"work/end.json")]
        with pytest.raises(InvalidRequest, match="the backup cannot be read"):
            await restore(store.connection, io.BytesIO(broken), replicas=3)
        # Nothing of it was left, or it would be in the way.
        code, told, said = await weft(cluster, "restore", given=backup)
        assert (code, told, said) == (0, b"2 streams restored\n", "")
        await has_it_all(store)
        with pytest.raises(Conflict, match="NATS is not empty: it has 2 streams, KV_things among them"):
            await restore(store.connection, io.BytesIO(backup), replicas=3)


async def has_it_all(store: NatsStore) -> None:
    bucket = await store.bucket(BUCKET, AsBytes())
    assert {each.key: each.value for each in await bucket.entries()} == {"small": b"2", "large": LARGE}
    jetstream = store.connection.jetstream(await store.connection.client())
    for name in (f"KV_{BUCKET}", "work"):
        assert (await jetstream.stream_info(name)).config.num_replicas == 3
    consumer = await jetstream.pull_subscribe_bind("worker", "work")
    rest = await consumer.fetch(2, timeout=60)
    assert [each.data for each in rest] == [b"1", b"2"], "what was done is not done again"


async def weft(cluster: NatsCluster, command: str, *, given: bytes = b"") -> tuple[int, bytes, str]:
    """Exit code, standard output, and what was said beside it."""
    urls = ",".join(f'"{each}"' for each in cluster.urls)
    program = "import sys; from weft.cli.main import run; sys.exit(run(sys.argv[1:]))"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, "kubernetes", command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            **cluster.security.control_environment(),
            "WEFT_CONTROL_NATS": f"[{urls}]",
            "WEFT_CONTROL_NATS_REPLICAS": str(len(cluster.nodes)),
        },
    )
    output, error = await process.communicate(given)
    assert process.returncode is not None
    return process.returncode, output, error.decode()
