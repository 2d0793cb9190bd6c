"""Contexts in a cluster whose replicas do not yet know what the leader has just written."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import pytest
from tests.fake_time import run_in_fake_time

from weft.contexts.contexts import Contexts, of_tenant
from weft.contexts.records import CHUNK_BYTES, BytesCodec
from weft.model.context_keys import CONTEXTS_BUCKET
from weft.store.bucket import Bucket, Change, Entry
from weft.store.memory import MemoryStore

LAG = 0.08
"""Seconds that a replica may be behind."""


@dataclass
class Lagging:
    """A bucket each of whose reads may be answered by a replica that is behind. Writes go to the leader."""

    inner: Bucket[bytes]
    luck: random.Random
    written: dict[str, list[tuple[float, Entry[bytes] | None]]]
    """What stood at each key before, and until when."""

    async def get(self, key: str) -> Entry[bytes] | None:
        now = asyncio.get_running_loop().time()
        for until, before in self.written.get(key, []):
            if until + LAG > now and self.luck.random() < 0.5:
                return before
        return await self.inner.get(key)

    async def create(self, key: str, value: bytes, *, ttl: float | None = None) -> int:
        await self._note(key)
        return await self.inner.create(key, value, ttl=ttl)

    async def put(self, key: str, value: bytes, *, ttl: float | None = None) -> int:
        await self._note(key)
        return await self.inner.put(key, value, ttl=ttl)

    async def update(self, key: str, value: bytes, *, revision: int, ttl: float | None = None) -> int:
        await self._note(key)
        return await self.inner.update(key, value, revision=revision, ttl=ttl)

    async def delete(self, key: str, *, revision: int | None = None) -> None:
        await self._note(key)
        await self.inner.delete(key, revision=revision)

    async def entries(self, prefix: str = "") -> list[Entry[bytes]]:
        raise NotImplementedError

    async def recent(
        self, limit: int = 100, prefix: str = "", *, before: int | None = None
    ) -> list[Entry[bytes]]:
        raise NotImplementedError

    def watch(self, prefix: str = "") -> AbstractAsyncContextManager[AsyncIterator[Change[bytes]]]:
        raise NotImplementedError

    async def _note(self, key: str) -> None:
        await asyncio.sleep(0.001)
        now = asyncio.get_running_loop().time()
        self.written.setdefault(key, []).append((now, await self.inner.get(key)))


@pytest.mark.parametrize("seed", range(5))
def test_replicas_that_are_behind_cost_time_and_no_message_no_change_and_no_artifact(seed: int) -> None:
    async def play() -> None:
        store = MemoryStore()
        bucket = Lagging(await store.bucket(CONTEXTS_BUCKET, BytesCodec()), random.Random(seed), {})
        contexts = Contexts(bucket, of_tenant("default"), author="spiffe://weft.local/agent/a/b")

        async def write(writer: int) -> None:
            conversation = contexts.conversation("c", may_begin=True)
            for turn in range(5):
                appended = await conversation.append("user", [writer, turn])
                own = [each.number for each in await conversation.messages()]
                assert own[: appended.number] == list(range(1, appended.number + 1))
                await conversation.update(lambda known: (known or 0) + 1)
                data = b"%d" % writer * CHUNK_BYTES + b"%d" % turn
                await conversation.put_artifact(f"file-{writer}", data)
                assert (await conversation.artifact(f"file-{writer}")).data[:1] == b"%d" % writer

        await asyncio.gather(*map(write, range(4)))
        await asyncio.sleep(2 * LAG)
        conversation = contexts.conversation("c")
        messages = await conversation.messages()
        assert [each.number for each in messages] == list(range(1, 21))
        for writer in range(4):
            said = [each.content[1] for each in messages if each.content[0] == writer]
            assert said == list(range(5))
            assert (await conversation.artifact(f"file-{writer}")).data.endswith(b"4")
        assert (await conversation.state()).value == 20
        assert len(await conversation.artifacts()) == 4
        await store.close()

    run_in_fake_time(play())
