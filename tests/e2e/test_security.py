"""Attacks on a whole mesh as `weft up` makes it: each is refused, and the audit tells of it."""

from __future__ import annotations

import base64
import json
import secrets
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import psutil
import pytest
import pytest_asyncio
from tests.e2e.meshes import eventually
from tests.e2e.other_machine import other_machine
from tests.e2e.secured import (
    SecuredMesh,
    access_policy,
    ads_stream,
    knock,
    post,
    secured_mesh,
    stranger,
)
from tests.outside import OutsideHost
from tests.pki import Pki

from weft import Denied
from weft.controlplane.xds.snapshot import CLUSTER
from weft.errors import Unauthenticated
from weft.identity.keys import new_key, signing_request
from weft.model.agent import Instance, Status
from weft.model.spiffe import parse_spiffe_id
from weft.registry.registry import Registry
from weft.sidecar.identity_api import IdentityApi

pytestmark = pytest.mark.asyncio(loop_scope="module")

EDITOR = "spiffe://weft.local/agent/editor/editor-1"
VAULT = "spiffe://weft.local/agent/vault/vault-1"
GET = b"GET /health HTTP/1.1\r\nhost: vault.mesh\r\nconnection: close\r\n\r\n"


def witness(agent_type: str) -> str:
    return f"""
apiVersion: weft.dev/v1alpha1
kind: Agent
metadata: {{name: {agent_type}}}
spec:
  health: {{interval: 500ms}}
  drainTimeout: 2s
  run: {{command: [{sys.executable}, witness.py, {agent_type}]}}
"""


MANIFEST = "---".join(witness(each) for each in ("vault", "editor", "intern"))


