"""What is kept of conversations: one suite for memory and NATS."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
from tests.clock import Clock
from tests.conformance.context_scene import ContextScene, InMemory, InNats, identity, nats_with_contexts
from tests.hosting import hosted
from tests.secured_nats import Secured

from weft.aio.poll import until
from weft.contexts.contexts import Contexts
from weft.contexts.conversation import ConversationStore
from weft.contexts.limits import ContextLimits
from weft.contexts.place import marked_deleted
from weft.contexts.records import CHUNK_BYTES
from weft.errors import Conflict, InvalidRequest, NotFound, Unavailable
from weft.model.context_keys import ContextKeys, new_context_id

pytestmark = pytest.mark.asyncio(loop_scope="session")

LIMIT = 60.0
MIB = 1024 * 1024
DEEP: Any = json.loads("[" * 900 + "]" * 900)


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=["memory", "nats"])
async def secured(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Secured | None]:
    """The server that all tests share, where there is one."""
    if request.param == "memory":
        yield None
        return
    async with hosted(nats_with_contexts(tmp_path_factory.mktemp("contexts"))) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def scene(secured: Secured | None) -> AsyncIterator[ContextScene]:
    async with AsyncExitStack() as ends:
        if secured is not None:
            yield InNats(secured, ends)
        else:
            memory = InMemory()
            ends.push_async_callback(memory.store.close)
            yield memory


@pytest_asyncio.fixture(loop_scope="session")
async def ann(scene: ContextScene) -> Contexts:
    return await scene.member("ann")


def begun(contexts: Contexts, context_id: str | None = None, **limits: Any) -> ConversationStore:
    """A context that may begin."""
    return contexts.conversation(
        context_id or new_context_id(), may_begin=True, limits=ContextLimits(**limits)
    )


async def test_a_context_begins_with_what_is_first_written_to_it(ann: Contexts) -> None:
    conversation = begun(ann)
    assert await conversation.messages() == []
    assert await conversation.count() == 0
    assert await conversation.artifacts() == []
    assert (await conversation.state()).revision == 0
    with pytest.raises(NotFound):
        await conversation.about()
    before = time.time()
    await conversation.append("user", "hello")
    facts = await conversation.about()
    assert before <= facts.created_at <= time.time()
    assert facts.expires_at == facts.created_at + 7 * 86400
    assert facts.limits == ContextLimits()


async def test_messages_come_as_they_were_appended_with_their_authors(
    scene: ContextScene, ann: Contexts
) -> None:
    ben = await scene.member("ben")
    mine = begun(ann)
    theirs = ben.conversation(mine.id)
    content = {"text": "Grüße \u0000 😀", "parts": [1, 2.5, None, True]}
    before = time.time()
    appended = await mine.append("user", content, model="m-1", tokens=7)
    await theirs.append("assistant", "hi")
    first, second = await theirs.messages()
    assert first == appended
    assert (first.number, first.role, first.content, first.author) == (1, "user", content, identity("ann"))
    assert first.metadata == {"model": "m-1", "tokens": 7}
    assert before <= first.at <= time.time()
    assert (second.number, second.role, second.content) == (2, "assistant", "hi")
    assert second.author == identity("ben")
    assert await mine.messages() == [first, second]


async def test_of_twenty_who_append_at_once_none_gets_lost_and_there_is_no_gap(
    scene: ContextScene, ann: Contexts
) -> None:
    members = [ann, *[await scene.member(name) for name in ("ben", "cat", "dan")]]
    context_id = new_context_id()

    async def write(writer: int) -> list[int]:
        conversation = begun(members[writer % 4], context_id)
        return [(await conversation.append("user", [writer, turn])).number for turn in range(5)]

    async with asyncio.timeout(LIMIT):
        numbers = await asyncio.gather(*map(write, range(20)))
    assert sorted(number for each in numbers for number in each) == list(range(1, 101))
    messages = await begun(ann, context_id).messages()
    assert [each.number for each in messages] == list(range(1, 101))
    for writer in range(20):
        assert [each.number for each in messages if each.content[0] == writer] == numbers[writer]
        assert [each.content[1] for each in messages if each.content[0] == writer] == list(range(5))


async def test_messages_are_read_in_pages_from_the_front_or_from_the_end(ann: Contexts) -> None:
    conversation = begun(ann)
    for number in range(1, 151):
        await conversation.append("user", number)
    other = ann.conversation(conversation.id)

    async def numbers(after: int = 0, limit: int = 1000) -> list[int]:
        found = await other.messages(after, limit)
        assert [each.content for each in found] == [each.number for each in found]
        return [each.number for each in found]

    assert await numbers() == list(range(1, 151))
    assert await numbers(0, 3) == [1, 2, 3]
    assert await numbers(3, 70) == list(range(4, 74))
    assert await numbers(148) == [149, 150]
    assert await numbers(150) == []
    assert await numbers(10_000) == []
    assert await numbers(-2) == [149, 150]
    assert await numbers(-1000) == list(range(1, 151))
    assert await numbers(-10, 4) == [141, 142, 143, 144]
    assert await ann.conversation(conversation.id).count() == 150
    for limit in (0, -1, 1001):
        with pytest.raises(InvalidRequest):
            await other.messages(limit=limit)


async def test_who_opens_a_context_anew_goes_on_where_it_ended(ann: Contexts) -> None:
    first = begun(ann)
    for number in range(1, 40):
        appended = await ann.conversation(first.id).append("user", "x") if number > 1 else None
        appended = appended or await first.append("user", "x")
        assert appended.number == number


async def test_the_state_is_changed_only_by_who_knows_what_it_is(scene: ContextScene, ann: Contexts) -> None:
    mine = begun(ann)
    first = await mine.compare_and_set({"step": 1}, 0)
    theirs = (await scene.member("ben")).conversation(mine.id)
    assert await theirs.state() == first
    second = await theirs.compare_and_set({"step": 2}, first.revision)
    for stale in (0, first.revision, second.revision + 1000, -1):
        with pytest.raises(Conflict):
            await mine.compare_and_set({"step": 3}, stale)
    assert await mine.state() == second
    assert second.value == {"step": 2}


async def test_of_twenty_who_update_the_state_at_once_none_is_left_out(
    scene: ContextScene, ann: Contexts
) -> None:
    members = [ann, await scene.member("ben")]
    context_id = new_context_id()

    def counted(value: Any) -> Any:
        return (value or 0) + 1

    async def slowly(value: Any) -> Any:
        await asyncio.sleep(0)
        return counted(value)

    async with asyncio.timeout(LIMIT):
        await asyncio.gather(
            *(begun(members[n % 2], context_id).update(counted if n % 3 else slowly) for n in range(20))
        )
    assert (await begun(ann, context_id).state()).value == 20


async def test_what_fails_to_make_a_state_changes_none(ann: Contexts) -> None:
    conversation = begun(ann)
    state = await conversation.update(lambda _: "kept")
    with pytest.raises(ZeroDivisionError):
        await conversation.update(lambda _: 1 / 0)
    assert await conversation.state() == state


async def test_limits_are_those_of_who_began(scene: ContextScene, ann: Contexts) -> None:
    mine = begun(
        ann,
        messages=3,
        message_bytes=1000,
        state_bytes=100,
        artifacts=2,
        artifact_bytes=1000,
        total_artifact_bytes=1500,
    )
    await mine.append("user", "1")
    theirs = begun(await scene.member("ben"), mine.id)
    with pytest.raises(InvalidRequest, match="1000"):
        await theirs.append("user", "x" * 1000)
    await theirs.append("user", "2")
    await mine.append("user", "3")
    for each in (mine, theirs):
        with pytest.raises(InvalidRequest, match="3 messages"):
            await each.append("user", "4")
    assert await mine.count() == 3
    await theirs.compare_and_set("x" * 98, 0)
    with pytest.raises(InvalidRequest, match="100"):
        await theirs.update(lambda _: "x" * 99)
    with pytest.raises(InvalidRequest, match="1001 bytes"):
        await theirs.put_artifact("a", b"x" * 1001)
    await theirs.put_artifact("a", b"x" * 1000)
    with pytest.raises(InvalidRequest, match="1500 bytes together"):
        await theirs.put_artifact("b", b"x" * 501)
    await theirs.put_artifact("b", b"x" * 500)
    await theirs.put_artifact("a", b"")
    with pytest.raises(InvalidRequest, match="2 artifacts"):
        await theirs.put_artifact("c", b"")
    assert [(each.name, each.size) for each in await mine.artifacts()] == [("a", 0), ("b", 500)]


async def test_nothing_larger_than_the_store_takes_is_begun_with_and_no_odd_limits_are_taken(
    ann: Contexts,
) -> None:
    conversation = begun(ann)
    with pytest.raises(InvalidRequest):
        await conversation.append("user", "x" * 900 * 1024)
    largest = "x" * (900 * 1024 - 1000)
    await conversation.append("user", largest)
    assert (await conversation.messages())[0].content == largest
    for limits in ({"messages": 10_001}, {"messages": 0}, {"lifetime": float("nan")}, {"lifetime": 1e9}):
        with pytest.raises(InvalidRequest):
            ContextLimits(**limits)


@pytest.mark.parametrize("content", [object(), DEEP, b"\xff\xfe"])
async def test_what_is_no_json_is_refused(ann: Contexts, content: Any) -> None:
    with pytest.raises(InvalidRequest, match="JSON"):
        await begun(ann).append("user", content)
    with pytest.raises(InvalidRequest, match="JSON"):
        await begun(ann).compare_and_set(content, 0)


@pytest.mark.parametrize("role", ["", "x" * 65, "a\nb"])
async def test_a_role_that_is_none_is_refused(ann: Contexts, role: str) -> None:
    with pytest.raises(InvalidRequest, match="role"):
        await begun(ann).append(role, "x")


async def test_when_its_lifetime_is_over_a_context_is_gone_and_its_id_begins_with_nothing(
    scene: ContextScene,
) -> None:
    clock = Clock(time.time())
    contexts = await scene.member("ann", clock=clock)
    conversation = begun(contexts, lifetime=600.0)
    await conversation.append("user", "old")
    await conversation.put_artifact("file", b"old")
    await conversation.compare_and_set("old", 0)
    clock.now += 599
    again = contexts.conversation(conversation.id)
    assert len(await again.messages()) == 1
    clock.now += 2
    for use in _uses(again):
        with pytest.raises(NotFound):
            await use()
    assert await conversation.messages() == []
    appended = await conversation.append("user", "new")
    assert appended.number == 1
    assert [each.content for each in await again.messages()] == ["new"]
    assert await again.artifacts() == []
    assert (await again.state()).value is None


async def test_the_store_forgets_a_context_by_itself(scene: ContextScene, ann: Contexts) -> None:
    conversation = begun(ann, lifetime=2.0)
    await conversation.append("user", "x")
    await conversation.put_artifact("file", b"x")
    await conversation.compare_and_set("x", 0)
    bucket = await scene.bucket()
    keys = [each.key for each in await bucket.entries(f"default.{conversation.id}")]
    assert len(keys) == 5

    async def gone() -> bool:
        return not await bucket.entries(f"default.{conversation.id}")

    async with asyncio.timeout(LIMIT):
        await until(gone)


async def test_the_id_of_another_tenants_context_is_the_id_of_none(scene: ContextScene) -> None:
    acme, umbrella = await scene.member("ann", "acme"), await scene.member("ben", "umbrella")
    theirs = begun(acme)
    await theirs.append("user", "secret")
    await theirs.put_artifact("plan", b"secret")
    await theirs.compare_and_set("secret", 0)
    for use in _uses(umbrella.conversation(theirs.id)):
        with pytest.raises(NotFound) as found:
            await use()
        with pytest.raises(NotFound) as never:
            await umbrella.conversation("never-was").messages()
        assert found.value.detail.replace(theirs.id, "") == never.value.detail.replace("never-was", "")
    mine = begun(umbrella, theirs.id)
    assert await mine.messages() == []
    await mine.append("user", "mine")
    await mine.delete()
    assert [each.content for each in await theirs.messages()] == ["secret"]
    assert (await theirs.artifact("plan")).data == b"secret"


ODD = [
    *(
        "a.b",
        "*",
        ">",
        "a b",
        "..",
        "/",
        "a/../b",
        "x" * 129,
        "x" * 8192,
        "ä",
        "a\u0000b",
        "\ud800",
        "a\r\nb",
    ),
    *("h_" + "0" * 64, "$KV.contexts.acme.x", "%2e", "user@example.com"),
]


async def test_an_id_may_be_any_text_and_stands_for_itself_only(ann: Contexts) -> None:
    run = secrets.token_hex(4)
    ids = [*(each + run for each in ODD if len(each) < 8000), *ODD[8:9]]
    for each in ids:
        await begun(ann, each).append("user", "x")
    for each in ids:
        assert await ann.conversation(each).count() == 1
    for text in ("", "x" * 8193):
        with pytest.raises(InvalidRequest):
            ann.conversation(text)


@pytest.mark.parametrize("tenant", ["acme corp", "*", ">", "a.b", "ü"])
async def test_a_tenant_may_be_called_anything_too(scene: ContextScene, tenant: str) -> None:
    contexts = await scene.member("odd", tenant)
    conversation = begun(contexts)
    await conversation.append("user", "x")
    assert await conversation.count() == 1
    with pytest.raises(NotFound):
        await (await scene.member("ann")).conversation(conversation.id).messages()


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
async def test_an_artifact_comes_back_as_it_was(scene: ContextScene, ann: Contexts, size: int) -> None:
    data = secrets.token_bytes(size)
    mine = begun(ann)
    put = await mine.put_artifact("Plan für 2026.bin", data, "application/x-plan")
    artifact = await (await scene.member("ben")).conversation(mine.id).artifact("Plan für 2026.bin")
    assert artifact.data == data
    assert artifact.info == put
    assert (put.size, put.media_type) == (size, "application/x-plan")


async def test_the_largest_artifact_is_kept_and_a_larger_one_refused(ann: Contexts) -> None:
    data = secrets.token_bytes(MIB) * 64
    conversation = begun(ann)
    async with asyncio.timeout(LIMIT):
        await conversation.put_artifact("large", data)
        assert (await ann.conversation(conversation.id).artifact("large")).data == data
        with pytest.raises(InvalidRequest, match="limit"):
            await conversation.put_artifact("larger", data + b"x")
        await conversation.delete()


async def test_what_an_artifact_replaces_is_gone_with_all_its_pieces(
    scene: ContextScene, ann: Contexts
) -> None:
    conversation = begun(ann)
    await conversation.put_artifact("file", secrets.token_bytes(2 * CHUNK_BYTES))
    await conversation.put_artifact("file", b"new")
    assert (await conversation.artifact("file")).data == b"new"
    bucket = await scene.bucket()
    kept = [each.value for each in await bucket.entries(f"default.{conversation.id}") if ".a." in each.key]
    assert kept == [b"new"]
    await conversation.remove_artifact("file")
    for use in (conversation.artifact, conversation.remove_artifact):
        with pytest.raises(NotFound):
            await use("file")
    assert [each for each in await bucket.entries(f"default.{conversation.id}") if ".a." in each.key] == []


async def test_of_many_who_put_artifacts_at_once_each_finds_room_or_is_told(ann: Contexts) -> None:
    context_id = new_context_id()
    await begun(ann, context_id, artifacts=6).append("user", "x")

    async def put(number: int) -> bool:
        try:
            await begun(ann, context_id).put_artifact(f"a{number % 8}", b"%d" % number)
        except InvalidRequest:
            return False
        return True

    async with asyncio.timeout(LIMIT):
        outcomes = Counter(await asyncio.gather(*map(put, range(16))))
    listed = await ann.conversation(context_id).artifacts()
    assert len(listed) == 6
    assert outcomes[True] >= 6
    for each in listed:
        number = int((await ann.conversation(context_id).artifact(each.name)).data)
        assert each.name == f"a{number % 8}"


@pytest.mark.parametrize(
    ("name", "media_type"), [("", "a/b"), ("x" * 257, "a/b"), ("a\nb", "a/b"), ("a", "ä"), ("a", "x" * 128)]
)
async def test_a_name_or_type_that_is_none_is_refused(ann: Contexts, name: str, media_type: str) -> None:
    with pytest.raises(InvalidRequest, match="artifact"):
        await begun(ann).put_artifact(name, b"", media_type)


async def test_a_deleted_context_is_gone_and_its_id_begins_with_nothing(
    scene: ContextScene, ann: Contexts
) -> None:
    conversation = begun(ann)
    for _ in range(40):
        await conversation.append("user", "x")
    await conversation.put_artifact("file", b"x")
    await conversation.compare_and_set("x", 0)
    other = (await scene.member("ben")).conversation(conversation.id)
    await other.delete()
    bucket = await scene.bucket()
    assert await bucket.entries(f"default.{conversation.id}") == []
    for use in _uses(other):
        with pytest.raises(NotFound):
            await use()
    assert (await conversation.append("user", "anew")).number == 1
    assert len(await other.messages()) == 1
    assert (await other.state()).value is None


async def test_a_deletion_that_broke_off_leaves_nothing_to_be_seen_and_can_be_done_again(
    scene: ContextScene, ann: Contexts
) -> None:
    conversation = begun(ann)
    await conversation.append("user", "x")
    keys = ContextKeys("default", conversation.id)
    bucket = await scene.bucket()
    await marked_deleted(bucket, keys, time.time)
    other = ann.conversation(conversation.id)
    with pytest.raises(NotFound):
        await other.messages()
    assert len(await bucket.entries(f"default.{conversation.id}")) == 2
    await other.delete()
    assert await bucket.entries(f"default.{conversation.id}") == []


async def test_after_a_deletion_that_broke_off_the_id_begins_with_nothing(
    scene: ContextScene, ann: Contexts
) -> None:
    conversation = begun(ann)
    await conversation.append("user", "x")
    await marked_deleted(await scene.bucket(), ContextKeys("default", conversation.id), time.time)
    assert (await begun(ann, conversation.id).append("user", "y")).number == 1
    assert [each.content for each in await conversation.messages()] == ["y"]


async def test_what_somebody_wrote_that_makes_no_sense_is_left_out_or_told(
    scene: ContextScene, ann: Contexts, caplog: pytest.LogCaptureFixture
) -> None:
    conversation = begun(ann)
    for number in range(1, 4):
        await conversation.append("user", number)
    await conversation.compare_and_set("x", 0)
    await conversation.put_artifact("file", b"x")
    bucket = await scene.bucket()
    keys = {each.key.rpartition(f"{conversation.id}.")[2]: each.key for each in await bucket.entries()}
    places = {each.partition(".")[2]: key for each, key in keys.items() if key.startswith("default.")}
    await bucket.put(places["m.2"], b"\xff{")
    assert [each.number for each in await conversation.messages()] == [1, 3]
    assert "message 2 of a context is skipped" in caplog.text
    assert (await conversation.append("user", 4)).number == 4
    await bucket.put(places["s"], b"{")
    await bucket.put(places["l"], b'[{"name": "../x"}]')
    for use in (conversation.state, conversation.artifacts):
        with pytest.raises(Unavailable):
            await use()
    await bucket.put(f"default.{conversation.id}.h", b'{"limits": {"messages": 10000000}}')
    with pytest.raises(Unavailable, match="cannot be read"):
        await conversation.messages()


async def test_an_artifact_with_a_piece_missing_is_not_taken_for_whole(
    scene: ContextScene, ann: Contexts
) -> None:
    conversation = begun(ann)
    await conversation.put_artifact("file", secrets.token_bytes(CHUNK_BYTES + 1))
    bucket = await scene.bucket()
    pieces = [
        each.key for each in await bucket.entries(f"default.{conversation.id}") if each.key.endswith(".1")
    ]
    await bucket.delete(pieces[0] if ".a." in pieces[0] else pieces[1])
    with pytest.raises(Unavailable, match="not all there"):
        await conversation.artifact("file")


def _uses(conversation: ConversationStore) -> list[Callable[[], Awaitable[Any]]]:
    return [
        lambda: conversation.append("user", "x"),
        conversation.messages,
        conversation.count,
        conversation.state,
        lambda: conversation.compare_and_set("x", 0),
        lambda: conversation.update(lambda _: "x"),
        lambda: conversation.put_artifact("x", b"x"),
        lambda: conversation.artifact("x"),
        conversation.artifacts,
        lambda: conversation.remove_artifact("x"),
        conversation.about,
        conversation.delete,
    ]
