"""Topics and their groups: what every broker promises of them."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections import defaultdict
from collections.abc import Sequence

import pytest
from tests.conformance.broker_scene import (
    LIMIT,
    VISIBILITY,
    Scene,
    back_after_a_nack,
    bodies,
    eventually,
    message,
    pull,
    pull_one,
)

from weft.errors import Conflict, InvalidRequest, NotFound
from weft.messaging.broker import (
    ALL,
    MAX_SEQUENCE,
    MAX_TIME,
    Consumer,
    Delivery,
    GroupSettings,
    Start,
    TopicSettings,
)
from weft.messaging.message import Message

pytestmark = pytest.mark.asyncio(loop_scope="session")

QUIET = 0.5
"""Seconds of silence after which nothing more is taken to come, where a test asks that nothing does."""


async def test_an_event_comes_out_as_it_went_in(stage: Scene) -> None:
    topic = await stage.topic()
    member = await stage.listener(topic)
    before = time.time()
    sent = Message("an/id:with=signs", os.urandom(900 * 1024), {"ce-type": "a.b", "x-e": ""})
    sequence = await stage.broker.publish(topic, sent, subtopic="created.eu-1")
    delivery = await pull_one(member)
    assert delivery.message == sent
    assert (delivery.subtopic, delivery.lane, delivery.deliveries) == ("created.eu-1", 0, 1)
    assert delivery.sequence >= (1 if stage.exact else 0)
    assert sequence in {0, delivery.sequence}
    assert before - 2 <= delivery.sent_at <= time.time() + 2
    await delivery.ack()


async def test_each_group_gets_every_message_and_one_member_of_it_each(stage: Scene) -> None:
    topic = await stage.topic()
    alone = await stage.listener(topic, "alone")
    first = await stage.listener(topic, "shared")
    second = await stage.member(topic, "shared", await stage.client())
    texts = [str(number) for number in range(12)]
    await stage.publish(topic, *texts)
    assert sorted(bodies(await pull(alone, 12))) == sorted(texts)
    both = [*await pull(first, 5), *await pull(second, 7)]
    assert sorted(bodies(both)) == sorted(texts)


async def test_a_group_that_does_not_acknowledge_holds_up_no_other(stage: Scene) -> None:
    topic = await stage.topic()
    slow, quick = await stage.listener(topic, "slow"), await stage.listener(topic, "quick")
    await stage.publish(topic, "a")
    await pull_one(slow)
    await stage.publish(topic, "b", "c")
    for text in "abc":
        delivery = await pull_one(quick)
        assert bodies([delivery]) == [text]
        await delivery.ack()


PATTERNS = {
    "": ["", "created", "created.eu", "created.us", "deleted.eu", "created.eu.x"],
    ".": [""],
    "created": ["created"],
    "created.*": ["created.eu", "created.us"],
    "*.eu": ["created.eu", "deleted.eu"],
    "created.>": ["created.eu", "created.us", "created.eu.x"],
    "*": ["created"],
    ">": ["created", "created.eu", "created.us", "deleted.eu", "created.eu.x"],
}


async def test_patterns_choose_what_a_group_gets(stage: Scene) -> None:
    topic = await stage.topic()
    members = {
        pattern: await stage.listener(topic, f"g{number}", pattern=pattern)
        for number, pattern in enumerate(PATTERNS)
    }
    for subtopic in PATTERNS[""]:
        await stage.publish(topic, subtopic, subtopic=subtopic)
    await stage.publish(topic, "end", subtopic="")

    async def chosen(pattern: str, member: Consumer) -> None:
        got = [each.subtopic for each in await _until_quiet(member, len(PATTERNS[pattern]))]
        expected = [*PATTERNS[pattern], *([""] if pattern in {"", "."} else [])]
        assert sorted(got) == sorted(expected), pattern

    async with asyncio.TaskGroup() as tasks:
        for pattern, member in members.items():
            tasks.create_task(chosen(pattern, member))


async def test_a_group_may_be_given_another_pattern(stage: Scene) -> None:
    topic = await stage.topic()
    group = await stage.group(topic, pattern="a")
    await stage.broker.declare_group(GroupSettings(topic, group, "b"))
    await stage.publish(topic, "a", subtopic="a")
    await stage.publish(topic, "b", subtopic="b")
    member = await stage.member(topic, group)
    assert bodies(await _until_quiet(member, 1)) == ["b"]


async def test_a_new_group_begins_with_what_is_new_and_stays_where_it_is(stage: Scene) -> None:
    topic = await stage.topic()
    await stage.publish(topic, "old")
    group = await stage.group(topic)
    await stage.publish(topic, "new")
    await stage.broker.declare_group(GroupSettings(topic, group, start=ALL))
    member = await stage.member(topic, group)
    delivery = await pull_one(member)
    assert bodies([delivery]) == ["new"]
    await delivery.ack()
    assert list(await member.pull(5, wait=QUIET)) == []


async def test_a_group_may_begin_at_a_sequence_or_at_a_time(stage: Scene) -> None:
    topic = await stage.topic()
    await stage.publish(topic, *"abc")
    await asyncio.sleep(1.1)  # brokers may tell times by the second
    middle = time.time()
    await asyncio.sleep(1.1)
    await stage.publish(topic, *"de")
    await stage.group(topic, "all", start=ALL)
    everything = await pull(await stage.member(topic, "all"), 5)
    assert bodies(everything) == list("abcde")
    await stage.group(topic, "from", start=Start(sequence=everything[2].sequence))
    assert bodies(await pull(await stage.member(topic, "from"), 3)) == list("cde")
    await stage.group(topic, "since", start=Start(time=middle))
    assert bodies(await pull(await stage.member(topic, "since"), 2)) == list("de")


async def test_every_place_that_can_be_named_can_be_begun_at(stage: Scene) -> None:
    topic = await stage.topic()
    for name, start in (
        ("late", Start(sequence=MAX_SEQUENCE)),
        ("later", Start(time=MAX_TIME)),
        ("first", Start(time=0.0)),
    ):
        await stage.group(topic, name, start=start)
    await stage.publish(topic, "a")
    assert bodies(await pull(await stage.member(topic, "first"), 1)) == ["a"]
    for sequence in (0, -1, MAX_SEQUENCE + 1):
        with pytest.raises(InvalidRequest, match="sequence"):
            Start(sequence=sequence)
    for moment in (-1.0, 1e12, float("nan"), float("inf")):
        with pytest.raises(InvalidRequest, match="seconds after 1970"):
            Start(time=moment)


async def test_what_a_member_does_not_finish_comes_again(stage: Scene) -> None:
    topic = await stage.topic()
    await stage.group(topic, visibility_timeout=VISIBILITY)
    await stage.publish(topic, "a")
    passer_by = await stage.running.connect()
    [first] = await pull(await passer_by.group_consumer(topic, "g"), 1)
    assert first.deliveries == 1
    await passer_by.aclose()
    member = await stage.member(topic, "g")
    second = await pull_one(member)
    assert (second.message, second.deliveries) == (first.message, 2)
    third = await pull_one(member)
    assert (third.message, third.deliveries) == (first.message, 3)
    await third.ack()
    assert list(await member.pull(1, wait=1.5 * VISIBILITY)) == []


async def test_a_nack_of_an_event_brings_it_again_and_holds_up_nobody(stage: Scene) -> None:
    topic = await stage.topic()
    member = await stage.listener(topic)
    await stage.publish(topic, "later", "next")
    await (await back_after_a_nack(member)).ack()


async def test_events_have_no_dead_letters(stage: Scene) -> None:
    topic = await stage.topic()
    member = await stage.listener(topic)
    await stage.publish(topic, "a")
    delivery = await pull_one(member)
    with pytest.raises(InvalidRequest):
        await delivery.dead_letter("no")
    await delivery.ack()


async def test_a_partition_goes_on_when_its_message_is_done_with(stage: Scene) -> None:
    topic = await stage.topic(partitions=2)
    member = await stage.listener(topic)
    await stage.publish(topic, "a1", "a2", partition=0)
    await stage.publish(topic, "b1", "b2", partition=1)
    first = await pull(member, 2)
    assert sorted(bodies(first)) == ["a1", "b1"]
    assert {each.lane for each in first} == {0, 1}
    assert list(await member.pull(5, wait=QUIET)) == []
    [b1] = [each for each in first if each.lane == 1]
    await b1.ack()
    [b2] = await pull(member, 1)
    assert (bodies([b2]), b2.lane) == (["b2"], 1)
    await b2.ack()
    assert list(await member.pull(5, wait=QUIET)) == []


async def test_a_partition_goes_on_at_whichever_moment_of_a_pull_its_message_is_done_with(
    stage: Scene,
) -> None:
    topic = await stage.topic(partitions=2)
    member = await stage.listener(topic)
    texts = [str(number) for number in range(40)]
    await stage.publish(topic, *texts, partition=0)
    got = [await pull_one(member)]
    async with asyncio.timeout(LIMIT):
        for turns in range(len(texts) - 1):
            pulling = asyncio.create_task(member.pull(1, wait=2 * LIMIT))
            for _ in range(turns):
                await asyncio.sleep(0)
            await got[-1].ack()
            got += await pulling
    assert bodies(got) == texts
    await got[-1].ack()


async def test_a_nack_holds_up_its_own_partition_only(stage: Scene) -> None:
    topic = await stage.topic(partitions=2)
    member = await stage.listener(topic)
    await stage.publish(topic, "a1", "a2", partition=0)
    [a1] = await pull(member, 1)
    await a1.nack(4.0)  # longer than a busy machine takes for all that is to pass it
    await stage.publish(topic, "b1", "b2", partition=1)
    order: list[str] = []
    for _ in range(4):
        delivery = await pull_one(member)
        order += bodies([delivery])
        assert delivery.deliveries == (2 if order[-1] == "a1" else 1)
        await delivery.ack()
    assert order == ["b1", "b2", "a1", "a2"]


async def test_a_partition_waits_for_a_member_that_is_gone(stage: Scene) -> None:
    topic = await stage.topic(partitions=1)
    await stage.group(topic, visibility_timeout=VISIBILITY)
    await stage.publish(topic, "1", "2")
    passer_by = await stage.running.connect()
    await pull(await passer_by.group_consumer(topic, "g"), 1)
    await passer_by.aclose()
    member = await stage.member(topic, "g")
    for text, deliveries in (("1", 2), ("2", 1)):
        delivery = await pull_one(member)
        assert (bodies([delivery]), delivery.deliveries) == ([text], deliveries)
        await delivery.ack()


async def test_members_never_hold_two_messages_of_one_partition(stage: Scene) -> None:
    topic = await stage.topic(partitions=4)
    group = await stage.group(topic)
    held: set[int] = set()
    order: dict[int, list[int]] = defaultdict(list)
    done: list[int] = []

    async def work(member: Consumer) -> None:
        while len(done) < 60:
            deliveries = await member.pull(3, wait=0.2)
            for each in deliveries:
                assert each.lane not in held
                held.add(each.lane)
                order[each.lane].append(int(each.message.body))
            await asyncio.sleep(0.002)
            for each in deliveries:
                held.remove(each.lane)
                await each.ack()
                done.append(each.lane)

    members = [
        await stage.member(topic, group),
        await stage.member(topic, group, await stage.client()),
        await stage.member(topic, group),
    ]
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as tasks:
        for member in members:
            tasks.create_task(work(member))
        for number in range(60):
            await stage.publish(topic, str(number), partition=number % 4)
    for lane in range(4):
        assert order[lane] == list(range(lane, 60, 4))


async def test_replay_of_partitions_keeps_their_order(stage: Scene) -> None:
    topic = await stage.topic(partitions=3)
    for number in range(12):
        await stage.publish(topic, str(number), partition=number % 3, subtopic=f"s{number % 2}")
    await stage.group(topic, "replay", start=ALL)
    member = await stage.member(topic, "replay")
    order: dict[int, list[int]] = defaultdict(list)
    for _ in range(12):
        delivery = await pull_one(member)
        number = int(delivery.message.body)
        assert delivery.subtopic == f"s{number % 2}"
        order[delivery.lane].append(number)
        await delivery.ack()
    assert order == {lane: list(range(lane, 12, 3)) for lane in range(3)}


async def test_the_oldest_make_room_for_new_ones(stage: Scene) -> None:
    topic = await stage.topic()
    await stage.broker.declare_topic(TopicSettings(topic, max_bytes=4 * 1024**2))
    for _ in range(16):
        await stage.broker.publish(topic, message(os.urandom(512 * 1024)))
    await stage.publish(topic, "last")
    await stage.group(topic, start=ALL)
    left = await _until_quiet(await stage.member(topic, "g"), 1)
    assert left[-1].message.body == b"last"
    assert 1 <= len(left) <= 12


async def test_stats_tell_how_a_topic_and_its_groups_stand(stage: Scene) -> None:
    topic = await stage.topic()
    empty = await stage.broker.topic_stats(topic)
    assert (empty.messages, empty.last_sequence, empty.groups) == (0, 0, ())
    member = await stage.listener(topic, "behind")
    await stage.group(topic, "other", pattern="x")
    await stage.publish(topic, *"abc")
    await pull_one(member)

    async def stands() -> bool:
        stats = await stage.broker.topic_stats(topic)
        groups = {each.name: (each.topic, each.pending, each.in_flight) for each in stats.groups}
        return (
            stats.messages == 3
            and stats.size > 0
            and stats.last_sequence >= stats.first_sequence
            and groups == {"behind": (topic, 2, 1), "other": (topic, 0, 0)}
        )

    await eventually(stands)


async def test_a_group_of_which_nobody_pulls_expires(stage: Scene) -> None:
    topic = await stage.topic()
    await stage.group(topic, "short", expires=2.0)
    await stage.group(topic, "lasting")
    alive = await stage.member(topic, "short")
    await stage.publish(topic, "a")
    delivery = await pull_one(alive)
    await delivery.ack()
    await alive.aclose()

    async def gone() -> bool:
        return [each.name for each in (await stage.broker.topic_stats(topic)).groups] == ["lasting"]

    await eventually(gone)
    with pytest.raises(NotFound):
        await (await stage.member(topic, "short")).pull(1, wait=0.5)


async def test_a_group_of_which_somebody_pulls_does_not_expire(stage: Scene) -> None:
    topic = await stage.topic()
    await stage.group(topic, expires=4.0)
    member = await stage.member(topic, "g")
    until = time.monotonic() + 5
    while time.monotonic() < until:
        assert list(await member.pull(1, wait=0.5)) == []
    await stage.publish(topic, "a")
    assert bodies([await pull_one(member)]) == ["a"]


async def test_a_removed_group_is_gone_and_begins_anew(stage: Scene) -> None:
    topic = await stage.topic()
    await stage.group(topic)
    await stage.publish(topic, "old")
    await stage.broker.remove_group(topic, "g")
    await stage.broker.remove_group(topic, "g")
    with pytest.raises(NotFound):
        await (await stage.member(topic, "g")).pull(1, wait=0.5)
    member = await stage.listener(topic)
    await stage.publish(topic, "new")
    assert bodies([await pull_one(member)]) == ["new"]


async def test_a_removed_topic_is_gone_with_its_groups(stage: Scene) -> None:
    topic = await stage.topic()
    await stage.group(topic)
    await stage.publish(topic, "lost")
    await stage.broker.remove_topic(topic)
    await stage.broker.remove_topic(topic)
    with pytest.raises(NotFound):
        await stage.broker.publish(topic, message())
    await stage.broker.declare_topic(TopicSettings(topic))
    await stage.group(topic, "all", start=ALL)
    assert list(await (await stage.member(topic, "all")).pull(1, wait=QUIET)) == []


async def test_partitions_cannot_be_changed(stage: Scene) -> None:
    topic = await stage.topic(partitions=2)
    await stage.broker.declare_topic(TopicSettings(topic, partitions=2, max_age=3600.0))
    for other in (0, 3):
        with pytest.raises(Conflict):
            await stage.broker.declare_topic(TopicSettings(topic, partitions=other))


async def test_subtopics_that_are_none_are_refused(stage: Scene) -> None:
    topic = await stage.topic()
    for subtopic in ("a..b", ".a", "a.", "a b", "a.*", ">", "ä", "x" * 300):
        with pytest.raises(InvalidRequest):
            await stage.broker.publish(topic, message(), subtopic=subtopic)


async def test_groups_that_are_none_are_refused(stage: Scene) -> None:
    topic = await stage.topic()
    for name, pattern in (("a b", ""), ("", ""), ("a.b", ""), ("ok", "a..b"), ("ok", ">.a")):
        with pytest.raises(InvalidRequest):
            await stage.group(topic, name, pattern=pattern)


async def test_topics_and_groups_that_were_not_declared_are_not_found(stage: Scene) -> None:
    missing = f"missing-{secrets.token_hex(4)}"
    broker = stage.broker
    with pytest.raises(NotFound):
        await broker.publish(missing, message())
    with pytest.raises(NotFound):
        await broker.publish(missing, message(), subtopic="a.b")
    with pytest.raises(NotFound):
        await broker.declare_group(GroupSettings(missing, "g"))
    with pytest.raises(NotFound):
        await (await stage.member(missing, "g")).pull(1, wait=0.5)
    with pytest.raises(NotFound):
        await broker.topic_stats(missing)
    topic = await stage.topic()
    with pytest.raises(NotFound):
        await (await stage.member(topic, "g")).pull(1, wait=0.5)
    await broker.remove_group(missing, "g")


async def _until_quiet(member: Consumer, least: int) -> Sequence[Delivery]:
    """All that comes until nothing does for a while: at least so many."""
    got = await pull(member, least)
    while more := await member.pull(100, wait=QUIET):
        got += more
    return got
