"""Sidecar to sidecar, with the real Envoy: who is let in, who is believed, and how identities change."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import httpx
import pytest
from cryptography import x509
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions
from tests.envoys import LIMIT, EchoAgent, StaticEnvoy, running_envoy
from tests.pki import DAY, Pki
from tests.sds import write_secrets

from weft.aio.poll import until
from weft.aio.ports import reserve_port
from weft.controlplane.snapshots import Snapshots
from weft.controlplane.translate.access import Access, called
from weft.controlplane.translate.inbound_routes import inbound_routes
from weft.controlplane.translate.tls import NOT_ONE_IDENTITY
from weft.controlplane.xds.snapshot import Snapshot, encode
from weft.identity.bundle import TrustBundle, TrustBundles
from weft.model.access import AccessPolicySpec
from weft.model.agent import Instance, Status
from weft.model.audit import AuditRecord
from weft.model.node import Address, Inbound, Node
from weft.sidecar.denials import parse_denial
from weft.sidecar.sds import write_identity, write_trust

HOST = "127.0.0.1"
EDITOR = "spiffe://weft.local/agent/editor/e-1"
SUMMARIZER = "spiffe://weft.local/agent/summarizer/s-1"
BOSS = "spiffe://weft.local/agent/boss/b-1"
THEIR_EDITOR = "spiffe://partner.example/agent/editor/e-1"

OURS = Pki()
PARTNER = Pki("partner.example")

ChainAndKey = tuple[bytes, bytes]

POLICIES = {
    name: AccessPolicySpec.model_validate({"effect": "deny", "rules": [{"paths": [path]}], **mode})
    for name, path, mode in (("no-secrets", "/secret", {}), ("on-trial", "/trial", {"mode": "dryRun"}))
}


class Pair:
    """Two sidecars: an editor calls a summarizer."""

    def __init__(self, agent: EchoAgent, outbound: int, inbound: int) -> None:
        self.agent = agent
        self.inbound = inbound
        self.url = f"http://{HOST}:{outbound}/"
        self.caller_node = Node("e-1", Address(HOST, outbound))
        listening = Inbound("summarizer", Address(HOST, inbound), Address(HOST, agent.port))
        with reserve_port(HOST) as unused:
            self.callee_node = Node("s-1", Address(HOST, unused.port), listening)
        self.snapshots = Snapshots([Address(HOST, 7400)])
        self.snapshots.update([Instance("s-1", "summarizer", f"{HOST}:{inbound}", Status.HEALTHY)], [])
        self.caller: StaticEnvoy
        self.callee: StaticEnvoy
        self._denials = 0

    def callee_snapshot(self) -> Snapshot:
        """That of the summarizer, with its policies."""
        assert self.callee_node.inbound is not None
        routes = inbound_routes(called(self.callee_node.inbound), Access(POLICIES))
        snapshot = self.snapshots.snapshot(self.callee_node)
        return replace(snapshot, routes={**snapshot.routes, routes.name: encode(routes.name, routes)})

    async def call(
        self, client: httpx.AsyncClient, path: str = "", headers: Mapping[str, str] = MappingProxyType({})
    ) -> httpx.Response:
        return await client.get(self.url + path, headers={"x-weft-to": "summarizer", **headers})

    async def denial(self) -> AuditRecord:
        """The next refusal that the callee's Envoy writes down, none of which may be skipped."""

        async def written() -> bool:
            return len(self.callee.denials()) > self._denials

        async with asyncio.timeout(LIMIT):
            await until(written)
        line = self.callee.denials()[self._denials]
        record = parse_denial(line, callee="summarizer", observer="summarizer.s-1")
        assert record is not None
        self._denials += 1
        return record

    async def knock(self, context: ssl.SSLContext | None, request: bytes = b"") -> bytes:
        """What the inbound port answers to a request, sent with or without TLS; nothing if it hangs up."""
        request = request or b"GET / HTTP/1.1\r\nhost: summarizer.mesh\r\n\r\n"
        async with asyncio.timeout(LIMIT):
            try:
                reader, writer = await asyncio.open_connection(HOST, self.inbound, ssl=context)
                writer.write(request)
                answer = await reader.read(4096)
            except (ssl.SSLError, ConnectionError):
                return b""
            writer.transport.abort()
            return answer


