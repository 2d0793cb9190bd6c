"""What publishers and consumers keep of the keys, and when they ask for others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from tests.fake_time import run_in_fake_time

from weft.errors import Denied, InvalidRequest, MeshError, TimedOut, Unavailable
from weft.messaging.channel import Channel, ChannelKind
from weft.messaging.keyring import FETCH_TIMEOUT, FRESHNESS, PAUSE, ConsumerKeyring, PublisherKeyring
from weft.messaging.keys import ConsumingKey, PublishingKey
from weft.messaging.sealing import Binding, sealed_epoch

TASKS = Channel(ChannelKind.QUEUE, "tasks")
BINDING = Binding(TASKS, "m-1", "text/plain")


class Control:
    """The control plane as the keyrings see it, in fake time: what it answers, and how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.failure: MeshError | None = None
        self.silent = False
        self.epochs: list[ConsumingKey] = []
        self.rotate()

    def rotate(self, *, life: float = 10_000.0) -> None:
        self.epochs.append(ConsumingKey(X25519PrivateKey.generate(), now() + life))

    async def publishing_key(self) -> PublishingKey:
        await self._answer()
        return PublishingKey(self.epochs[-1].key.public_key(), self.epochs[-1].keep_until - 100)

    async def consuming_keys(self) -> Sequence[ConsumingKey]:
        await self._answer()
        return tuple(self.epochs)

    async def _answer(self) -> None:
        self.asked += 1
        await asyncio.sleep(1000 if self.silent else 0.01)
        if self.failure is not None:
            raise self.failure


def now() -> float:
    return asyncio.get_running_loop().time()


def publisher(control: Control) -> PublisherKeyring:
    return PublisherKeyring(TASKS, control.publishing_key, clock=now)


def consumer(control: Control) -> ConsumerKeyring:
    return ConsumerKeyring(TASKS, control.consuming_keys, clock=now)


async def epoch_used(keyring: PublisherKeyring) -> str:
    return sealed_epoch(await keyring.seal(b"work", BINDING), BINDING)


def test_many_who_publish_and_consume_at_once_cause_one_question_each() -> None:
    async def scenario() -> None:
        control = Control()
        sender, receiver = publisher(control), consumer(control)
        envelopes = await asyncio.gather(*(sender.seal(b"work", BINDING) for _ in range(50)))
        assert control.asked == 1
        assert set(await asyncio.gather(*(receiver.open(each, BINDING) for each in envelopes))) == {b"work"}
        assert control.asked == 2

    run_in_fake_time(scenario())


def test_a_publisher_takes_up_a_new_epoch_within_a_minute_and_a_consumer_with_its_first_message() -> None:
    async def scenario() -> None:
        control = Control()
        sender, receiver = publisher(control), consumer(control)
        early = await sender.seal(b"early", BINDING)
        assert await receiver.open(early, BINDING) == b"early"
        control.rotate()
        assert await epoch_used(sender) == control.epochs[0].epoch
        await asyncio.sleep(FRESHNESS)
        late = await sender.seal(b"late", BINDING)
        assert sealed_epoch(late, BINDING) == control.epochs[1].epoch
        assert await receiver.open(late, BINDING) == b"late"
        assert await receiver.open(early, BINDING) == b"early"
        assert control.asked == 4

    run_in_fake_time(scenario())


@pytest.mark.parametrize("how", ["unreachable", "slow", "silent"])
def test_a_publisher_goes_on_without_the_control_plane_for_as_long_as_its_key_may_be_used(how: str) -> None:
    async def scenario() -> None:
        control = Control()
        sender = publisher(control)
        first = await epoch_used(sender)
        control.silent = how == "silent"
        control.failure = TimedOut("slow") if how == "slow" else Unavailable("gone")
        for _ in range(3):
            await asyncio.sleep(FRESHNESS)
            assert await epoch_used(sender) == first
        await asyncio.sleep(10_000)
        # Nor does anybody wait in line for one failure after another.
        begun = now()
        failures = await asyncio.gather(*(epoch_used(sender) for _ in range(20)), return_exceptions=True)
        assert all(isinstance(each, Unavailable) for each in failures)
        assert now() - begun <= FETCH_TIMEOUT
        control.silent, control.failure = False, None
        control.rotate()
        await asyncio.sleep(PAUSE)
        assert await epoch_used(sender) == control.epochs[-1].epoch

    run_in_fake_time(scenario())


def test_a_publisher_who_may_no_longer_publish_does_not_with_an_old_key_either() -> None:
    async def scenario() -> None:
        control = Control()
        sender = publisher(control)
        await epoch_used(sender)
        control.failure = Denied("no more")
        await asyncio.sleep(FRESHNESS)
        with pytest.raises(Denied):
            await epoch_used(sender)
        with pytest.raises(Unavailable):
            await epoch_used(sender)
        await asyncio.sleep(PAUSE)
        with pytest.raises(Denied):
            await epoch_used(sender)

    run_in_fake_time(scenario())


def test_a_publisher_asks_anew_when_its_key_runs_out_before_it_would_have_asked() -> None:
    async def scenario() -> None:
        control = Control()
        control.rotate(life=110)
        sender = publisher(control)
        await epoch_used(sender)
        control.rotate()
        await asyncio.sleep(10)
        assert await epoch_used(sender) == control.epochs[-1].epoch

    run_in_fake_time(scenario())


def test_messages_of_made_up_epochs_cause_a_question_a_second_at_most() -> None:
    async def scenario() -> None:
        control = Control()
        receiver = consumer(control)
        good = await publisher(control).seal(b"work", BINDING)
        assert await receiver.open(good, BINDING) == b"work"
        asked = control.asked
        for number in range(100):
            await asyncio.sleep(0.1)
            with pytest.raises(Unavailable, match=f"{number:016x}"):
                await receiver.open(b"weft\x01" + number.to_bytes(8, "big") + good[13:], BINDING)
            assert await receiver.open(good, BINDING) == b"work"
        assert control.asked - asked <= 10

    run_in_fake_time(scenario())


def test_garbage_causes_no_question_at_all() -> None:
    async def scenario() -> None:
        control = Control()
        with pytest.raises(InvalidRequest):
            await consumer(control).open(b"plain text", BINDING)
        assert control.asked == 0

    run_in_fake_time(scenario())


def test_a_consumer_forgets_a_key_when_its_time_is_over() -> None:
    async def scenario() -> None:
        control = Control()
        receiver = consumer(control)
        envelope = await publisher(control).seal(b"work", BINDING)
        assert await receiver.open(envelope, BINDING) == b"work"
        await asyncio.sleep(10_000)
        with pytest.raises(Unavailable, match=control.epochs[0].epoch):
            await receiver.open(envelope, BINDING)

    run_in_fake_time(scenario())
