"""The certificate authority that replicas share through a real nats-server, which may lose everything."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.servers import NatsServer, nats_server

from weft.aio.poll import until
from weft.controlplane.ca.authority import Authority
from weft.controlplane.ca.lifetimes import Lifetimes
from weft.controlplane.ca.rotation import Level
from weft.controlplane.sealing import Sealer
from weft.identity.keys import new_key, signing_request
from weft.identity.svid import verify_svid
from weft.model.spiffe import agent_id
from weft.store.nats import NatsStore

PATIENCE = 60.0
SEALER = Sealer([os.urandom(32)])
ME = agent_id("weft.local", "worker", "w1")


@asynccontextmanager
async def _replica(server: NatsServer, lifetimes: Lifetimes) -> AsyncIterator[Authority]:
    store = await NatsStore.connect([server.url], name="replica", timeout=5.0)
    try:
        async with Authority.open(store, SEALER, lifetimes=lifetimes) as authority:
            yield authority
    finally:
        await store.close()


async def test_replicas_rotate_a_root_together_and_lose_nobody_on_the_way(tmp_path: Path) -> None:
    brief = Lifetimes(root=900, intermediate=300, svid=1, propagation=0.5)
    async with (
        nats_server(tmp_path) as server,
        _replica(server, brief) as one,
        _replica(server, brief) as other,
    ):
        assert one.bundles == other.bundles
        first = one.status.root
        await one.rotate(Level.ROOT)
        request = signing_request(new_key(), ME)

        async def only_the_new_root_is_left() -> bool:
            for signer, reader in ((one, other), (other, one)):
                assert verify_svid(signer.sign(request, ME), reader.bundles, now=time.time()) == ME
            return all(
                each.status.root != first and len(each.bundles.own.roots) == 1 for each in (one, other)
            )

        async with asyncio.timeout(PATIENCE):
            await until(only_the_new_root_is_left)
        assert one.status == other.status


async def test_a_store_that_lost_everything_is_given_the_authority_back(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, _replica(server, Lifetimes()) as survivor:
        before = survivor.status
        await server.kill()
        shutil.rmtree(server.data)
        await server.start()
        # It may be the first in the empty store, and then makes an authority that nobody trusts.
        async with _replica(server, Lifetimes()) as fresh:

            async def is_back() -> bool:
                return fresh.status == before

            async with asyncio.timeout(PATIENCE):
                await until(is_back)
        assert survivor.status == before
