"""Who the control plane's API lets in: real TLS, real certificates, real tokens."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from prometheus_client import CollectorRegistry
from tests.control_access import MemoryAudit
from tests.control_api import served
from tests.pki import Pki

from weft.aio.poll import until
from weft.aio.private_file import write_private
from weft.cli.exit_codes import ExitCode
from weft.cli.main import run
from weft.controlplane.api.access import control_access
from weft.controlplane.api.app import create_api
from weft.controlplane.api.context import ApiContext
from weft.controlplane.api.tls import MAX_HEAD_BYTES, ServerTls, server_tls
from weft.controlplane.sidecars import Sidecars
from weft.controlplane.tokens import Tokens
from weft.errors import Unavailable
from weft.identity.bundle import TrustBundles
from weft.identity.tls import client_context
from weft.local.control import ControlApi
from weft.model.audit import Outcome
from weft.model.operator import Scope, new_token
from weft.model.spiffe import agent_id, control_id, operator_id
from weft.registry.registry import Registry
from weft.registry.view import View
from weft.resources.store import Resources
from weft.resources.view import ResourceView
from weft.store.memory import MemoryStore

AGENT = agent_id("weft.local", "summarizer", "s-1")
CONTROL = control_id("weft.local", "control-1")

MANIFEST = """
apiVersion: weft.dev/v1alpha1
kind: Agent
metadata: {name: summarizer}
spec: {capabilities: [summarize]}
"""


@dataclass
class Api:
    """The API behind TLS, and what is behind it."""

    directory: Path
    pki: Pki
    log: MemoryAudit
    tokens: Tokens
    bundles: TrustBundles
    revoked: set[str] = field(default_factory=set)
    tls: ServerTls = field(init=False)
    port: int = field(init=False)

    def client(
        self,
        *,
        token: str | None = None,
        certificate: tuple[bytes, bytes] | None = None,
        roots: Pki | None = None,
    ) -> httpx.AsyncClient:
        credentials = None
        if certificate is not None:
            credentials = self.directory / "client.pem"
            credentials.write_bytes(b"".join(certificate))
        context = client_context((roots or self.pki).bundle().pem, credentials)
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return httpx.AsyncClient(
            base_url=f"https://127.0.0.1:{self.port}",
            verify=context,
            headers=headers,
            trust_env=False,
            timeout=30,
        )

    async def token(self, scope: Scope) -> str:
        return (await self.tokens.create(scope, scope, created_by="tests"))[0]

    def use(self, pki: Pki, *federated: Pki) -> None:
        """Serve with a certificate of `pki`, for its members."""
        self.pki = pki
        self.bundles = pki.bundles(*federated, revision=self.bundles.revision + 1)
        self.tls.use(*pki.svid(CONTROL), self.bundles)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    store, log, pki = MemoryStore(), MemoryAudit(), Pki()
    registry, resources = await Registry.open(store), await Resources.open(store)
    sidecars = await Sidecars.open(store)
    async with (
        View(registry) as view,
        ResourceView.follow(resources) as declared,
        Tokens.follow(store) as tokens,
    ):
        api = Api(tmp_path, pki, log, tokens, pki.bundles())
        access = control_access(
            tokens,
            log,
            bundles=lambda: api.bundles,
            observer="control-1",
            revoked=lambda spiffe_id: spiffe_id in api.revoked,
        )
        api.tls = server_tls(access.refuse_certificate)
        api.use(pki)
        app = create_api(ApiContext(view, resources, declared, sidecars, access), CollectorRegistry())
        async with served(app, api.tls) as api.port:
            yield api
    await store.close()


async def test_without_token_or_certificate_only_what_is_public_is_answered(api: Api) -> None:
    async with api.client() as nobody:
        assert (await nobody.get("/livez")).status_code == 200
        assert (await nobody.get("/readyz")).status_code == 200
        for path in ("/v1/agents", "/v1/resources", "/v1/sidecars", "/v1/audit", "/v1/tokens"):
            refused(await nobody.get(path), 401)
        for path in ("/metrics", "/docs", "/openapi.json"):
            refused(await nobody.get(path), 401)
        refused(await nobody.post("/v1/resources", json={"manifest": MANIFEST}), 401)
    record = api.log.records[-1]
    assert (record.who, record.action) == ("unauthenticated at 127.0.0.1", "call api")
    assert (record.target, record.outcome) == ("POST /v1/resources", Outcome.DENIED)
    assert record.observer == "control-1"


async def test_each_scope_may_do_what_it_is_for_and_no_more(api: Api) -> None:
    may: dict[str, list[int]] = {}
    for scope in Scope:
        async with api.client(token=await api.token(scope)) as client:
            answers = [
                await client.get("/v1/agents"),
                await client.get("/v1/audit"),
                await client.get("/openapi.json"),
                await client.post("/v1/resources", json={"manifest": MANIFEST}),
                await client.delete("/v1/resources/agent/summarizer"),
                await client.get("/v1/tokens"),
                await client.post("/v1/tokens", json={"name": f"by-{scope}", "scope": "viewer"}),
            ]
        may[scope] = [each.status_code for each in answers]
    assert may == {
        "viewer": [200, 200, 200, 403, 403, 403, 403],
        "operator": [200, 200, 200, 200, 204, 403, 403],
        "admin": [200, 200, 200, 200, 204, 200, 201],
    }
    denied = [each for each in api.log.records if each.outcome is Outcome.DENIED]
    assert denied[0].who == "operator/viewer"
    assert "needs a token of scope operator" in denied[0].reason


async def test_every_change_is_in_the_audit_with_who_did_it(api: Api) -> None:
    async with api.client(token=await api.token(Scope.ADMIN)) as admin:
        await admin.post("/v1/resources", json={"manifest": MANIFEST, "dryRun": True})
        await admin.post("/v1/resources", json={"manifest": MANIFEST})
        await admin.post("/v1/resources", json={"manifest": MANIFEST})
        await admin.delete("/v1/resources/agents/summarizer")
        token = (await admin.post("/v1/tokens", json={"name": "ci", "scope": "operator"})).json()["token"]
        await admin.delete("/v1/tokens/ci")
        audit = (await admin.get("/v1/audit")).json()["items"]
        last = (await admin.get("/v1/audit?limit=1")).json()["items"]
    assert [(each["action"], each["target"]) for each in audit] == [
        ("apply resource", "agent/summarizer"),
        ("delete resource", "agent/summarizer"),
        ("make token", "token/ci"),
        ("revoke token", "token/ci"),
    ]
    assert {(each["who"], each["outcome"]) for each in audit} == {("operator/admin", "done")}
    assert last == audit[-1:]
    assert token not in repr(api.log.records)


async def test_a_revoked_token_ends_what_its_holder_watches(api: Api) -> None:
    async with (
        api.client(token=await api.token(Scope.OPERATOR)) as client,
        client.stream("GET", "/v1/resources?watch=true") as watch,
        asyncio.timeout(60),
    ):
        lines = watch.aiter_lines()
        assert await anext(lines) == "event: synced"
        await api.tokens.revoke("operator")
        async with api.client(token=await api.token(Scope.ADMIN)) as admin:
            assert (await admin.post("/v1/resources", json={"manifest": MANIFEST})).status_code == 200
        assert not [line async for line in lines if line.startswith("event: put")]
        refused(await client.get("/v1/resources"), 401)


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer weft_x",
        "Basic YTpi",
        "Bearer a b",
        pytest.param(f"Bearer {new_token()}", id="unknown"),
        "weft_x",
        "Bearer \xff",
        "",
    ],
)
async def test_a_bad_token_is_refused_everywhere_whatever_certificate_comes_with_it(
    api: Api, header: str
) -> None:
    async with api.client(certificate=api.pki.svid(AGENT)) as client:
        headers = {b"authorization": header.encode("latin-1")}
        for path in ("/v1/agents", "/livez", "/nowhere"):
            answer = await client.get(path, headers=headers)
            refused(answer, 401)
            assert "weft_" not in answer.text


async def test_two_tokens_in_one_request_are_none(api: Api) -> None:
    token = await api.token(Scope.ADMIN)
    async with api.client() as client:
        twice = [("authorization", f"Bearer {token}"), ("authorization", f"Bearer {token}")]
        refused(await client.get("/v1/agents", headers=twice), 401)


async def test_processes_of_the_mesh_discover_agents_and_do_nothing_else(api: Api) -> None:
    for spiffe_id in (AGENT, CONTROL, operator_id("weft.local", "anna", "door")):
        async with api.client(certificate=api.pki.svid(spiffe_id)) as peer:
            assert (await peer.get("/v1/agents")).status_code == 200
            for path in ("/v1/resources", "/v1/tokens", "/v1/audit", "/v1/sidecars", "/metrics"):
                refused(await peer.get(path), 403)
            refused(await peer.post("/v1/resources", json={"manifest": MANIFEST}), 403)
    assert str(AGENT) in {each.who for each in api.log.records}


async def test_a_connection_does_not_outlive_its_certificate(api: Api) -> None:
    old, young = api.pki.svid(AGENT, not_before=-3600, lifetime=900), api.pki.svid(AGENT)
    async with api.client(certificate=old) as peer:
        answer = await peer.get("/v1/agents")
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    async with api.client(certificate=young) as peer:
        assert "connection" not in (await peer.get("/v1/agents")).headers


async def test_nobody_renews_an_identity_through_the_sidecar_that_holds_it(api: Api) -> None:
    async with api.client(certificate=api.pki.svid(AGENT)) as sidecar:
        itself = await sidecar.post("/v1/identity/renewal", json={"csr": "x"})
        assert itself.status_code == 503, "it may, but this control plane has no authority"
        passed_on = {"x-weft-destination": "control.mesh"}
        assert (await sidecar.get("/v1/agents", headers=passed_on)).status_code == 200
        refused(await sidecar.post("/v1/identity/renewal", json={"csr": "x"}, headers=passed_on), 403)


async def test_a_token_counts_before_a_certificate(api: Api) -> None:
    token = await api.token(Scope.VIEWER)
    async with api.client(token=token, certificate=api.pki.svid(AGENT)) as client:
        assert (await client.get("/v1/resources")).status_code == 200
    assert not api.log.records


async def test_a_certificate_that_is_no_good_identity_is_refused_with_the_reason(api: Api) -> None:
    foreign = Pki("other.example")
    api.use(api.pki, foreign)
    shown = {
        "two URI SANs": api.pki.svid(AGENT, extra_uris=["spiffe://weft.local/agent/editor/e-1"]),
        "no SPIFFE ID": api.pki.svid(""),
        "wrong trust domain": foreign.svid(agent_id("other.example", "summarizer", "s-1")),
        "unknown authority": foreign.svid(AGENT),
    }
    for reason, certificate in shown.items():
        async with api.client(certificate=certificate) as client:
            answer = await client.get("/v1/agents")
            refused(answer, 401)
            assert reason in answer.json()["detail"], reason
            assert reason in api.log.records[-1].reason


async def test_a_certificate_that_nobody_vouches_for_ends_the_handshake_and_is_in_the_audit(api: Api) -> None:
    shown = {
        "self-signed certificate": api.pki.svid(AGENT, self_signed=True),
        "certificate has expired": api.pki.svid(AGENT, not_before=-100, lifetime=-10),
        "certificate is not yet valid": api.pki.svid(AGENT, not_before=1000),
        "unable to get local issuer certificate": Pki().svid(AGENT),
    }
    for reason, certificate in shown.items():
        async with api.client(certificate=certificate) as client:
            with pytest.raises(httpx.TransportError):
                await client.get("/v1/agents")
        await noted(api.log, reason)
    assert {(each.action, each.outcome) for each in api.log.records} == {("connect", Outcome.DENIED)}


async def test_an_identity_that_is_taken_back_is_refused_on_open_connections_too(api: Api) -> None:
    async with api.client(certificate=api.pki.svid(AGENT)) as peer:
        assert (await peer.get("/v1/agents")).status_code == 200
        api.revoked.add(str(AGENT))
        refused(await peer.get("/v1/agents"), 401)


async def test_certificate_and_roots_are_exchanged_while_it_serves(api: Api) -> None:
    old, new = api.pki, Pki()
    async with api.client(certificate=old.svid(AGENT)) as before:
        assert (await before.get("/v1/agents")).status_code == 200
        api.use(new)
        async with api.client(certificate=new.svid(AGENT)) as after:
            assert (await after.get("/v1/agents")).status_code == 200
        assert (await before.get("/livez")).status_code == 401, "its root is trusted no more"
    async with api.client(roots=old) as stale:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await stale.get("/livez")


async def test_nothing_older_than_tls_1_3_and_nothing_in_plain_text_is_spoken(api: Api) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.load_verify_locations(cadata=api.pki.bundle().pem.decode())
    async with httpx.AsyncClient(verify=old, trust_env=False, timeout=30) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"https://127.0.0.1:{api.port}/livez")
        with pytest.raises(httpx.TransportError):
            await client.get(f"http://127.0.0.1:{api.port}/livez")


async def test_who_somebody_is_cannot_be_told_by_headers(api: Api) -> None:
    chain, _ = api.pki.svid(AGENT)
    forged = {
        "x-forwarded-client-cert": f"URI={AGENT};Cert={quote(chain.decode())}",
        "x-forwarded-for": "10.9.8.7",
        "x-spiffe-id": str(AGENT),
    }
    async with api.client() as nobody:
        refused(await nobody.get("/v1/agents", headers=forged), 401)
    assert api.log.records[-1].who == "unauthenticated at 127.0.0.1"


async def test_a_request_within_a_request_is_not_answered(api: Api) -> None:
    token = (await api.token(Scope.VIEWER)).encode()
    inner = b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"
    lengths = b"Transfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n" % (5 + len(inner))
    head = b"POST /v1/diff HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n" % token
    answer = await spoken(api, head + lengths + inner)
    assert answer.startswith(b"HTTP/1.1 4")
    assert answer.count(b"HTTP/1.1 ") == 1


async def test_who_connects_and_says_nothing_is_not_waited_for(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weft.controlplane.api.tls.HEAD_TIMEOUT", 0.05)
    assert await spoken(api, b"") == b""
    assert await spoken(api, b"GET /livez HTTP/1.1\r\nHost:") == b""


async def test_who_never_sends_the_body_it_promised_is_not_waited_for(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weft.controlplane.api.tls.BODY_TIMEOUT", 0.05)
    head = b"POST /v1/identity HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n{"
    assert await spoken(api, head) == b""


@pytest.mark.parametrize("lines", [1, 200])
async def test_oversized_headers_are_refused_and_the_connection_closed(api: Api, lines: int) -> None:
    value = b"x" * (2 * MAX_HEAD_BYTES // lines)
    headers = b"".join(b"x-%d: %s\r\n" % (number, value) for number in range(lines))
    answer = await spoken(api, b"GET /livez HTTP/1.1\r\nHost: x\r\n%s\r\n" % headers)
    assert answer.startswith(b"HTTP/1.1 400")


async def test_a_flood_of_denials_is_counted_rather_than_written_down(api: Api) -> None:
    async with api.client() as nobody:
        for _ in range(5):
            await asyncio.gather(*(nobody.get("/v1/agents") for _ in range(100)))
    assert 100 <= len(api.log.records) < 400


async def weft(api: Api, *arguments: str, token: str | None) -> int:
    """The exit code of a `weft` command that is told of the API by the environment."""
    roots, file = api.directory / "roots.pem", api.directory / "my-token"
    roots.write_bytes(api.pki.bundle().pem)
    environ = {"WEFT_API": f"https://127.0.0.1:{api.port}", "WEFT_CA_FILE": str(roots)}
    if token is not None:
        write_private(file, f"{token}\n".encode())
        environ["WEFT_TOKEN_FILE"] = str(file)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WEFT_TOKEN", "WEFT_TOKEN_FILE"):
            patch.delenv(name, raising=False)
        for name, value in environ.items():
            patch.setenv(name, value)
        return await asyncio.to_thread(run, arguments)


async def test_the_command_line_makes_lists_and_revokes_tokens(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    admin = await api.token(Scope.ADMIN)
    create = ("token", "create", "ci", "--scope", "operator", "--expires", "30d")
    assert await weft(api, *create, token=admin) == ExitCode.OK
    token = capsys.readouterr().out.strip()
    assert api.tokens.check(token).scope is Scope.OPERATOR
    assert await weft(api, "token", "list", token=admin) == ExitCode.OK
    listed = capsys.readouterr().out
    assert "ci" in listed
    assert "in 29d" in listed
    assert token not in listed
    assert await weft(api, "get", "agents", token=token) == ExitCode.OK
    assert await weft(api, "token", "revoke", "ci", token=admin) == ExitCode.OK
    assert await weft(api, "get", "agents", token=token) == ExitCode.NOT_ALLOWED
    assert await weft(api, "audit", token=admin) == ExitCode.OK
    said = capsys.readouterr()
    assert "operator/admin" in said.out
    assert "revoke token" in said.out
    assert "unauthenticated at 127.0.0.1" in said.out
    assert token not in said.out + said.err


async def test_the_command_line_says_what_a_token_lacks(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    viewer = await api.token(Scope.VIEWER)
    assert await weft(api, "token", "create", "x", token=viewer) == ExitCode.NOT_ALLOWED
    assert "needs a token of scope admin: token 'viewer' has scope viewer" in capsys.readouterr().err
    assert await weft(api, "agents", token=None) == ExitCode.NOT_ALLOWED
    assert "WEFT_TOKEN_FILE" in capsys.readouterr().err
    plain = ("agents", "--api", f"http://127.0.0.1:{api.port}")
    assert await weft(api, *plain, token=viewer) == ExitCode.USAGE
    assert "plain text" in capsys.readouterr().err


async def test_a_token_that_others_can_read_is_not_used(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    file = api.directory / "shared"
    file.write_text(await api.token(Scope.VIEWER))
    file.chmod(0o640)
    assert await weft(api, "agents", "--token-file", str(file), token=None) == ExitCode.USAGE
    assert f"chmod 600 {file}" in capsys.readouterr().err
    file.chmod(0o600)
    file.write_text("not a token at all")
    assert await weft(api, "agents", "--token-file", str(file), token=None) == ExitCode.USAGE
    assert "not a token at all" not in capsys.readouterr().err


async def test_the_client_follows_the_roots_in_a_file(api: Api) -> None:
    roots = api.directory / "bundle.pem"
    token = await api.token(Scope.VIEWER)
    url = f"https://127.0.0.1:{api.port}"
    async with ControlApi(url, token=token, roots=roots) as client:
        assert not await client.ready(), "there are no roots yet"
        write_private(roots, api.pki.bundle().pem)
        assert await client.ready()
        api.use(Pki())
    async with ControlApi(url, token=token, roots=roots) as client:
        with pytest.raises(Unavailable, match="--ca-file"):
            await client.agents(())
        write_private(roots, api.pki.bundle().pem)
        assert await client.agents(()) == []


async def spoken(api: Api, request: bytes) -> bytes:
    """All that is answered to the bytes of a request, until the server closes the connection."""
    async with asyncio.timeout(60):
        context = client_context(api.pki.bundle().pem)
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port, ssl=context)
        writer.write(request)
        answer = await reader.read()
        writer.close()
    return answer


async def noted(log: MemoryAudit, reason: str) -> None:
    async def is_noted() -> bool:
        return any(reason in each.reason for each in log.records)

    async with asyncio.timeout(60):
        await until(is_noted)


def refused(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["x-weft-error"] == {401: "unauthenticated", 403: "denied"}[status]
