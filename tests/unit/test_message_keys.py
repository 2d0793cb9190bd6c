"""The custody of the keys of messages, over a store in memory."""

from __future__ import annotations

import asyncio
import logging
import random

import pytest
from tests.clock import Clock

from weft.controlplane.message_keys import (
    BUCKET,
    CLOCK_MARGIN,
    DAY,
    MAX_REQUESTED_EPOCHS,
    MESSAGE_LIFETIME,
    PUBLISH_GRACE,
    ROTATION_AGE,
    MessageKeys,
)
from weft.controlplane.sealing import SealBroken, Sealer
from weft.errors import InvalidRequest
from weft.messaging.channel import Channel, ChannelKind
from weft.messaging.sealing import Binding, open_sealed, seal
from weft.store.memory import MemoryStore

NEWS = Channel(ChannelKind.TOPIC, "news")
TASKS = Channel(ChannelKind.QUEUE, "tasks")
SEALING_KEY = bytes(range(32))


class Raw:
    """Bytes as they are."""

    def encode(self, value: bytes) -> bytes:
        return value

    def decode(self, data: bytes) -> bytes:
        return data


@pytest.fixture
def clock() -> Clock:
    return Clock(1.7e9)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def keys(store: MemoryStore, clock: Clock) -> MessageKeys:
    return await MessageKeys.open(store, Sealer([SEALING_KEY]), clock=clock)


async def live(keys: MessageKeys, channel: Channel = NEWS) -> list[str]:
    return [each.epoch for each in await keys.consuming_keys(channel)]


async def test_what_is_sealed_with_the_public_key_opens_with_the_private_ones(keys: MessageKeys) -> None:
    binding = Binding(NEWS, "m-1", "text/plain")
    envelope = seal(b"hello", await keys.publishing_key(NEWS), binding)
    held = {each.epoch: each for each in await keys.consuming_keys(NEWS)}
    assert open_sealed(envelope, held, binding) == b"hello"
    assert await live(keys, TASKS) == []


async def test_replicas_that_begin_or_rotate_at_once_agree(store: MemoryStore, clock: Clock) -> None:
    replicas = [await MessageKeys.open(store, Sealer([SEALING_KEY]), clock=clock) for _ in range(10)]
    for _ in range(3):
        given = await asyncio.gather(*(each.publishing_key(NEWS) for each in replicas))
        assert len({each.epoch for each in given}) == 1
        clock.now += ROTATION_AGE
    assert len(await live(replicas[0])) == 2


async def test_no_requested_rotation_is_lost_among_replicas(store: MemoryStore, clock: Clock) -> None:
    replicas = [await MessageKeys.open(store, Sealer([SEALING_KEY]), clock=clock) for _ in range(5)]
    made = await asyncio.gather(*(each.rotate(NEWS) for each in replicas))
    assert {each.epoch for each in made} == set(await live(replicas[0]))


async def test_whatever_is_published_by_the_rules_opens_until_its_life_is_over(
    store: MemoryStore, clock: Clock
) -> None:
    """At random moments somebody asks, publishes, rotates or tends; the settings change at restarts."""
    chance = random.Random(11)
    sealed: list[tuple[float, str]] = []
    held = []
    epochs: set[str] = set()
    for _ in range(400):
        keys = await MessageKeys.open(
            store, Sealer([SEALING_KEY]), rotation_age=chance.choice([5, 30, 90]) * DAY, clock=clock
        )
        clock.now += chance.uniform(0, 4 * DAY)
        if chance.random() < 0.5:
            held.append(await keys.publishing_key(NEWS))
        if chance.random() < 0.2:
            await keys.rotate(NEWS)
        await keys.tend([NEWS])
        # Publishers use what they hold, however old, for as long as it says that they may.
        sealed += [(clock.now, each.epoch) for each in held if clock.now < each.publish_until]
        epochs = set(await live(keys))
        assert {epoch for when, epoch in sealed if clock.now <= when + MESSAGE_LIFETIME} <= epochs
    assert len({epoch for _, epoch in sealed}) > 50
    assert len(epochs) < 50


