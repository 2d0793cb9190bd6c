"""Agents without a sidecar (ExternalAgent), called and guarded by the real Envoy of their callers."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import httpx
import pytest
import pytest_asyncio
from tests.outside import HOST, LIMIT, Caller, OutsideHost, caller
from tests.pki import Pki

from weft.aio.poll import until
from weft.aio.ports import reserve_port
from weft.controlplane.sealing import Sealer
from weft.controlplane.secrets import Secrets
from weft.model.access import Action
from weft.model.agent import Instance, Status
from weft.model.audit import Outcome
from weft.model.decision import AccessRequest, AccessTarget, RpcCall, TargetKind, access_policies, decide
from weft.model.manifest import parse_manifest
from weft.model.spiffe import DEFAULT_TRUST_DOMAIN, agent_id

EDITOR = agent_id(DEFAULT_TRUST_DOMAIN, "editor", "c-1")
CRM = AccessTarget(TargetKind.AGENT, "crm", "2", frozenset({"look-up"}))


def resource(kind: str, name: str, spec: str) -> str:
    return f"apiVersion: weft.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n"


def external(*hosts: OutsideHost, at: str = HOST, name: str = "crm", more: str = "") -> str:
    endpoints = ", ".join(f'"{at}:{each.port}"' for each in hosts)
    return resource("ExternalAgent", name, f"endpoints: [{endpoints}], version: '2'{more}")


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def host(tmp_path: Path) -> AsyncIterator[OutsideHost]:
    async with OutsideHost().serving(tmp_path) as serving:
        yield serving


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sidecar() -> AsyncIterator[Caller]:
    async with caller("editor", Secrets(Sealer([os.urandom(32)]))) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def editor(sidecar: Caller) -> AsyncIterator[Caller]:
    """The sidecar of an agent of that type, to which nothing is declared yet."""
    yield sidecar
    await sidecar.forget()


async def test_calls_are_spread_over_all_addresses_in_plain_text(
    editor: Caller, host: OutsideHost, tmp_path: Path
) -> None:
    async with OutsideHost().serving(tmp_path) as other:
        await editor.declare(external(host, other))
        for _ in range(4):
            assert (await editor.http.get("http://crm.mesh/customers?q=a")).text == "outside"
        assert (len(host.requests), len(other.requests)) == (2, 2)
    assert host.last[""] == "GET /customers?q=a HTTP/1.1"
    assert host.last["host"] == "crm.mesh"


async def test_an_address_that_nothing_listens_at_is_passed_over(editor: Caller, host: OutsideHost) -> None:
    with reserve_port(HOST) as nobody:
        await editor.declare(
            resource("ExternalAgent", "crm", f'endpoints: ["{HOST}:{host.port}", "{HOST}:{nobody.port}"]')
        )
        for _ in range(6):
            assert (await editor.http.post("http://crm.mesh/", content=b"once")).text == "outside"


async def test_addresses_come_and_go_without_a_new_cluster(
    editor: Caller, host: OutsideHost, tmp_path: Path
) -> None:
    await editor.declare(external(host))
    await editor.http.get("http://crm.mesh/")
    async with OutsideHost().serving(tmp_path) as other:
        before = await _clusters_changed(editor)
        await editor.declare(external(other))
        await editor.http.get("http://crm.mesh/")
        assert (len(host.requests), len(other.requests)) == (1, 1)
        assert await _clusters_changed(editor) == before


async def _clusters_changed(editor: Caller) -> str:
    counters = await editor.admin.get(
        "http://envoy/stats", params={"filter": r"cluster_manager\.cluster_(added|modified|removed)"}
    )
    return counters.text


async def test_what_is_called_by_a_name_hears_that_name(editor: Caller, host: OutsideHost) -> None:
    await editor.declare(external(host, at="localhost"))
    assert (await editor.http.get("http://crm.mesh/")).text == "outside"
    assert host.last["host"] == f"localhost:{host.port}"


async def test_capabilities_lead_to_all_that_offer_them(
    editor: Caller, host: OutsideHost, tmp_path: Path
) -> None:
    async with OutsideHost().serving(tmp_path) as other:
        offering = ", capabilities: [look-up]"
        await editor.declare(external(host, more=offering) + external(other, name="erp", more=offering))
        for _ in range(4):
            assert (await editor.http.get("http://look-up.cap.mesh/")).text == "outside"
        assert (len(host.requests), len(other.requests)) == (2, 2)
    single = await editor.http.get("http://crm-1.crm.mesh/")
    assert single.headers["x-weft-error"] == "no-such-agent"


async def test_routes_and_policies_of_traffic_hold_for_it(
    editor: Caller, host: OutsideHost, tmp_path: Path
) -> None:
    async with OutsideHost().serving(tmp_path) as other:
        rules = (
            "- {match: [{path: {prefix: /broken}}], fault: {abort: {status: 418}}}\n"
            "- {match: [{path: {prefix: /next}}], split: [{type: erp, weight: 1}]}\n"
            "- {requestHeaders: {set: {x-tenant: acme}}}\n"
        )
        route = resource("Route", "crm", "")
        route = route.replace("spec: {}", f"spec:\n  destination: {{type: crm}}\n  rules:\n  {rules}")
        route = route.replace("\n- ", "\n  - ")
        await editor.declare(external(host) + external(other, name="erp") + route)
        assert (await editor.http.get("http://crm.mesh/broken")).status_code == 418
        await editor.http.get("http://crm.mesh/next")
        assert (len(host.requests), len(other.requests)) == (0, 1)
        await editor.http.get("http://crm.mesh/usual")
        assert host.last["x-tenant"] == "acme"


async def test_agents_with_sidecars_get_the_calls_of_their_type_and_none_goes_in_plain_text(
    editor: Caller, host: OutsideHost
) -> None:
    await editor.declare(external(host, more=", capabilities: [look-up]"))
    assert (await editor.http.get("http://crm.mesh/")).status_code == httpx.codes.OK
    greetings: list[bytes] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        greetings.append(await reader.read(1))
        writer.close()

    async with await asyncio.start_server(hear, HOST, 0) as beside:
        editor.instances = [_instance("crm", beside.sockets[0].getsockname()[1], {"look-up"})]
        await editor.declare("")
        for name in ("crm.mesh", "look-up.cap.mesh"):
            answer = await editor.http.get(f"http://{name}/")
            assert answer.headers["x-weft-error"] == "no-healthy-agent"
        assert set(greetings) == {b"\x16"}, "a handshake of TLS, and nothing else"
    assert len(host.requests) == 1
    editor.instances = []
    await editor.declare("")
    assert (await editor.http.get("http://crm.mesh/")).status_code == httpx.codes.OK


def _instance(agent_type: str, port: int, capabilities: set[str]) -> Instance:
    return Instance(
        id=f"{agent_type}-1",
        type=agent_type,
        endpoint=f"{HOST}:{port}",
        status=Status.HEALTHY,
        capabilities=frozenset(capabilities),
    )


POLICIES = {
    "nobody may delete": resource(
        "AccessPolicy", "keep", "effect: deny, to: [{type: crm}], rules: [{methods: [DELETE]}]"
    ),
    "another may not call": resource(
        "AccessPolicy", "not-writers", "effect: deny, from: [{type: writer}], to: [{type: crm}]"
    ),
    "some paths are closed, by capability": resource(
        "AccessPolicy", "admin", "effect: deny, to: [{capability: look-up}], rules: [{paths: ['/admin/*']}]"
    ),
    "nothing by default": resource("AccessPolicy", "closed", "default: deny"),
    "reading only": resource("AccessPolicy", "closed", "default: deny")
    + resource(
        "AccessPolicy",
        "reading",
        "effect: allow, from: [{type: editor}], to: [{type: crm}], "
        "rules: [{methods: [GET], paths: ['/customers*']}]",
    ),
    "somebody else may": resource("AccessPolicy", "closed", "default: deny")
    + resource("AccessPolicy", "writers", "effect: allow, from: [{type: writer}], to: [{type: crm}]"),
    "to another version": resource("AccessPolicy", "old", "effect: deny, to: [{type: crm, version: '1'}]"),
    "on trial": resource("AccessPolicy", "trial", "effect: deny, mode: dryRun, to: [{type: crm}]"),
    "events only": resource("AccessPolicy", "quiet", "effect: deny, rules: [{actions: [publish]}]"),
}

REQUESTS = [
    ("GET", "/customers"),
    ("GET", "/customers/7?x=/admin/"),
    ("DELETE", "/customers/7"),
    ("POST", "/customers"),
    ("GET", "/admin"),
    ("GET", "/ADMIN/users"),
    ("GET", "//admin/users"),
    ("GET", "/customers/%2e%2e/admin/users"),
]


@pytest.mark.parametrize("policies", POLICIES.values(), ids=POLICIES)
async def test_what_policies_deny_is_not_sent(editor: Caller, host: OutsideHost, policies: str) -> None:
    await editor.declare(external(host, more=", capabilities: [look-up]") + policies)
    declared = access_policies(parse_manifest(policies))
    for method, path in REQUESTS:
        request = AccessRequest(Action.CALL, CRM, method, path.partition("?")[0], RpcCall())
        decision = decide(declared, EDITOR, request)
        sent = len(host.requests)
        for name in ("crm.mesh", "look-up.cap.mesh"):
            answer = await editor.http.request(method, f"http://{name}{path}")
            assert answer.is_success is decision.allowed, (method, path, decision)
            if not decision.allowed:
                assert answer.headers["x-weft-error"] == "denied"
                assert answer.headers["x-weft-policy"].removeprefix("accesspolicy/") == decision.policy
        assert len(host.requests) - sent == (2 if decision.allowed else 0)


async def test_a_denial_names_the_policy_and_is_written_down(editor: Caller, host: OutsideHost) -> None:
    await editor.declare(external(host) + POLICIES["nobody may delete"])
    answer = await editor.http.delete("http://crm.mesh/customers/told")
    assert answer.status_code == httpx.codes.FORBIDDEN
    assert answer.headers["x-weft-policy"] == "accesspolicy/keep"
    assert answer.json()["detail"] == (
        "this agent may not make this call to 'crm.mesh': AccessPolicy 'keep' denies it; "
        "see why with 'weft can'"
    )

    async def told() -> bool:
        found = [each for each in await editor.denials(1) if each.target.endswith("/told")]
        assert all((each.who, each.action, each.policy) == ("me", "call", "keep") for each in found)
        assert all(each.target == "crm.mesh DELETE /customers/told" for each in found)
        assert all(each.outcome is Outcome.DENIED for each in found)
        return bool(found)

    async with asyncio.timeout(LIMIT):
        await until(told)
    await editor.declare("", without=["accesspolicy.keep"])
    assert (await editor.http.delete("http://crm.mesh/customers/7")).status_code == httpx.codes.OK


async def test_what_comes_through_a_tunnel_is_let_pass_and_denied_as_else(
    editor: Caller, host: OutsideHost
) -> None:
    """Node's fetch opens one for `http://` too."""
    await editor.declare(external(host) + POLICIES["reading only"])
    connect = "CONNECT crm.mesh:80 HTTP/1.1\r\nhost: crm.mesh:80\r\n\r\n"
    for path, answer in (("/customers", "HTTP/1.1 200"), ("/orders", "HTTP/1.1 403")):
        inner = f"GET {path} HTTP/1.1\r\nhost: crm.mesh\r\nconnection: close\r\n\r\n"
        opened, _, answered = (await editor.raw((connect + inner).encode())).partition("\r\n\r\n")
        assert opened.startswith("HTTP/1.1 200")
        assert answered.startswith(answer)
    assert [each.partition(" HTTP")[0] for each in host.requests] == ["GET /customers"]


