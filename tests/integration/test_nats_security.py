"""A real nats-server as `weft up` configures it: who is let in, and what each identity may do."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from nats.errors import NoRespondersError
from nats.js.errors import APIError
from tests.conformance.codecs import JsonCodec
from tests.pki import Pki
from tests.secured_nats import Secured, secured_nats

from weft.aio.poll import until
from weft.audit.trail import Audit
from weft.controlplane.message_grants import MessageGrant
from weft.errors import Conflict, Denied, InvalidRequest, MeshError, Unavailable
from weft.identity.tls import client_context
from weft.local.nats import nats_serves
from weft.model.agent import Instance
from weft.model.audit import AuditRecord, Outcome
from weft.model.audit_codec import AuditCodec
from weft.model.offer import Offer
from weft.model.spiffe import agent_id, control_id, operator_id
from weft.model.subjects import inbox_prefix
from weft.registry.offers import Offers
from weft.registry.registry import Registry
from weft.store.nats import NatsStore
from weft.store.nats_accounts import AUDIT, MEMBER_API

PATIENCE = 60.0
ALICE = agent_id("weft.local", "worker", "alice")
BOB = agent_id("weft.local", "worker", "bob")
DOOR = operator_id("weft.local", "local", "door")


@pytest.fixture
async def secured(tmp_path: Path) -> AsyncIterator[Secured]:
    async with secured_nats(tmp_path) as running:
        yield running


async def put_secret(secured: Secured) -> None:
    bucket = await secured.control.bucket("authority", JsonCodec())
    await bucket.put("root", "sealed")


async def secret(secured: Secured) -> object:
    entry = await (await secured.control.bucket("authority", JsonCodec())).get("root")
    return entry and entry.value


async def test_who_has_no_certificate_of_the_mesh_is_refused(secured: Secured) -> None:
    pki = secured.pki
    strangers = {
        "self-signed": pki.svid(ALICE, self_signed=True),
        "foreign authority": Pki().svid(ALICE),
        "expired": pki.svid(ALICE, lifetime=-5),
        "not yet valid": pki.svid(ALICE, not_before=600),
        "wrong trust domain": pki.svid("spiffe://elsewhere/agent/worker/alice"),
        "two names": pki.svid(ALICE, extra_uris=[str(BOB)]),
        "no name": pki.svid(""),
        "no name that the mesh gives out": pki.svid("spiffe://weft.local/agent/worker.x/alice"),
    }
    for what, (chain, key) in strangers.items():
        with pytest.raises(Unavailable):
            await secured.connect(chain, key)
        assert await nats_serves(secured.server.port, secured.security), what
    roots = secured.security.roots.read_bytes()
    with pytest.raises(Unavailable, match="certificate"):
        await NatsStore.connect([secured.server.url], name="nobody", tls=partial(client_context, roots))
    # The server itself refuses what its authorities did not sign; the rest is the control plane's.
    assert len(secured.refused) >= 4
    assert not await nats_serves(secured.server.port)  # not even a greeting in plain text
    async with secured.member(ALICE) as store:
        assert store.connected


async def test_a_server_that_is_not_the_meshs_is_not_talked_to(secured: Secured) -> None:
    secured.tls(*secured.pki.svid(ALICE))
    tls = partial(client_context, secured.pki.bundle().pem, secured.credentials)
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        await NatsStore.connect([secured.server.url], name="careful", tls=tls)


async def test_a_server_in_between_that_says_no_tls_is_needed_hears_nothing(secured: Secured) -> None:
    heard = bytearray()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.15.0","headers":true,"max_payload":9999}\r\n')
        with suppress(ConnectionError):
            while data := await reader.read(4096):
                heard.extend(data)
        writer.close()

    tls = secured.tls(*secured.pki.svid(ALICE))
    async with await asyncio.start_server(greet, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(Unavailable):
            await NatsStore.connect([f"tls://127.0.0.1:{port}"], name="careful", tls=tls, timeout=3.0)
    assert b"CONNECT" not in heard


@pytest.mark.parametrize(
    "url", ["nats://192.0.2.1:4222", "192.0.2.1", "ws://127.0.0.1:1", "tls://127.0.0.1:1"]
)
async def test_plain_text_never_leaves_the_machine(url: str) -> None:
    with pytest.raises(InvalidRequest):
        await NatsStore.connect([url], name="careless")
    if "192" in url:
        with pytest.raises(InvalidRequest):
            await NatsStore.connect([url], name="careless", tls=ssl.create_default_context)


async def test_an_agent_keeps_its_own_registration(secured: Secured) -> None:
    mine = Instance("alice", "worker", "127.0.0.1:1001", incarnation="one")
    again = Instance("alice", "worker", "127.0.0.1:1002", incarnation="two")
    async with secured.member(ALICE) as store:
        registry = await Registry.open(store, lease_ttl=4.0)
        lease = await registry.register(mine)
        await lease.update(mine)
        assert await registry.get("worker", "alice") == mine
        assert await (await Registry.open(secured.control)).instances() == [mine]
        # Whoever has the identity has to wait for the lease all the same.
        await registry.register(again)
        with pytest.raises(Conflict):
            await lease.update(mine)


async def test_an_agent_can_write_and_delete_no_key_but_its_own(secured: Secured) -> None:
    bobs = Instance("bob", "worker", "127.0.0.1:1003", incarnation="b")
    await (await Registry.open(secured.control, lease_ttl=600)).register(bobs)
    await put_secret(secured)
    async with secured.member(ALICE) as store:
        registry = await Registry.open(store)
        for attempt in (registry.bucket.put("worker.bob", bobs), registry.bucket.delete("worker.bob")):
            with pytest.raises(Denied, match="permit"):
                await attempt
        for attempt in (
            registry.bucket.put("worker", bobs),
            registry.bucket.put("worker.alice.x", bobs),
        ):
            with pytest.raises(Denied):
                await attempt
        # Nor by a header of a write that is permitted.
        async with secured.raw(ALICE) as (client, _):
            jetstream = client.jetstream(prefix=MEMBER_API)
            for scope in ("all", "sub"):
                with pytest.raises(APIError, match="rollup"):
                    await jetstream.publish("$KV.instances.worker.alice", b"", headers={"Nats-Rollup": scope})
        # What is there can neither be read nor made.
        for name in ("authority", "new"):
            with pytest.raises(Denied):
                await store.bucket(name, JsonCodec())
    assert await (await Registry.open(secured.control)).get("worker", "bob") == bobs


async def test_an_agent_keeps_what_it_offers_and_neither_reads_nor_writes_what_others_do(
    secured: Secured,
) -> None:
    all_offers = await Offers.open(secured.control)
    await all_offers.publish("worker.bob", Offer({"name": "Bob"}))
    async with secured.member(ALICE) as store:
        offers = await Offers.open(store)
        await offers.publish("worker.alice", Offer({"name": "Alice"}))
        kept = await offers.bucket.get("worker.alice")
        assert kept is not None
        assert kept.value == Offer({"name": "Alice"})
        for attempt in (
            offers.publish("worker.bob", Offer()),
            offers.withdraw("worker.bob"),
            offers.bucket.get("worker.bob"),
        ):
            with pytest.raises(Denied):
                await attempt
        await offers.withdraw("worker.alice")
        assert await offers.bucket.get("worker.alice") is None
    entries = await all_offers.bucket.entries()
    assert [(each.key, each.value) for each in entries] == [("worker.bob", Offer({"name": "Bob"}))]


async def test_an_agent_can_neither_manage_streams_nor_consume_nor_ask_the_system(secured: Secured) -> None:
    await put_secret(secured)
    forbidden = [
        "WEFT.API.STREAM.CREATE.mine",
        "WEFT.API.STREAM.DELETE.KV_instances",
        "WEFT.API.STREAM.PURGE.KV_instances",
        "WEFT.API.STREAM.UPDATE.KV_instances",
        "WEFT.API.STREAM.NAMES",
        "WEFT.API.STREAM.MSG.GET.KV_authority",
        "WEFT.API.STREAM.MSG.GET.KV_offers",
        "WEFT.API.STREAM.INFO.KV_offers",
        "WEFT.API.STREAM.MSG.DELETE.KV_instances",
        "WEFT.API.CONSUMER.CREATE.KV_instances",
        "WEFT.API.CONSUMER.CREATE.KV_authority",
        "WEFT.API.DIRECT.GET.KV_authority.$KV.authority.root",
        "$JS.API.STREAM.INFO.KV_instances",
        "$JS.API.STREAM.CREATE.mine",
        "$KV.authority.root",
        "$SYS.REQ.SERVER.PING",
        "$SYS.REQ.USER.AUTH",
        "audit.agent.worker.bob",
        "audit.control.one",
        "topics.any",
        "_INBOX.agent.worker.bob.x",
    ]
    async with secured.raw(ALICE) as (client, complaints):
        for subject in forbidden:
            await client.publish(subject, b'{"last_by_subj":"$KV.authority.root"}', reply=client.new_inbox())
        for subject in ("_INBOX.>", "_INBOX.agent.worker.bob.>", ">", "$KV.>", "audit.>", "topics.any"):
            await client.subscribe(subject)
        await client.flush()

        async def all_refused() -> bool:
            return len(complaints) >= len(forbidden) + 6

        async with asyncio.timeout(PATIENCE):
            await until(all_refused)
        assert all("permissions violation" in each.lower() for each in complaints)
    assert await secret(secured) == "sealed"


async def test_an_answer_cannot_be_sent_where_its_asker_may_not_write(secured: Secured) -> None:
    await put_secret(secured)
    bobs = Instance("bob", "worker", "127.0.0.1:1003", incarnation="b")
    registry = await Registry.open(secured.control, lease_ttl=600)
    await registry.register(bobs)
    journal = await secured.control.journal(AUDIT, AuditCodec())
    async with secured.raw(ALICE) as (client, _):
        for victim in ("$KV.authority.root", "$KV.instances.worker.bob", "audit.control.one"):
            await client.publish("$KV.instances.worker.alice", b"{}", reply=victim)
            await client.publish("WEFT.API.STREAM.INFO.KV_instances", b"", reply=victim)
            await client.publish("audit.agent.worker.alice", b"{}", reply=victim)
        # Whatever these led to has been done once the server answers this one.
        await client.request("WEFT.API.STREAM.INFO.KV_instances", timeout=PATIENCE)
    assert await secret(secured) == "sealed"
    assert await registry.get("worker", "bob") == bobs
    assert await journal.recent(10, "control") == []


async def test_what_an_agent_reports_is_written_down_as_its_own(secured: Secured) -> None:
    record = AuditRecord(time.time(), str(BOB), "call", "worker GET /", Outcome.DENIED, observer="control")
    for identity in (ALICE, DOOR):
        async with secured.member(identity) as store:
            journal = await store.journal(AUDIT, AuditCodec())
            await journal.append(f"{'.'.join(identity.segments)}", record)
            with pytest.raises(Denied):
                await journal.append("control.one", record)
            with pytest.raises(Denied):
                await journal.recent()
    async with await Audit.open(secured.control, "control.one") as audit:
        audit.record(record)
        assert [each.observer for each in await audit.recent()] == [
            "agent/worker/alice",
            "operator/local/door",
            "control",
        ]


async def test_without_the_control_plane_connections_go_on_and_new_ones_wait(secured: Secured) -> None:
    mine = Instance("alice", "worker", "127.0.0.1:1001", incarnation="one")
    async with secured.member(ALICE) as store:
        lease = await (await Registry.open(store, lease_ttl=60)).register(mine)
        await secured.stop_control()
        await lease.update(mine)
        with pytest.raises(Unavailable, match="control plane"):
            await secured.connect(*secured.pki.svid(BOB))
        await secured.start_control()
        async with secured.member(BOB):
            await lease.update(mine)


async def test_a_revoked_identity_is_thrown_out_and_stays_out(secured: Secured) -> None:
    async with secured.member(ALICE) as alice, secured.member(BOB) as bob:
        secured.revoked.add(ALICE)
        assert await secured.callout.kick(str(ALICE)) == 1

        async def is_out() -> bool:
            return not alice.connected and any("revoked" in each for each in secured.refused)

        async with asyncio.timeout(PATIENCE):
            await until(is_out)
        assert bob.connected


async def test_who_may_publish_something_else_now_is_let_in_anew_with_that(secured: Secured) -> None:
    async with secured.raw(ALICE) as (client, complaints):
        secured.messages[ALICE] = MessageGrant(publish=("topics.news",))
        assert await secured.admission.outdated() == [ALICE]
        assert await secured.admission.outdated() == []
        await client.publish("topics.news", b"")

        async def has_complained() -> bool:
            return bool(complaints)

        async def is_out() -> bool:
            return client.is_closed

        async with asyncio.timeout(PATIENCE):
            await until(has_complained)
            assert "topics.news" in complaints[0]
            assert await secured.callout.kick(str(ALICE)) == 1
            await until(is_out)
    async with secured.raw(ALICE) as (client, _):
        with pytest.raises(NoRespondersError):  # it is permitted, but nobody keeps this topic yet
            await client.request("topics.news", b"", timeout=PATIENCE)
        assert await secured.admission.outdated() == []


async def test_a_connection_ends_with_its_certificate_and_comes_back_with_the_next(secured: Secured) -> None:
    chain, key = secured.pki.svid(ALICE, lifetime=8)
    store = await secured.connect(chain, key, inbox=inbox_prefix(ALICE))
    secured.credentials.write_bytes(b"".join(secured.pki.svid(ALICE)))
    expired = time.time() + 8

    async def is_back() -> bool:
        return time.time() > expired + 2 and store.connected

    async with asyncio.timeout(PATIENCE):
        await until(is_back)
    await Registry.open(store)
    await store.close()


async def test_with_its_next_certificate_a_connection_goes_on_though_the_control_plane_is_gone_then(
    secured: Secured,
) -> None:
    mine = Instance("alice", "worker", "127.0.0.1:1001", incarnation="one")
    lifetime = 10  # seconds: longer than a busy machine takes to connect twice and to write
    chain, key = secured.pki.svid(ALICE, lifetime=lifetime)
    expired = time.time() + lifetime
    store = await secured.connect(chain, key, inbox=inbox_prefix(ALICE))
    lease = await (await Registry.open(store, lease_ttl=600)).register(mine)
    secured.credentials.write_bytes(b"".join(secured.pki.svid(ALICE)))
    async with asyncio.TaskGroup() as tasks:
        # Not one of the writes under way fails for it.
        for _ in range(100):
            tasks.create_task(lease.update(mine))
        tasks.create_task(store.reconnect())
    await secured.stop_control()
    while time.time() < expired + 2:
        await lease.update(mine)
        assert store.connected
        await asyncio.sleep(0.1)
    with pytest.raises(Unavailable):
        await store.reconnect()
    await lease.update(mine)
    await store.close()
    await secured.start_control()


async def test_after_a_reload_members_below_a_new_root_are_let_in(secured: Secured) -> None:
    old, secured.pki = secured.pki, Pki()
    with pytest.raises(MeshError):
        await secured.connect(*secured.pki.svid(ALICE))
    assert secured.security.trust(old.bundle().pem + secured.pki.bundle().pem)
    secured.server.reload()
    async with secured.member(ALICE) as store:
        await Registry.open(store)


async def test_a_replica_with_a_certificate_of_the_control_plane_has_all_rights(secured: Secured) -> None:
    async with secured.member(control_id("weft.local", "two")) as store:
        bucket = await store.bucket("authority", JsonCodec())
        await bucket.put("root", 1)
        assert [each.value for each in await bucket.entries()] == [1]


async def test_keys_and_seeds_are_readable_by_their_owner_only(secured: Secured) -> None:
    files = list(secured.security.directory.iterdir())
    assert len(files) == 7
    assert {each.stat().st_mode & 0o777 for each in files} == {0o600}
    assert secured.security.directory.stat().st_mode & 0o777 == 0o700
    assert b"PRIVATE" not in secured.security.roots.read_bytes() + secured.security.clients.read_bytes()
