"""The floor below every change to effect: from a write to NATS KV until the last watcher has it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

from weft.identity.tls import client_context
from weft.store.bucket import Bucket, Change, Put
from weft.store.nats import NatsStore

_BUCKET = "bench"
_LIMIT = 30.0


class _Text:
    """Values as they are."""

    def encode(self, value: str) -> bytes:
        return value.encode()

    def decode(self, data: bytes) -> str:
        return data.decode()


async def notice_times(nats: str, keys: Path, watchers: int, repetitions: int) -> list[float]:
    """Write `repetitions` times; return how long it took to the last of `watchers`, in seconds.

    They connect as the control plane does, by what is in the directory `keys`.
    """
    async with AsyncExitStack() as stack:
        buckets = [await _bucket(stack, nats, keys) for _ in range(watchers + 1)]
        watches = [await stack.enter_async_context(each.watch()) for each in buckets[1:]]
        for each in watches:
            await anext(each)  # what there is already
        return [await _notice(buckets[0], watches, str(number)) for number in range(repetitions)]


async def _bucket(stack: AsyncExitStack, nats: str, keys: Path) -> Bucket[str]:
    roots = (keys / "roots.pem").read_bytes()
    store = await NatsStore.connect(
        [nats],
        name="benchmark",
        tls=lambda: client_context(roots, keys / "control.pem"),
        credentials=keys / "control.seed",
    )
    stack.push_async_callback(store.close)
    return await store.bucket(_BUCKET, _Text())


async def _notice(bucket: Bucket[str], watches: list[AsyncIterator[Change[str]]], value: str) -> float:
    began = time.monotonic()
    await bucket.put("key", value)
    async with asyncio.timeout(_LIMIT):
        return max(await asyncio.gather(*(_arrival(each, value) for each in watches))) - began


async def _arrival(watch: AsyncIterator[Change[str]], value: str) -> float:
    async for change in watch:
        if isinstance(change, Put) and change.entry.value == value:
            break
    return time.monotonic()