async def test_a_call_with_a_deadline_is_denied_as_any_other(editor: Caller, host: OutsideHost) -> None:
    await editor.declare(external(host) + POLICIES["nobody may delete"])
    deadline = {"x-weft-deadline": str(round((time.time() + LIMIT) * 1000))}
    url = "http://crm.mesh/customers/7"
    assert (await editor.http.get(url, headers=deadline)).status_code == httpx.codes.OK
    denied = await editor.http.delete(url, headers=deadline)
    assert denied.headers["x-weft-policy"] == "accesspolicy/keep"
    assert len(host.requests) == 1


@pytest.mark.parametrize("match", ["mcp: {tools: [wipe]}", "a2a: {methods: [SendMessage]}"])
async def test_rules_about_bodies_deny_what_they_might_and_allow_nothing(
    editor: Caller, host: OutsideHost, match: str
) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    denying = resource("AccessPolicy", "no-wipe", f"effect: deny, to: [{{type: crm}}], rules: [{{{match}}}]")
    await editor.declare(external(host) + denying)
    assert (await editor.http.get("http://crm.mesh/mcp")).status_code == httpx.codes.OK
    assert (await editor.http.post("http://crm.mesh/mcp", json=body)).status_code == httpx.codes.FORBIDDEN
    allowing = resource(
        "AccessPolicy", "no-wipe", f"effect: allow, to: [{{type: crm}}], rules: [{{paths: [/mcp], {match}}}]"
    )
    await editor.declare(allowing + resource("AccessPolicy", "closed", "default: deny"))
    assert (await editor.http.post("http://crm.mesh/mcp", json=body)).status_code == httpx.codes.FORBIDDEN