async def test_a_key_is_given_up_when_no_message_of_it_can_be_under_way(
    keys: MessageKeys, clock: Clock, store: MemoryStore
) -> None:
    first = (await keys.publishing_key(NEWS)).epoch
    begun = clock.now
    clock.now += ROTATION_AGE
    await keys.tend([NEWS])
    assert len(await live(keys)) == 2
    clock.now = begun + ROTATION_AGE + PUBLISH_GRACE + MESSAGE_LIFETIME + CLOCK_MARGIN
    assert first not in await live(keys)
    bucket = await store.bucket(BUCKET, Raw())
    before = await bucket.get("topic.news")
    await keys.tend([])
    after = await bucket.get("topic.news")
    assert before is not None
    assert after is not None
    assert len(after.value) < len(before.value)
    clock.now += 10 * MESSAGE_LIFETIME
    await keys.tend([])
    assert await bucket.entries() == []


async def test_a_topic_that_is_no_longer_encrypted_gets_no_new_keys(keys: MessageKeys, clock: Clock) -> None:
    await keys.publishing_key(NEWS)
    clock.now += ROTATION_AGE
    await keys.tend([TASKS])
    assert len(await live(keys)) == 1


async def test_rotation_on_request_has_an_end(keys: MessageKeys, clock: Clock) -> None:
    for _ in range(MAX_REQUESTED_EPOCHS):
        await keys.rotate(NEWS)
    with pytest.raises(InvalidRequest, match="wait"):
        await keys.rotate(NEWS)
    clock.now += ROTATION_AGE
    await keys.publishing_key(NEWS)
    assert len(await live(keys)) == MAX_REQUESTED_EPOCHS + 1


@pytest.mark.parametrize(("rotation_age", "message_lifetime"), [(0.0, DAY), (DAY, 365 * DAY), (1.0, 0.0)])
async def test_rotation_so_often_that_consumers_would_drown_in_keys_is_refused(
    store: MemoryStore, rotation_age: float, message_lifetime: float
) -> None:
    with pytest.raises(InvalidRequest, match="less often"):
        await MessageKeys.open(
            store, Sealer([SEALING_KEY]), rotation_age=rotation_age, message_lifetime=message_lifetime
        )


async def test_the_store_can_neither_read_nor_swap_nor_change_keys(
    keys: MessageKeys, store: MemoryStore, clock: Clock
) -> None:
    await keys.publishing_key(NEWS)
    await keys.publishing_key(TASKS)
    [private] = [each.key.private_bytes_raw() for each in await keys.consuming_keys(NEWS)]
    bucket = await store.bucket(BUCKET, Raw())
    entry = await bucket.get("topic.news")
    assert entry is not None
    assert private not in entry.value
    foreign = await MessageKeys.open(MemoryStore(), Sealer([bytes(32)]), clock=clock)
    assert await foreign.consuming_keys(NEWS) == ()
    await bucket.put("queue.tasks", entry.value)
    for use in (keys.publishing_key, keys.consuming_keys, keys.rotate):
        with pytest.raises(SealBroken):
            await use(TASKS)


async def test_keys_are_sealed_anew_when_the_sealing_key_changes(
    keys: MessageKeys, store: MemoryStore, clock: Clock
) -> None:
    made = (await keys.publishing_key(NEWS)).epoch
    changing = await MessageKeys.open(store, Sealer([bytes(32), SEALING_KEY]), clock=clock)
    await changing.tend([])
    after = await MessageKeys.open(store, Sealer([bytes(32)]), clock=clock)
    assert await live(after) == [made]


async def test_a_key_that_cannot_be_tended_does_not_hold_up_the_others(
    keys: MessageKeys, store: MemoryStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    await keys.publishing_key(TASKS)
    await keys.publishing_key(NEWS)
    bucket = await store.bucket(BUCKET, Raw())
    await bucket.put("queue.tasks", b"garbage")
    await bucket.put("elsewhere", b"garbage")
    clock.now += ROTATION_AGE
    with caplog.at_level(logging.WARNING):
        await keys.tend([NEWS, TASKS])
    assert len(await live(keys)) == 2
    assert "queue.tasks" in caplog.text
    assert "elsewhere" in caplog.text