def client_context(directory: Path, chain_and_key: ChainAndKey | None) -> ssl.SSLContext:
    """That of a client that believes any server, and shows this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if chain_and_key is not None:
        file = directory / "client.pem"
        file.write_bytes(b"".join(chain_and_key))
        context.load_cert_chain(file)
    return context


def a_handshake_for_every_call(cluster: Cluster) -> None:
    """Have no call use the connection of another, nor find its destination ejected."""
    cluster.ClearField("outlier_detection")
    for packed in cluster.typed_extension_protocol_options.values():
        options = HttpProtocolOptions()
        if packed.Unpack(options):
            options.common_http_protocol_options.max_requests_per_connection.value = 1
            packed.Pack(options)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        agent = await stack.enter_async_context(EchoAgent())
        with reserve_port(HOST) as outbound, reserve_port(HOST) as inbound:
            pair = Pair(agent, outbound.port, inbound.port)
        pair.callee = await stack.enter_async_context(
            running_envoy(
                pair.callee_snapshot(),
                pair.callee_node,
                lambda directory: write_secrets(directory, OURS, SUMMARIZER, PARTNER),
            )
        )
        pair.caller = await stack.enter_async_context(
            running_envoy(
                pair.snapshots.snapshot(pair.caller_node),
                pair.caller_node,
                lambda directory: write_secrets(directory, OURS, EDITOR, PARTNER),
                adapt=a_handshake_for_every_call,
            )
        )
        yield pair


async def test_a_call_is_carried_by_mutual_tls_and_names_its_caller(pair: Pair, tmp_path: Path) -> None:
    async with httpx.AsyncClient() as client:
        forged = {"x-weft-caller": BOSS, "x_weft_caller": BOSS, "x-forwarded-client-cert": "By=me"}
        response = await pair.call(client, headers=forged)
    assert response.status_code == httpx.codes.OK
    told = response.json()
    assert told["x-weft-caller"] == EDITOR
    assert "x-forwarded-client-cert" not in told
    assert "x_weft_caller" not in told
    assert await pair.callee.stat("http.inbound.downstream_cx_http2_total") == 1
    assert pair.callee.denials() == []


REFUSED: dict[str, tuple[ChainAndKey | None, str]] = {
    "no certificate": (None, "PEER_DID_NOT_RETURN_A_CERTIFICATE"),
    "self-signed": (OURS.svid(EDITOR, self_signed=True), "local_issuer"),
    "expired": (OURS.svid(EDITOR, lifetime=-60, not_before=-3600), "expired"),
    "not yet valid": (OURS.svid(EDITOR, not_before=DAY, lifetime=2 * DAY), "not_yet_valid"),
    "wrong trust domain": (Pki("other.example").svid("spiffe://other.example/agent/editor/e-1"), "no_trust"),
    "unknown authority": (Pki().svid(EDITOR), "verify_cert_failed"),
    "an authority's": (OURS.svid(EDITOR, ca=True), "precheck"),
    "no SPIFFE ID": (OURS.svid(""), "no_trust"),
    "two URI SANs": (OURS.svid(EDITOR, extra_uris=[BOSS]), NOT_ONE_IDENTITY),
    "federated, in our name": (PARTNER.svid(EDITOR), "verify_cert_failed"),
    "federated, our name second": (PARTNER.svid(THEIR_EDITOR, extra_uris=[EDITOR]), NOT_ONE_IDENTITY),
    "federated, our name as a host": (PARTNER.svid(THEIR_EDITOR, dns_names=[EDITOR]), NOT_ONE_IDENTITY),
}


async def test_nobody_gets_in_without_one_verified_identity(pair: Pair, tmp_path: Path) -> None:
    for why, (shown, reason) in REFUSED.items():
        assert await pair.knock(client_context(tmp_path, shown)) == b"", why
        denial = await pair.denial()
        assert reason in denial.reason, why
        assert (denial.who[:15], denial.action, denial.outcome) == ("unauthenticated", "connect", "denied"), (
            why
        )
    assert await pair.knock(None) == b"", "plain text"
    assert "HTTP_REQUEST" in (await pair.denial()).reason
    assert pair.agent.calls == 0


async def test_a_call_that_a_policy_refuses_is_written_down_with_its_policy(pair: Pair) -> None:
    async with httpx.AsyncClient() as client:
        assert (await pair.call(client, "secret?token=x")).status_code == httpx.codes.FORBIDDEN
        denied = await pair.denial()
        assert (denied.who, denied.outcome, denied.policy) == (EDITOR, "denied", "no-secrets")
        assert denied.target == "summarizer GET /secret"
        assert (await pair.call(client, "trial")).status_code == httpx.codes.OK
        tried = await pair.denial()
        assert (tried.who, tried.outcome, tried.policy) == (EDITOR, "would-be-denied", "on-trial")
        assert (await pair.call(client)).status_code == httpx.codes.OK
        assert (await pair.call(client, "secret")).status_code == httpx.codes.FORBIDDEN
        assert (await pair.denial()).target == "summarizer GET /secret"


async def test_identities_by_our_authority_and_by_a_federated_one_get_in(pair: Pair, tmp_path: Path) -> None:
    for identity, shown in (
        (EDITOR, OURS.svid(EDITOR)),
        (EDITOR, OURS.svid(EDITOR, usages=[])),
        (THEIR_EDITOR, PARTNER.svid(THEIR_EDITOR)),
    ):
        answer = await pair.knock(client_context(tmp_path, shown))
        assert f'"x-weft-caller": "{identity}"'.encode() in answer
    context = client_context(tmp_path, OURS.svid(EDITOR))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert await pair.knock(context) == b"", "TLS 1.2"


async def test_tricks_with_headers_are_refused(pair: Pair, tmp_path: Path) -> None:
    context = client_context(tmp_path, OURS.svid(EDITOR))
    head = b"POST /rpc HTTP/1.1\r\nhost: summarizer.mesh\r\n"
    smuggled = head + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n"
    oversized = head + b"x: " + b"a" * 61 * 1024 + b"\r\n\r\n"
    crowded = head + b"".join(b"x-%d: 1\r\n" % number for number in range(150)) + b"\r\n"
    for request, status in ((smuggled, b"400"), (oversized, b"431"), (crowded, b"431")):
        assert (await pair.knock(context, request)).startswith(b"HTTP/1.1 " + status)
        reader, writer = await asyncio.open_connection(HOST, pair.caller_node.outbound.port)
        writer.write(request)
        assert (await reader.read(4096)).startswith(b"HTTP/1.1 " + status)
        writer.close()
    assert pair.agent.calls == 0


async def test_no_session_is_resumed_so_every_connection_proves_itself(pair: Pair, tmp_path: Path) -> None:
    context = client_context(tmp_path, OURS.svid(EDITOR))
    reader, writer = await asyncio.open_connection(HOST, pair.inbound, ssl=context)
    writer.write(b"GET / HTTP/1.1\r\nhost: summarizer.mesh\r\n\r\n")
    assert (await reader.read(4096)).startswith(b"HTTP/1.1 200")
    assert not writer.get_extra_info("ssl_object").session.has_ticket
    writer.transport.abort()


IMPOSTORS: dict[str, ChainAndKey] = {
    "of a type whose name begins alike": OURS.svid("spiffe://weft.local/agent/summarizers/s-1"),
    "an operator": OURS.svid("spiffe://weft.local/operator/summarizer/s-1"),
    "self-signed": OURS.svid(SUMMARIZER, self_signed=True),
    "expired": OURS.svid(SUMMARIZER, lifetime=-60, not_before=-3600),
    "not yet valid": OURS.svid(SUMMARIZER, not_before=DAY, lifetime=2 * DAY),
    "unknown authority": Pki().svid(SUMMARIZER),
    "federated, in our name": PARTNER.svid(SUMMARIZER),
    "federated": PARTNER.svid("spiffe://partner.example/agent/summarizer/s-1"),
    "federated, our name second": PARTNER.svid(THEIR_EDITOR, extra_uris=[SUMMARIZER]),
}


async def test_a_caller_believes_nobody_but_its_destination(pair: Pair) -> None:
    async with httpx.AsyncClient(timeout=LIMIT) as client:
        for why, shown in IMPOSTORS.items():
            await shows(pair.callee, shown)
            response = await pair.call(client)
            assert response.headers["x-weft-error"] == "no-healthy-agent", why
            assert "CERTIFICATE_VERIFY_FAILED" in response.json()["detail"], why
        assert pair.agent.calls == 0
        await shows(pair.callee, OURS.svid(SUMMARIZER))
        assert (await pair.call(client)).status_code == httpx.codes.OK


async def test_certificates_and_roots_rotate_under_load_without_a_failed_call(
    pair: Pair, tmp_path: Path
) -> None:
    heir = Pki()
    both = trust(heir, OURS)
    sides = ((pair.caller, EDITOR), (pair.callee, SUMMARIZER))
    async with steady_calls(pair) as outcomes:
        for roots, authority in (
            *((OURS.bundles(PARTNER), OURS) for _ in range(3)),
            (both, OURS),
            *((both, heir) for _ in range(3)),
            (heir.bundles(), heir),
            *((heir.bundles(), heir) for _ in range(2)),
        ):
            # As in life: trust goes first, everywhere, and identities follow one by one.
            for envoy, _ in sides:
                await trusts(envoy, roots)
            for envoy, identity in sides:
                await shows(envoy, authority.svid(identity))
            await more(outcomes, 3)
    assert set(outcomes) == {"200"}
    assert await pair.knock(client_context(tmp_path, heir.svid(EDITOR))) != b""
    assert await pair.knock(client_context(tmp_path, OURS.svid(EDITOR))) == b"", "by the old root"


def trust(*authorities: Pki) -> TrustBundles:
    """The roots of several authorities of one trust domain."""
    roots = tuple(root for each in authorities for root in each.bundle().roots)
    return TrustBundles(TrustBundle(authorities[0].trust_domain, roots), {}, 1)


async def shows(envoy: StaticEnvoy, shown: ChainAndKey) -> None:
    """Give an Envoy another identity, and wait until it has taken it over."""
    write_identity(envoy.directory, *shown)
    serial = f"{x509.load_pem_x509_certificate(shown[0]).serial_number:x}"

    async def taken() -> bool:
        return serial in await envoy.serials()

    async with asyncio.timeout(LIMIT):
        await until(taken)


async def trusts(envoy: StaticEnvoy, bundles: TrustBundles) -> None:
    """Give an Envoy other roots, and wait until it has taken them over."""
    write_trust(envoy.directory, bundles)
    # Envoy tells the first root of each trust domain only, and what open connections began with.
    first = f"{bundles.own.certificates[0].serial_number:x}"

    async def taken() -> bool:
        return first in await envoy.roots()

    async with asyncio.timeout(LIMIT):
        await until(taken)


@asynccontextmanager
async def steady_calls(pair: Pair) -> AsyncIterator[list[str]]:
    """20 calls a second for as long as the context is open; yields their outcomes."""
    outcomes: list[str] = []

    async def call(client: httpx.AsyncClient) -> None:
        response = await pair.call(client)
        outcomes.append(str(response.status_code) if response.is_success else response.text)

    async with httpx.AsyncClient(timeout=LIMIT) as client, asyncio.TaskGroup() as tasks:

        async def load() -> None:
            while True:
                tasks.create_task(call(client))
                await asyncio.sleep(0.05)

        loading = tasks.create_task(load())
        yield outcomes
        loading.cancel()


async def more(outcomes: list[str], number: int) -> None:
    """Wait for so many further outcomes."""
    wanted = len(outcomes) + number

    async def reached() -> bool:
        return len(outcomes) >= wanted

    async with asyncio.timeout(LIMIT):
        await until(reached)