PROVIDER = """
apiVersion: weft.dev/v1alpha1
kind: Secret
metadata: {{name: provider}}
spec:
  data: {{apiKey: {{fromEnv: PROVIDER_KEY}}}}
  inject:
  - host: llm.example
    port: {port}
    address: 127.0.0.1
    tls: false
    key: apiKey
    prefix: "Bearer "
    for: [editor]
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh() -> AsyncIterator[SecuredMesh]:
    async with secured_mesh(MANIFEST) as mesh:
        yield mesh


async def test_nobody_reaches_an_agent_without_one_valid_identity(mesh: SecuredMesh, tmp_path: Path) -> None:
    inside = await mesh.insider()
    address = await mesh.inbound("vault")
    shown = {
        "self-signed": (inside.svid(EDITOR, self_signed=True), "verify"),
        "expired": (inside.svid(EDITOR, lifetime=-60, not_before=-3600), "expired"),
        "not yet valid": (inside.svid(EDITOR, not_before=600), "not_yet_valid"),
        "two URI SANs": (inside.svid(EDITOR, extra_uris=[VAULT]), "not-one-spiffe-id"),
        "unknown authority": (Pki().svid(EDITOR), "verify"),
        "other trust domain": (
            Pki("other.example").svid("spiffe://other.example/agent/editor/e"),
            "no_trust",
        ),
    }
    for why, (credentials, reason) in shown.items():
        file = tmp_path / "shown.pem"
        file.write_bytes(b"".join(credentials))
        with mesh.attack():
            assert await knock(address, stranger(file), GET) == b"", why
            denial = await mesh.audited(outcome="denied", action="connect", reason=reason)
        assert denial["who"].startswith("unauthenticated 127.0.0.1"), why
        assert denial["observer"] == "agent/vault/vault-1", why
    with mesh.attack():
        assert await knock(address, stranger(), GET) == b""
        await mesh.audited(outcome="denied", action="connect", reason="PEER_DID_NOT_RETURN_A_CERTIFICATE")
        assert await knock(address, None, GET) == b""
        await mesh.audited(outcome="denied", action="connect", reason="HTTP_REQUEST")
    good = tmp_path / "good.pem"
    good.write_bytes(b"".join(inside.svid(EDITOR)))
    assert (await knock(address, stranger(good), GET)).startswith(b"HTTP/1.1 200")


async def test_a_csr_does_not_say_whose_it_is_and_a_join_token_is_good_once(mesh: SecuredMesh) -> None:
    api, trust = IdentityApi([mesh.api_address]), await mesh.trust()
    key = new_key()
    token = await mesh.api.join_token("visitor", "visitor-1", {})
    csr = signing_request(key, parse_spiffe_id(VAULT))
    with mesh.attack(), pytest.raises(Denied, match="is for"):
        await api.enrol(csr, attestor="join-token", evidence=token, instance="visitor-1", trust=trust)
    await mesh.audited(outcome="denied", action="issue svid", reason=f"is for '{VAULT}'")
    with mesh.attack(), pytest.raises(Denied, match="is for"):
        await api.renew(csr, credentials=mesh.credentials("editor-1"), trust=trust)
    await mesh.audited(outcome="denied", action="renew svid", who=EDITOR, reason=f"is for '{VAULT}'")

    token = await mesh.api.join_token("visitor", "visitor-1", {})
    enrolled = await api.enrol(
        signing_request(key, None), attestor="join-token", evidence=token, instance="visitor-1", trust=trust
    )
    assert str(enrolled.svid.id) == "spiffe://weft.local/agent/visitor/visitor-1"
    with mesh.attack(), pytest.raises(Unauthenticated, match="used before"):
        await api.enrol(
            signing_request(key, None),
            attestor="join-token",
            evidence=token,
            instance="visitor-1",
            trust=trust,
        )
    denial = await mesh.audited(outcome="denied", action="issue svid", reason="used before")
    assert token not in str(denial)


async def test_a_sidecar_gets_no_other_s_configuration(mesh: SecuredMesh) -> None:
    pem = mesh.credentials("editor-1").read_bytes()
    roots = (await mesh.trust()).own.pem
    credentials = grpc.ssl_channel_credentials(roots, pem, pem)
    vault, editor = await mesh.node("vault"), await mesh.node("editor")
    with mesh.attack():
        async with ads_stream(mesh.local.state.xds_address, credentials) as client:
            await client.say(CLUSTER, vault)
            code, details = await client.end()
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert "its own only" in details
        await mesh.audited(outcome="denied", who=EDITOR, target="sidecar/vault.vault-1")
    async with ads_stream(mesh.local.state.xds_address, credentials) as client:
        await client.say(CLUSTER, editor)
        assert (await client.hear()).resources


async def test_an_agent_registers_itself_and_nobody_else(mesh: SecuredMesh) -> None:
    stolen = Instance("vault-1", "vault", "127.0.0.1:9", Status.HEALTHY)
    before = await mesh.inbound("vault")
    async with mesh.nats(mesh.credentials("editor-1"), parse_spiffe_id(EDITOR)) as store:
        registry = await Registry.open(store)
        with pytest.raises(Denied):
            await registry.bucket.put("vault.vault-1", stolen)
        with pytest.raises(Denied):
            await registry.bucket.delete("vault.vault-1")
    assert await mesh.inbound("vault") == before


async def test_an_identity_cannot_be_claimed_by_a_header(mesh: SecuredMesh, tmp_path: Path) -> None:
    forged = {
        "x-weft-caller": VAULT,
        "X_Weft_Caller": VAULT,
        "x-forwarded-client-cert": f"URI={VAULT}",
        "x-envoy-peer-metadata": "me",
    }
    request = post("headers", **forged)
    editor = tmp_path / "editor.pem"
    editor.write_bytes(b"".join((await mesh.insider()).svid(EDITOR)))
    ways = ((mesh.proxy("editor"), None), (await mesh.inbound("vault"), stranger(editor)))
    for address, context in ways:
        answer = await knock(address, context, request)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        seen = json.loads(answer.partition(b"\r\n\r\n")[2])["result"]
        assert seen["x-weft-caller"] == EDITOR
        assert VAULT not in str(seen)
    async with mesh.client_of("intern") as intern:
        # Not even by having another agent call.
        told = await intern.request("editor", "relay", to="vault", headers={"x-weft-caller": VAULT})
    assert told == EDITOR


async def test_no_request_hides_within_another_and_none_is_oversized(
    mesh: SecuredMesh, tmp_path: Path
) -> None:
    smuggled = b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\n\r\n"
    head = b"POST /rpc HTTP/1.1\r\nhost: vault.mesh\r\n"
    editor = tmp_path / "editor.pem"
    editor.write_bytes(b"".join((await mesh.insider()).svid(EDITOR)))
    for address, context in (
        (mesh.proxy("editor"), None),
        (await mesh.inbound("vault"), stranger(editor)),
    ):
        answer = await knock(address, context, head + smuggled)
        assert answer.startswith(b"HTTP/1.1 400"), answer
        assert answer.count(b"HTTP/1.1 ") == 1
        oversized = head + b"x-long: " + b"a" * 100_000 + b"\r\n\r\n"
        assert (await knock(address, context, oversized)).startswith(b"HTTP/1.1 431")


TRICKS = (
    "/rpc/", "//rpc", "/./rpc", "/x/../rpc", "/%72pc", "/RPC", "/rpc;x=1", "/rpc%2f", "/x%2f..%2frpc",
    "/%2e/rpc", "/x/%2e%2e/rpc", "/rpc?x", "/rpc#x", "/x\\..\\rpc", "/rpc%00", "http://vault.mesh//rpc",
)  # fmt: skip


async def test_no_way_of_writing_a_path_gets_around_a_policy(mesh: SecuredMesh) -> None:
    proxy = mesh.proxy("editor")
    assert (await knock(proxy, None, post("headers"))).startswith(b"HTTP/1.1 200")
    async with mesh.policy("no-rpc", "effect: deny, to: [{type: vault}], rules: [{paths: [/rpc]}]"):
        await mesh.denies("editor", "vault")
        with mesh.attack():
            for path in TRICKS:
                answer = await knock(proxy, None, post("headers", path))
                assert answer.startswith(b"HTTP/1.1 4"), path
            await mesh.audited(outcome="denied", who=EDITOR, target="vault POST /rpc", policy="no-rpc")
        assert (await knock(proxy, None, GET)).startswith(b"HTTP/1.1 200")
    await mesh.allows("editor", "vault")


async def test_a_policy_denies_until_it_is_deleted_and_its_trial_only_reports(mesh: SecuredMesh) -> None:
    caller = "effect: deny, from: [{type: editor}], to: [{type: vault}]"
    async with mesh.policy("no-editors", caller):
        with mesh.attack():
            error = await mesh.denies("editor", "vault")
            assert error.status == 403
            assert "'no-editors'" in error.detail
            assert EDITOR in error.detail
            denial = await mesh.audited(outcome="denied", action="call", who=EDITOR)
        assert (denial["policy"], denial["target"]) == ("no-editors", "vault POST /rpc")
        told = mesh.weft.run("can", "editor", "call", "vault")
        assert told.returncode == 1
        assert "no-editors" in told.stdout
        shown = await mesh.cli("audit")
        assert any(EDITOR in line and "no-editors" in line for line in shown.splitlines())
        await mesh.allows("intern", "vault")
    await mesh.allows("editor", "vault")
    async with mesh.policy("no-editors", f"mode: dryRun, {caller}"):
        with mesh.attack():

            async def reported() -> bool:
                await mesh.allows("editor", "vault")
                return any(each["outcome"] == "would-be-denied" for each in await mesh.recent())

            await eventually(reported, lambda: "the trial reports nothing")
            trial = await mesh.audited(outcome="would-be-denied", who=EDITOR)
        assert trial["policy"] == "no-editors"


async def test_by_default_nothing_is_allowed_where_a_policy_says_so(mesh: SecuredMesh) -> None:
    await mesh.allows("intern", "editor")
    allowed = "effect: allow, from: [{type: editor}], to: [{type: vault}]"
    async with mesh.policy("editors", allowed), mesh.policy("nothing", "default: deny"):
        with mesh.attack():
            assert "'nothing'" in (await mesh.denies("intern", "vault")).detail
            denial = await mesh.audited(outcome="denied", action="call", who="agent/intern/intern-1")
        assert "the default is to deny" in denial["reason"]
        for caller, callee in (("intern", "editor"), ("vault", "editor"), ("editor", "intern")):
            await mesh.denies(caller, callee)
            assert mesh.weft.run("can", caller, "call", callee).returncode == 1
        assert "allowed" in await mesh.cli("can", "editor", "call", "vault")
        await mesh.allows("editor", "vault")
    await mesh.allows("intern", "vault")


async def test_a_revoked_identity_is_shut_out_everywhere_until_it_is_restored(mesh: SecuredMesh) -> None:
    intern = "spiffe://weft.local/agent/intern/intern-1"
    await mesh.allows("intern", "vault")
    with mesh.attack():
        await mesh.cli("identity", "revoke", intern, "--reason", "its laptop is gone")
        assert "revoked" in (await mesh.denies("intern", "vault")).detail
        await mesh.audited(outcome="done", action="revoke identity", who="operator/local", target=intern)
        await mesh.audited(outcome="denied", action="call", who=intern, policy="revoked")
        await mesh.audited(outcome="denied", action="get configuration", who=intern, reason="revoked")
        await mesh.audited(outcome="denied", action="connect", target="nats", reason=intern)
    await mesh.cli("identity", "restore", intern)
    await mesh.allows("intern", "vault")
    await mesh.becomes("intern", "intern-1", "healthy")


async def test_an_operator_may_do_what_the_token_is_for(mesh: SecuredMesh, tmp_path: Path) -> None:
    token = (await mesh.cli("token", "create", "eve", "--scope", "viewer", "--expires", "1h")).strip()
    file = tmp_path / "token"
    file.touch(mode=0o600)
    file.write_text(token)
    manifest = mesh.weft.write("policy.yaml", access_policy("mine", "default: allow"))
    assert "vault-1" in await mesh.cli("agents", "--token-file", str(file))
    with mesh.attack():
        done = mesh.weft.run("apply", "-f", str(manifest), "--token-file", str(file))
        assert done.returncode != 0
        assert "scope operator" in done.stderr
        denial = await mesh.audited(outcome="denied", who="operator/eve", target="POST /v1/resources")
    assert token not in str(denial)
    await mesh.cli("token", "revoke", "eve")
    done = mesh.weft.run("agents", "--token-file", str(file))
    assert done.returncode != 0
    assert token not in done.stderr


async def test_a_secret_reaches_the_host_it_is_for_and_is_seen_nowhere_else(mesh: SecuredMesh) -> None:
    value = f"sk-{secrets.token_hex(16)}"
    async with OutsideHost().serving(mesh.weft.directory) as host:
        manifest = mesh.weft.write("secret.yaml", PROVIDER.format(port=host.port))
        mesh.weft.environ["PROVIDER_KEY"] = value
        try:
            said = await mesh.cli("apply", "-f", str(manifest))
        finally:
            del mesh.weft.environ["PROVIDER_KEY"]
        request = b"GET /v1/models HTTP/1.1\r\nhost: llm.example\r\nconnection: close\r\n\r\n"

        async def arrived() -> bool:
            await knock(mesh.proxy("editor"), None, request)
            return bool(host.requests) and f"Bearer {value}" in host.requests[-1]

        await eventually(arrived, lambda: str(host.requests))
        seen = len(host.requests)
        await knock(mesh.proxy("vault"), None, request)
        assert not any(value in each for each in host.requests[seen:]), "vault has no right to it"
        said += await mesh.cli("get", "secrets", "-o", "yaml")
        said += await mesh.cli("get", "secrets", "-o", "json") + await mesh.cli("audit", "-o", "json")
        for name in ("editor-1", "vault-1", "door"):
            said += await mesh.config_dump(name)
        await mesh.cli("delete", "secret", "provider")
    assert "provider" in said
    assert holding(mesh, "apiKey"), "where NATS keeps it"
    for text in (value, base64.b64encode(value.encode()).decode()[:-4]):
        assert text not in said
        assert holding(mesh, text) == []
        assert [each for each in mesh.family() if text in str((each.cmdline(), each.environ()))] == []


def holding(mesh: SecuredMesh, text: str) -> list[Path]:
    """The files of the mesh that hold `text`."""
    return [each for each in mesh.files() if text.encode() in each.read_bytes()]


async def test_no_token_and_no_key_is_logged_or_shown_to_other_users(mesh: SecuredMesh) -> None:
    token = (mesh.home / "token").read_text().strip()
    for each in mesh.family():
        assert token not in " ".join(each.cmdline())
        assert "weft_join_" not in " ".join(each.cmdline())
    for file in (mesh.home / "logs").iterdir():
        text = file.read_text(errors="replace")
        assert token not in text
        assert "weft_join_" not in text
        assert "PRIVATE KEY" not in text
    for file in mesh.files():
        if b"PRIVATE KEY" in file.read_bytes():
            assert file.stat().st_mode & 0o077 == 0, file


async def test_another_machine_reaches_no_agent_around_its_sidecar(mesh: SecuredMesh) -> None:
    sockets = [each for process in mesh.family() for each in process.net_connections("inet")]
    listening = [each.laddr for each in sockets if each.status == psutil.CONN_LISTEN]
    ports = {each.port for each in listening}
    assert int(mesh.surroundings("vault")["PORT"]) in ports
    assert (await mesh.inbound("vault")).port in ports
    # On any machine: nothing of it listens at an address that others could use.
    assert {each.ip.removeprefix("::ffff:") for each in listening} == {"127.0.0.1"}
    with other_machine() as machine, socket.create_server((machine.neighbour, 0)) as control:
        way = control.getsockname()[1]
        assert await machine.reaches([way, *ports]) == [way]
