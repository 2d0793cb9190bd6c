"""Operators' tokens, over a store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.clock import Clock

from weft.aio.poll import until
from weft.controlplane.tokens import BUCKET, TokenCodec, Tokens
from weft.errors import Conflict, InvalidRequest, NotFound, Unauthenticated, Unavailable
from weft.model.operator import (
    DAY,
    MAX_LIFETIME,
    Scope,
    TokenRecord,
    is_token,
    new_token,
    parse_lifetime,
    token_hash,
)
from weft.store.bucket import Entry
from weft.store.followed import Followed
from weft.store.memory import MemoryStore


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    store = MemoryStore()
    yield store
    await store.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def tokens(store: MemoryStore, clock: Clock) -> AsyncIterator[Tokens]:
    async with Tokens.follow(store, clock) as tokens:
        yield tokens


async def refused(tokens: Tokens, token: str) -> None:
    async def is_refused() -> bool:
        try:
            tokens.check(token)
        except Unauthenticated:
            return True
        return False

    async with asyncio.timeout(30):
        await until(is_refused)


async def test_a_token_says_who_its_holder_is_and_what_he_may(tokens: Tokens) -> None:
    token, record = await tokens.create("ci", Scope.OPERATOR, created_by="operator/anna")
    assert is_token(token)
    assert tokens.check(token) == record
    assert (record.name, record.scope, record.created_by) == ("ci", Scope.OPERATOR, "operator/anna")
    assert record.expires - record.created == 90 * DAY


async def test_the_store_does_not_hold_the_token(tokens: Tokens, store: MemoryStore) -> None:
    token, record = await tokens.create("ci", Scope.VIEWER, created_by="me")
    [entry] = await (await store.bucket(BUCKET, TokenCodec())).entries()
    assert entry.key == token_hash(token)
    assert token not in TokenCodec().encode(entry.value).decode()
    assert token not in repr((tokens, record))


async def test_what_is_no_token_of_this_mesh_is_refused_and_not_repeated(tokens: Tokens) -> None:
    for each in (new_token(), "", "weft_", "x" * 100_000, token_hash("x")):
        with pytest.raises(Unauthenticated) as refusal:
            tokens.check(each)
        assert not each or each not in refusal.value.detail


async def test_a_revoked_token_is_worthless_here_at_once_and_soon_everywhere(
    tokens: Tokens, store: MemoryStore
) -> None:
    async with Tokens.follow(store, Clock()) as elsewhere:
        token, _ = await tokens.create("ci", Scope.ADMIN, created_by="me")
        await tokens.revoke("ci")
        with pytest.raises(Unauthenticated):
            tokens.check(token)
        await refused(elsewhere, token)
        assert tokens.records == elsewhere.records == []
    with pytest.raises(NotFound):
        await tokens.revoke("ci")


async def test_an_expired_token_is_refused_by_name_and_its_name_is_free_again(
    tokens: Tokens, clock: Clock
) -> None:
    token, _ = await tokens.create("ci", Scope.VIEWER, created_by="me", lifetime=60)
    clock.now += 60
    with pytest.raises(Unauthenticated, match="'ci' has expired"):
        tokens.check(token)
    again, _ = await tokens.create("ci", Scope.VIEWER, created_by="me")
    assert tokens.check(again).name == "ci"
    with pytest.raises(Unauthenticated):
        tokens.check(token)


async def test_two_tokens_cannot_have_one_name(tokens: Tokens) -> None:
    await tokens.create("ci", Scope.VIEWER, created_by="me")
    with pytest.raises(Conflict, match="'ci'"):
        await tokens.create("ci", Scope.VIEWER, created_by="me")


@pytest.mark.parametrize(("name", "lifetime"), [("C I", DAY), ("ci", 1.0), ("ci", MAX_LIFETIME + 1)])
async def test_a_token_out_of_limits_is_not_made(tokens: Tokens, name: str, lifetime: float) -> None:
    with pytest.raises(InvalidRequest):
        await tokens.create(name, Scope.VIEWER, created_by="me", lifetime=lifetime)


async def test_before_the_tokens_are_known_nobody_gets_in(store: MemoryStore) -> None:
    bucket = await store.bucket(BUCKET, TokenCodec())
    with pytest.raises(Unavailable):
        Tokens(bucket, Followed()).check(new_token())


async def test_the_token_a_mesh_begins_with_is_adopted_by_every_replica(
    tokens: Tokens, store: MemoryStore
) -> None:
    first, second = new_token(), new_token()
    record = await tokens.adopt(first, "local", Scope.ADMIN)
    async with Tokens.follow(store, Clock()) as elsewhere:
        assert await elsewhere.adopt(first, "local", Scope.ADMIN) == record
        await elsewhere.adopt(second, "local", Scope.ADMIN)
        assert elsewhere.check(second).scope is Scope.ADMIN
    await refused(tokens, first)
    with pytest.raises(InvalidRequest):
        await tokens.adopt("secret", "local", Scope.ADMIN)


async def test_replicas_that_start_together_adopt_the_same_token(tokens: Tokens, store: MemoryStore) -> None:
    token = new_token()
    bucket = await store.bucket(BUCKET, TokenCodec())
    entries, looked = bucket.entries, 0

    async def overtaken(prefix: str = "") -> list[Entry[TokenRecord]]:
        nonlocal looked
        looked += 1
        if looked == 2:  # nothing was there, and now the other is faster
            await tokens.adopt(token, "local", Scope.ADMIN)
        return await entries(prefix)

    async with Followed[TokenRecord].follow(bucket, name="tokens") as known:
        slower = Tokens(bucket, known, Clock())
        bucket.entries = overtaken  # type: ignore[method-assign]
        await slower.adopt(token, "local", Scope.ADMIN)
        assert looked == 2
        for each in (tokens, slower):
            assert each.check(token).name == "local"


async def test_known_tokens_stay_good_while_the_store_is_away(tokens: Tokens, store: MemoryStore) -> None:
    token, _ = await tokens.create("ci", Scope.VIEWER, created_by="me")
    store.interrupt()
    assert tokens.check(token).name == "ci"
    with pytest.raises(Unavailable):
        await tokens.revoke("ci")
    store.resume()


@pytest.mark.parametrize(("text", "seconds"), [("30d", 30 * DAY), ("12h", 43200.0), ("15m", 900.0)])
def test_a_lifetime_has_a_unit(text: str, seconds: float) -> None:
    assert parse_lifetime(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "366d", "9999d", "1s", "-1d", "1.5d", "forever"])
def test_what_is_no_lifetime_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_lifetime(text)


def test_each_scope_includes_those_below_it() -> None:
    assert [each for each in Scope if Scope.OPERATOR.includes(each)] == [Scope.VIEWER, Scope.OPERATOR]
    assert all(Scope.ADMIN.includes(each) for each in Scope)
