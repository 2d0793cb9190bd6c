"""`weft kubernetes nats` as the process of a pod: whom it believes, how it says that it is, how it ends."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest
from tests.conformance.codecs import JsonCodec
from tests.nats_cluster import NatsCluster, NatsNode, nats_cluster
from tests.pki import Pki
from tests.server_process import HOST

from weft.aio.poll import until
from weft.aio.tasks import TaskOwner
from weft.cli.exit_codes import ExitCode
from weft.controlplane.message_grants import NO_MESSAGES
from weft.controlplane.nats_access import Admission
from weft.errors import Conflict, InvalidRequest, Unavailable
from weft.identity.bundle import TrustBundles
from weft.identity.tls import client_context
from weft.kubernetes.nats_configuration import NatsPlace, check_store, nats_keys
from weft.model.node import Address
from weft.model.spiffe import agent_id
from weft.model.subjects import inbox_prefix
from weft.store.nats import NatsStore

PATIENCE = 120.0
MEMBER = agent_id("weft.local", "worker", "alice")


@pytest.fixture
async def single(tmp_path: Path) -> AsyncIterator[NatsCluster]:
    async with nats_cluster(tmp_path, size=1) as cluster:
        yield cluster


async def until_answered(node: NatsNode, path: str, status: int) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=30.0) as client:

        async def is_answered() -> bool:
            return (await client.get(f"{node.health}{path}")).status_code == status

        async with asyncio.timeout(PATIENCE):
            await until(is_answered)


async def joined(cluster: NatsCluster, pki: Pki, directory: Path) -> NatsStore:
    """A connection as a member of the mesh. Raises Unavailable."""
    credentials = directory / "member.pem"
    credentials.write_bytes(b"".join(pki.svid(MEMBER)))
    return await NatsStore.connect(
        cluster.urls,
        name="member",
        tls=partial(client_context, cluster.security.roots.read_bytes(), credentials),
        inbox_prefix=inbox_prefix(MEMBER),
    )


async def eventually_joined(cluster: NatsCluster, pki: Pki, directory: Path) -> NatsStore:
    stores: list[NatsStore] = []

    async def is_in() -> bool:
        with suppress(Unavailable):
            stores.append(await joined(cluster, pki, directory))
        return bool(stores)

    async with asyncio.timeout(PATIENCE):
        await until(is_in)
    return stores[0]


async def test_members_are_believed_as_soon_as_the_mesh_has_roots_and_as_these_change(
    single: NatsCluster, tmp_path: Path
) -> None:
    first, second = Pki(), Pki()
    believed = [first]
    async with AsyncExitStack() as ends:
        control = await single.control(replicas=1)
        ends.push_async_callback(control.close)
        admission = Admission(
            partial(bundles, believed),
            revoked=lambda _svid: False,
            messages=lambda _who: NO_MESSAGES,
            refused=lambda _client, _reason: None,
        )
        tasks = await ends.enter_async_context(TaskOwner("callout"))
        callout = control.callout(single.security.issuer_seed)
        tasks.start(callout.serve(admission.decide), name="serve", endless=True)
        with pytest.raises(Unavailable):
            await joined(single, first, tmp_path)
        single.roots.write_bytes(first.bundle().pem)
        await (await eventually_joined(single, first, tmp_path)).close()
        # What is no certificate changes nothing.
        single.roots.write_text("-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n")
        await until_logged(single.nodes[0], "holds no certificates")
        single.roots.unlink()
        await (await eventually_joined(single, first, tmp_path)).close()
        # As a kubelet changes what it has mounted: another file at the same place.
        (tmp_path / "next.pem").write_bytes(second.bundle().pem)
        (tmp_path / "next.pem").replace(single.roots)
        believed[0] = second
        await (await eventually_joined(single, second, tmp_path)).close()
        with pytest.raises(Unavailable):
            await joined(single, first, tmp_path)


def bundles(believed: list[Pki]) -> TrustBundles:
    """What the control plane believes at the moment."""
    return believed[0].bundles()


async def until_logged(node: NatsNode, text: str) -> None:
    async def is_logged() -> bool:
        return text in node.log

    async with asyncio.timeout(PATIENCE):
        await until(is_logged)


async def test_it_says_how_nats_is_and_hands_over_before_it_ends(single: NatsCluster) -> None:
    node = single.nodes[0]
    await until_answered(node, "/livez", 200)
    await until_answered(node, "/readyz", 200)
    await until_answered(node, "/", 404)
    node.freeze()
    try:
        await until_answered(node, "/livez", 503)
    finally:
        node.thaw()
    control = await single.control(replicas=1)
    await (await control.bucket("things", JsonCodec())).put("key", 1)
    await control.close()
    assert await node.terminate() == ExitCode.OK
    assert "Entering lame duck mode" in node.log
    await node.start()
    control = await single.control(replicas=1)
    found = await (await control.bucket("things", JsonCodec())).get("key")
    assert found is not None
    await control.close()
    with pytest.raises(Conflict, match="was kept by a NATS server that was alone"):
        check_store(place(node.store, peers=3))
    check_store(place(node.store, peers=0))
    # A container ends when NATS does, so that the kubelet sees it.
    node.kill_server()
    assert await node.ended() == ExitCode.UNREACHABLE
    assert "nats-server ended by itself with exit code 137" in node.log


def place(store: Path, *, peers: int) -> NatsPlace:
    return NatsPlace("nats-0", store, HOST, HOST, [Address(HOST, 6222 + each) for each in range(peers)])


async def test_nats_does_not_survive_its_supervisor(single: NatsCluster) -> None:
    node = single.nodes[0]
    servers = node.servers()
    await node.kill_supervisor()

    async def are_gone() -> bool:
        return not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in servers)

    assert servers
    async with asyncio.timeout(PATIENCE):
        await until(are_gone)


async def test_only_who_has_the_servers_own_key_can_be_one_of_them(tmp_path: Path) -> None:
    async with nats_cluster(tmp_path) as cluster:
        security, port = cluster.security, cluster.nodes[0].ports.cluster
        server = tmp_path / "server-and-key.pem"
        server.write_bytes(security.certificate.read_bytes() + security.key.read_bytes())
        roots = security.roots.read_bytes()
        assert await taken_for_a_server(port, client_context(roots, server))
        assert not await taken_for_a_server(port, client_context(roots, security.control_credentials))


async def taken_for_a_server(port: int, tls: ssl.SSLContext) -> bool:
    """Whether a server says who it is to who comes to its cluster's port so."""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(HOST, port, ssl=tls)
        try:
            return (await reader.readline()).startswith(b"INFO ")
        except OSError:
            return False
        finally:
            writer.close()


def test_keys_that_are_not_all_there_are_told_of(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"control\.public cannot be used .*weft kubernetes bootstrap"):
        nats_keys(tmp_path, tmp_path)
    (tmp_path / "control.public").write_text("SUANOTPUBLIC")
    with pytest.raises(InvalidRequest, match="it holds no public nkey"):
        nats_keys(tmp_path, tmp_path)
    (tmp_path / "control.public").write_text("UABC\n")
    (tmp_path / "issuer.public").write_text("AABC\n")
    with pytest.raises(InvalidRequest, match=r"server\.pem cannot be used"):
        nats_keys(tmp_path, tmp_path)
