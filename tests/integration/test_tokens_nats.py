"""Operators' tokens with the store in NATS, as the replicas of a control plane share them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.servers import nats_server

from weft.aio.poll import until
from weft.controlplane.tokens import Tokens
from weft.errors import Unauthenticated
from weft.model.operator import MAX_LIFETIME, Scope
from weft.store.nats import NatsStore


async def test_a_token_is_good_on_every_replica_until_it_is_revoked_on_one(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, asyncio.timeout(60):
        one = await NatsStore.connect([server.url], name="one")
        two = await NatsStore.connect([server.url], name="two")
        async with Tokens.follow(one) as here, Tokens.follow(two) as there:
            token, record = await here.create("ci", Scope.VIEWER, created_by="me", lifetime=MAX_LIFETIME)
            await until(lambda: _is_good(there, token, good=True))
            assert there.check(token) == record
            await there.revoke("ci")
            await until(lambda: _is_good(here, token, good=False))
        async with Tokens.follow(one) as later:
            assert later.records == []
        await one.close()
        await two.close()


async def _is_good(tokens: Tokens, token: str, *, good: bool) -> bool:
    try:
        tokens.check(token)
    except Unauthenticated:
        return not good
    return good
