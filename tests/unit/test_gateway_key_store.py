"""API keys, as the control plane keeps them."""

from __future__ import annotations

import pytest

from weft.controlplane.gateways import Gateways, KeyRequest
from weft.controlplane.sealing import Sealer
from weft.errors import Conflict, NotFound
from weft.model.api_key import api_key_hash
from weft.store.memory import MemoryStore


async def gateways() -> Gateways:
    return await Gateways.open(MemoryStore(), Sealer([b"k" * 32]))


async def test_what_is_kept_of_a_key_is_its_hash() -> None:
    kept = await gateways()
    key, record = await kept.create("door", KeyRequest("acme", queues=("q",)), since=0.0)
    assert await kept.keys("door", since=0.0) == [record]
    assert record.sha256 == api_key_hash(key)
    assert key not in record.model_dump_json()
    with pytest.raises(Conflict):
        await kept.create("door", KeyRequest("acme"), since=0.0)
    await kept.delete("door", "acme")
    assert await kept.keys("door", since=0.0) == []
    with pytest.raises(NotFound):
        await kept.delete("door", "acme")


async def test_a_gateway_that_is_declared_anew_does_not_take_the_keys_of_the_one_before() -> None:
    kept = await gateways()
    _, old = await kept.create("door", KeyRequest("acme", sees_all=True), since=0.0)
    declared = old.created_at + 0.001
    assert await kept.keys("door", since=declared) == []
    _, new = await kept.create("door", KeyRequest("acme"), since=old.created_at + 1e-6)
    assert await kept.keys("door", since=old.created_at + 1e-6) == [new]
    assert not new.sees_all


async def test_webhooks_are_signed_with_one_secret_for_the_mesh_that_the_store_cannot_read() -> None:
    store = MemoryStore()
    one = await Gateways.open(store, Sealer([b"k" * 32]))
    other = await Gateways.open(store, Sealer([b"k" * 32]))
    secret = await one.webhook_secret()
    assert len(secret.value) == 32
    assert await other.webhook_secret() == secret
    assert secret.value.hex() not in repr(secret)