@pytest.mark.parametrize("part", ["split: [{type: crm, weight: 1}]", "mirror: {type: crm}"])
async def test_a_route_of_another_type_is_no_way_around(
    editor: Caller, host: OutsideHost, tmp_path: Path, part: str
) -> None:
    closed = resource("AccessPolicy", "closed-crm", "effect: deny, to: [{type: crm}]")
    route = resource("Route", "erp", f"destination: {{type: erp}}, rules: [{{{part}}}]")
    async with OutsideHost().serving(tmp_path) as other:
        await editor.declare(external(host) + external(other, name="erp") + route + closed)
        answer = await editor.http.get("http://erp.mesh/")
        assert answer.headers["x-weft-policy"] == "accesspolicy/closed-crm"
        assert (len(host.requests), len(other.requests)) == (0, 0)


async def test_whose_identity_is_revoked_calls_nobody(editor: Caller, host: OutsideHost) -> None:
    resources = parse_manifest(external(host))
    editor.snapshots.update([], resources)
    await editor.synced()
    assert (await editor.http.get("http://crm.mesh/")).status_code == httpx.codes.OK
    editor.snapshots.update([], resources, revoked=[str(EDITOR)])
    await editor.synced()
    assert (await editor.http.get("http://crm.mesh/")).headers["x-weft-policy"] == "revoked"


