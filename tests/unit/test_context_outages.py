"""Contexts whose store breaks off, or whose writer dies, at every single step."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeVar

import pytest

from weft.contexts.contexts import Contexts, of_tenant
from weft.contexts.conversation import ConversationStore
from weft.contexts.records import CHUNK_BYTES, BytesCodec
from weft.errors import Denied, NotFound, Unavailable
from weft.model.context_keys import CONTEXTS_BUCKET
from weft.store.bucket import Bucket, Change, Entry
from weft.store.memory import MemoryStore

T = TypeVar("T")


class How(Enum):
    """What becomes of the step at which the store breaks off."""

    UNDONE = auto()
    DONE = auto()
    """It is done, but who asked for it is not told."""


class Death(Denied):
    """The writer is no more."""

    def __init__(self) -> None:
        super().__init__("dead")


@dataclass
class Breaking:
    """A bucket that breaks off at one step: it is Unavailable for that one, or dead from then on."""

    inner: Bucket[bytes]
    at: int
    how: How
    error: Callable[[], Exception]
    steps: int = 0

    async def get(self, key: str) -> Entry[bytes] | None:
        return await self._step(self.inner.get(key))

    async def create(self, key: str, value: bytes, *, ttl: float | None = None) -> int:
        return await self._step(self.inner.create(key, value, ttl=ttl))

    async def put(self, key: str, value: bytes, *, ttl: float | None = None) -> int:
        return await self._step(self.inner.put(key, value, ttl=ttl))

    async def update(self, key: str, value: bytes, *, revision: int, ttl: float | None = None) -> int:
        return await self._step(self.inner.update(key, value, revision=revision, ttl=ttl))

    async def delete(self, key: str, *, revision: int | None = None) -> None:
        await self._step(self.inner.delete(key, revision=revision))

    async def entries(self, prefix: str = "") -> list[Entry[bytes]]:
        raise NotImplementedError

    async def recent(
        self, limit: int = 100, prefix: str = "", *, before: int | None = None
    ) -> list[Entry[bytes]]:
        raise NotImplementedError

    def watch(self, prefix: str = "") -> AbstractAsyncContextManager[AsyncIterator[Change[bytes]]]:
        raise NotImplementedError

    async def _step(self, work: Awaitable[T]) -> T:
        self.steps += 1
        error = self.error()
        dead = isinstance(error, Death) and self.steps > self.at
        if self.steps != self.at and not dead:
            return await work
        if self.how is How.DONE and not dead:
            await work
        else:
            work.close()  # type: ignore[attr-defined]
        raise error


@dataclass
class Scene:
    """A context, and who uses it."""

    bucket: Bucket[bytes]
    id: str

    def through(self, bucket: Bucket[bytes]) -> ConversationStore:
        """The context as somebody has it who uses that bucket."""
        contexts = Contexts(bucket, of_tenant("default"), author="spiffe://weft.local/agent/a/b")
        return contexts.conversation(self.id, may_begin=True)

    @property
    def others(self) -> ConversationStore:
        """As somebody else has it."""
        return self.through(self.bucket)


async def at_every_step(
    how: How,
    error: Callable[[], Exception],
    prepare: Callable[[ConversationStore], Awaitable[None]],
    act: Callable[[ConversationStore], Awaitable[object]],
    check: Callable[[Scene, bool], Awaitable[None]],
) -> int:
    """Do it as often as it has steps, each time with another one that breaks off; how many it has.

    `check` is told whether `act` came to its end.
    """
    for number in itertools.count(1):
        store = MemoryStore()
        scene = Scene(await store.bucket(CONTEXTS_BUCKET, BytesCodec()), secrets.token_hex(4))
        await prepare(scene.others)
        breaking = Breaking(scene.bucket, number, how, error)
        try:
            await act(scene.through(breaking))
        except (Unavailable, Death):
            done = False
        else:
            done = True
        await check(scene, done)
        await store.close()
        if breaking.steps < number:
            return number - 1
    raise AssertionError


async def nothing(_: ConversationStore) -> None:
    """Nothing is there before."""


def unavailable() -> Exception:
    return Unavailable("the connection broke")


@pytest.mark.parametrize("how", How)
async def test_a_message_whose_writing_breaks_off_is_there_once_if_its_author_was_told_so(how: How) -> None:
    async def before(conversation: ConversationStore) -> None:
        for each in ("one", "two", "three"):
            await conversation.append("user", each)

    async def check(scene: Scene, done: bool) -> None:
        contents = [each.content for each in await scene.others.messages()]
        assert contents == ["one", "two", "three", *(["mine"] if done else [])]

    steps = await at_every_step(how, unavailable, before, lambda each: each.append("user", "mine"), check)
    assert steps > 3


@pytest.mark.parametrize("how", How)
async def test_after_an_author_died_the_messages_have_no_gap_and_go_on(how: How) -> None:
    async def check(scene: Scene, done: bool) -> None:
        await scene.others.append("user", "next")
        messages = await scene.others.messages()
        assert [each.number for each in messages] == list(range(1, len(messages) + 1))
        assert [each.content for each in messages] in (["mine", "next"], ["next"])
        assert len(messages) == 2 or not done

    await at_every_step(how, Death, nothing, lambda each: each.append("user", "mine"), check)


@pytest.mark.parametrize("how", How)
async def test_an_artifact_is_the_former_or_the_new_one_whole_wherever_its_writer_died(how: How) -> None:
    former, new = secrets.token_bytes(2 * CHUNK_BYTES), secrets.token_bytes(3 * CHUNK_BYTES)

    async def before(conversation: ConversationStore) -> None:
        await conversation.put_artifact("file", former)

    async def check(scene: Scene, done: bool) -> None:
        artifact = await scene.others.artifact("file")
        assert artifact.data in ((new,) if done else (former, new))
        assert len(await scene.others.artifacts()) == 1

    steps = await at_every_step(how, Death, before, lambda each: each.put_artifact("file", new), check)
    assert steps > 6


@pytest.mark.parametrize("how", How)
async def test_a_deletion_that_breaks_off_anywhere_can_be_done_again_and_leaves_nothing(how: How) -> None:
    async def before(conversation: ConversationStore) -> None:
        for number in range(40):
            await conversation.append("user", number)
        await conversation.compare_and_set("x", 0)
        await conversation.put_artifact("file", b"x")

    async def check(scene: Scene, done: bool) -> None:
        messages = await scene.others.messages()
        assert len(messages) in ((0,) if done else (0, 40))  # all or nothing, to who looks
        with suppress(NotFound):
            await scene.others.delete()
        assert await scene.bucket.entries() == []
        assert (await scene.others.append("user", "anew")).number == 1

    steps = await at_every_step(how, Death, before, lambda each: each.delete(), check)
    assert steps > 40


async def test_a_change_of_state_that_breaks_off_is_made_once_or_not_at_all() -> None:
    for how in How:

        async def check(scene: Scene, done: bool) -> None:
            value = (await scene.others.state()).value
            assert value == 1 if done else value in {None, 1}

        await at_every_step(
            how, unavailable, nothing, lambda each: each.update(lambda known: (known or 0) + 1), check
        )
