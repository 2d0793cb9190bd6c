"""The ADS server over mutual TLS: a sidecar gets its own configuration, and nobody else gets any."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import suppress

import grpc
import pytest
from grpc import StatusCode, aio
from tests.pki import DAY, Pki
from tests.xds import NODE, AdsClient, AdsMesh, bare, running, server_identity, stream

from weft.controlplane.xds.credentials import server_credentials
from weft.controlplane.xds.snapshot import CLUSTER
from weft.model.node import Address, Inbound, Node

OURS = Pki()
EDITOR = "spiffe://weft.local/agent/editor/e-1"
DOOR = f"spiffe://weft.local/operator/alice/{NODE.id}"
EDITOR_NODE = Node(
    "e-1", Address("127.0.0.1", 20001), Inbound("editor", Address("127.0.0.1", 1), Address("127.0.0.1", 2))
)


class SecureMesh(AdsMesh):
    """An ADS server whose identity may change, and that remembers whom it refused."""

    def __init__(self) -> None:
        self.identity = server_identity(OURS)
        self.revoked: set[str] = set()
        self.denied: list[tuple[str, Node | None, str]] = []
        super().__init__(
            credentials=server_credentials(lambda: self.identity),
            revoked=lambda identity: identity in self.revoked,
            on_denied=lambda *denial: self.denied.append(denial),
        )


@pytest.fixture
async def mesh() -> AsyncIterator[SecureMesh]:
    mesh = SecureMesh()
    async with running(mesh):
        yield mesh


def shown(chain_and_key: tuple[bytes, bytes] | None, server: Pki = OURS) -> grpc.ChannelCredentials:
    """Those of a client that believes `server`, and shows this certificate."""
    chain, key = chain_and_key or (None, None)
    return grpc.ssl_channel_credentials(server.bundle().pem, key, chain)


async def served(client: AdsClient, node: Node) -> bool:
    await client.say(CLUSTER, node)
    response = await client.hear()
    await client.ack(response)
    return [each.name for each in response.resources] == ["a"]


async def refusal(
    mesh: SecureMesh, credentials: grpc.ChannelCredentials, node: Node
) -> tuple[StatusCode, str]:
    async with stream(mesh, credentials) as client:
        with suppress(aio.AioRpcError):  # it may be over already
            await client.say(CLUSTER, node)
        return await client.end()


@pytest.mark.parametrize(("identity", "node"), [(EDITOR, EDITOR_NODE), (DOOR, NODE)])
async def test_a_sidecar_gets_its_own_configuration(mesh: SecureMesh, identity: str, node: Node) -> None:
    async with stream(mesh, shown(OURS.svid(identity))) as client:
        assert await served(client, node)
    assert mesh.denied == []


@pytest.mark.parametrize(
    ("identity", "node"),
    [
        ("spiffe://weft.local/agent/editor/e-2", EDITOR_NODE),
        ("spiffe://weft.local/agent/boss/e-1", EDITOR_NODE),
        ("spiffe://weft.local/operator/editor/e-1", EDITOR_NODE),
        ("spiffe://weft.local/control/e-1", EDITOR_NODE),
        (f"spiffe://weft.local/agent/alice/{NODE.id}", NODE),
        ("spiffe://weft.local/operator/alice/other", NODE),
        (f"spiffe://weft.local/control/{NODE.id}", NODE),
    ],
)
async def test_it_gets_no_other_ones(mesh: SecureMesh, identity: str, node: Node) -> None:
    code, detail = await refusal(mesh, shown(OURS.svid(identity)), node)
    assert code is StatusCode.PERMISSION_DENIED
    assert identity in detail
    assert node.key in detail
    assert mesh.denied == [(identity, node, detail)]


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        (OURS.svid(EDITOR, extra_uris=[DOOR]), "two URI SANs"),
        (OURS.svid("spiffe://other.example/agent/editor/e-1"), "trust domain"),
        (OURS.svid(""), "no SPIFFE ID"),
    ],
)
async def test_a_certificate_that_is_no_identity_here_is_refused(
    mesh: SecureMesh, certificate: tuple[bytes, bytes], reason: str
) -> None:
    code, detail = await refusal(mesh, shown(certificate), EDITOR_NODE)
    assert code is StatusCode.UNAUTHENTICATED
    assert reason in detail
    [(who, node, why)] = mesh.denied
    assert who.startswith("unauthenticated ipv4:127.0.0.1")
    assert (node, why) == (None, detail)


@pytest.mark.parametrize(
    "certificate",
    [
        None,
        OURS.svid(EDITOR, self_signed=True),
        OURS.svid(EDITOR, lifetime=-60, not_before=-3600),
        OURS.svid(EDITOR, not_before=DAY, lifetime=2 * DAY),
        Pki().svid(EDITOR),
        Pki("partner.example").svid("spiffe://partner.example/agent/editor/e-1"),
    ],
    ids=["none", "self-signed", "expired", "not yet valid", "unknown authority", "partner"],
)
async def test_a_certificate_that_is_not_to_be_believed_ends_the_handshake(
    mesh: SecureMesh, certificate: tuple[bytes, bytes] | None
) -> None:
    code, _ = await refusal(mesh, shown(certificate), EDITOR_NODE)
    assert code is StatusCode.UNAVAILABLE


async def test_plain_text_is_refused(mesh: SecureMesh) -> None:
    async with stream(mesh) as client:
        assert (await client.end())[0] is StatusCode.UNAVAILABLE


async def test_a_revoked_identity_loses_its_stream_and_gets_no_other(mesh: SecureMesh) -> None:
    async with (
        stream(mesh, shown(OURS.svid(EDITOR))) as client,
        stream(mesh, shown(OURS.svid(DOOR))) as bystander,
    ):
        assert await served(client, EDITOR_NODE)
        assert await served(bystander, NODE)
        mesh.revoked.add(EDITOR)
        mesh.server.drop(EDITOR)
        assert (await client.end())[0] is StatusCode.PERMISSION_DENIED
        code, detail = await refusal(mesh, shown(OURS.svid(EDITOR)), EDITOR_NODE)
        assert (code, "revoked" in detail) == (StatusCode.PERMISSION_DENIED, True)
        assert [who for who, _, _ in mesh.denied] == [EDITOR]
        assert [each.node for each in mesh.server.statuses()] == [NODE]


async def test_a_stream_ends_with_the_certificate_it_was_opened_with(mesh: SecureMesh) -> None:
    short = OURS.svid(EDITOR, lifetime=time.time() - OURS.now + 2)
    async with stream(mesh, shown(short)) as client:
        assert await served(client, EDITOR_NODE)
        code, detail = await client.end()
    assert (code, "expired" in detail) == (StatusCode.UNAUTHENTICATED, True)


async def test_the_server_changes_its_certificate_and_roots_while_streams_are_open(mesh: SecureMesh) -> None:
    heir = Pki()
    async with stream(mesh, shown(OURS.svid(EDITOR))) as old:
        assert await served(old, EDITOR_NODE)
        mesh.identity = server_identity(heir)
        async with stream(mesh, shown(heir.svid(DOOR), heir)) as new:
            assert await served(new, NODE)
        assert (await refusal(mesh, shown(OURS.svid(DOOR), heir), NODE))[0] is StatusCode.UNAVAILABLE
        mesh.source.change(clusters=bare(b="1"))
        assert [each.name for each in (await old.hear()).resources] == ["b"]