async def test_http2_is_spoken_where_that_is_declared(editor: Caller) -> None:
    async with _h2c_server() as (port, seen):
        await editor.declare(
            resource("ExternalAgent", "grpc", f'endpoints: ["{HOST}:{port}"], protocol: h2c')
        )
        assert (await editor.http.post("http://grpc.mesh/pkg.Service/Do", content=b"x")).status_code == 200
        assert seen == [("POST", "/pkg.Service/Do")]


@asynccontextmanager
async def _h2c_server() -> AsyncIterator[tuple[int, list[tuple[str, str]]]]:
    """Answers every request of HTTP/2 without TLS; its port, and what it was asked for."""
    seen: list[tuple[str, str]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        while data := await reader.read(65536):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    told: dict[Any, Any] = dict(event.headers)
                    seen.append((told[b":method"].decode(), told[b":path"].decode()))
                    connection.send_headers(event.stream_id, [(":status", "200")], end_stream=True)
            writer.write(connection.data_to_send())
        writer.close()

    async with await asyncio.start_server(serve, HOST, 0) as server:
        yield server.sockets[0].getsockname()[1], seen


async def test_with_tls_only_servers_are_called_whose_names_are_vouched_for(tmp_path: Path) -> None:
    trusted = Pki("authority.example")
    roots = tmp_path / "roots.pem"
    roots.write_bytes(trusted.bundle().pem)
    async with AsyncExitStack() as stack:
        directories = [tmp_path / each for each in ("good", "other", "unknown")]
        for each in directories:
            each.mkdir()
        good, other, unknown = [
            await stack.enter_async_context(OutsideHost(pki, name).serving(directory))
            for pki, name, directory in zip(
                (trusted, trusted, Pki("authority.example")),
                ("localhost", "other.example", "localhost"),
                directories,
                strict=True,
            )
        ]
        secrets = Secrets(Sealer([os.urandom(32)]))
        editor = await stack.enter_async_context(caller("editor", secrets, roots=roots))
        for server, reached in ((good, True), (other, False), (unknown, False)):
            await editor.declare(external(server, at="localhost", more=", tls: server"))
            answer = await editor.http.get("http://crm.mesh/", timeout=LIMIT)
            assert (answer.status_code == httpx.codes.OK) is reached, answer.text
            assert len(server.requests) == int(reached)
        assert good.last["host"] == "localhost"
