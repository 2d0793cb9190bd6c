"""The webhooks' server as anybody may ask it, and the process of its pod."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.json_patches import applied
from tests.kubernetes_clusters import define
from tests.kubernetes_server import kubernetes_server, missing
from tests.kubernetes_stand_in import TOKEN, KubernetesStandIn
from tests.pki import Pki
from tests.unit.kubernetes.pods import injected, pod
from tests.unit.kubernetes.test_webhook_reviews import resource, review

from weft.aio.poll import until
from weft.aio.ports import reserve_port
from weft.cli.exit_codes import ExitCode
from weft.errors import Unavailable
from weft.kubernetes.controller.cluster import Cluster
from weft.kubernetes.controller.kinds import CUSTOM_KINDS, NAMESPACE, ClusterKind, Document
from weft.kubernetes.injection_settings import InjectionSettings
from weft.kubernetes.installation import installation
from weft.kubernetes.webhook import server
from weft.kubernetes.webhook.admission import MAX_REVIEW_BYTES, AdmissionRequest, Verdict
from weft.kubernetes.webhook.certificates import ServingKeys, webhook_keys
from weft.kubernetes.webhook.metrics import ReviewMetrics
from weft.kubernetes.webhook.publication import configurations

HOST = "127.0.0.1"
RIGHTS = (
    ClusterKind("", "v1", "ServiceAccount", "serviceaccounts"),
    ClusterKind("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", namespaced=False),
    ClusterKind(
        "rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False
    ),
)
TYPE = {"apiVersion": "weft.dev/v1alpha1", "kind": "Queue"}
LIMIT = 120.0
AS_JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Served:
    """A running server, and what it answers with."""

    http: httpx.AsyncClient
    keys: ServingKeys
    port: int


@pytest.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    monkeypatch.setattr(server, "READ_TIMEOUT", LIMIT)
    write_keys(tmp_path)
    keys = ServingKeys(tmp_path)

    async def warn(asked: AdmissionRequest) -> Verdict:
        return Verdict(warnings=(asked.namespace,))

    async with AsyncExitStack() as ends:
        port = await ends.enter_async_context(serving(keys, warn))
        http = await ends.enter_async_context(client(port, keys.authority))
        yield Served(http, keys, port)


def serving(keys: ServingKeys, review: server.Review) -> AbstractAsyncContextManager[int]:
    return server.serving_webhooks(HOST, 0, keys.tls, {"/review": review}, ReviewMetrics())


def write_keys(directory: Path) -> None:
    for name, content in webhook_keys([HOST]).items():
        (directory / name).write_bytes(content)


def client(port: int, authority: bytes) -> httpx.AsyncClient:
    trust = ssl.create_default_context(cadata=authority.decode())
    return httpx.AsyncClient(base_url=f"https://{HOST}:{port}", verify=trust, timeout=LIMIT)


async def test_a_question_is_answered(served: Served) -> None:
    answer = await served.http.post("/review", content=review(pod()), headers=AS_JSON)
    assert answer.status_code == 200
    assert answer.json()["response"] == {"uid": "5a6b", "allowed": True, "warnings": ["agents"]}


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{}", AS_JSON, 400),
        (b"\x00\xff", AS_JSON, 400),
        (review(pod()), {"content-type": "text/plain"}, 415),
        (b" " * (MAX_REVIEW_BYTES + 1), AS_JSON, 413),
    ],
)
async def test_what_is_no_question_is_refused(
    content: bytes, headers: dict[str, str], status: int, served: Served
) -> None:
    assert (await served.http.post("/review", content=content, headers=headers)).status_code == status
    assert (await served.http.post("/review", content=review(pod()), headers=AS_JSON)).status_code == 200


async def test_there_is_nothing_else_to_ask(served: Served) -> None:
    assert (await served.http.get("/review")).status_code == 405
    assert (await served.http.post("/", content=b"{}", headers=AS_JSON)).status_code == 404


async def test_without_tls_nothing_is_said(served: Served) -> None:
    async with httpx.AsyncClient(base_url=f"http://{HOST}:{served.port}", timeout=LIMIT) as plain:
        with pytest.raises(httpx.TransportError):
            await plain.post("/review", content=review(pod()), headers=AS_JSON)


async def test_who_does_not_finish_a_question_is_told_so(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "READ_TIMEOUT", 0.2)
    async with unfinished(served) as reader:
        assert b" 408 " in await asyncio.wait_for(reader.readline(), LIMIT)


@asynccontextmanager
async def unfinished(served: Served) -> AsyncIterator[asyncio.StreamReader]:
    """A question of which the end does not come."""
    trust = ssl.create_default_context(cadata=served.keys.authority.decode())
    reader, writer = await asyncio.open_connection(HOST, served.port, ssl=trust)
    try:
        writer.write(
            b"POST /review HTTP/1.1\r\nHost: x\r\n"
            b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        )
        await writer.drain()
        yield reader
    finally:
        writer.close()
        # Whoever is sent away before the end may find the connection closed.
        with suppress(OSError):
            await writer.wait_closed()


async def test_more_than_are_read_at_once_are_sent_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "READ_AT_ONCE", 1)
    monkeypatch.setattr(server, "READ_TIMEOUT", LIMIT)
    write_keys(tmp_path)
    keys = ServingKeys(tmp_path)

    async def take(_: AdmissionRequest) -> Verdict:
        return Verdict()

    async with AsyncExitStack() as ends:
        port = await ends.enter_async_context(serving(keys, take))
        http = await ends.enter_async_context(client(port, keys.authority))

        async def status() -> int:
            return (await http.post("/review", content=review(pod()), headers=AS_JSON)).status_code

        async def sent_away() -> bool:
            return await status() == 503

        async def answered() -> bool:
            return await status() == 200

        async with asyncio.timeout(LIMIT):
            async with unfinished(Served(http, keys, port)):
                await until(sent_away)
            await until(answered)


async def test_a_port_that_is_taken_is_said(served: Served) -> None:
    with pytest.raises(Unavailable, match="choose another --port"):
        async with server.serving_webhooks(HOST, served.port, served.keys.tls, {}, ReviewMetrics()):
            pass


class WebhookPod:
    """What a webhook's pod is given, before a stand-in of its cluster's API."""

    def __init__(self, directory: Path, api: str, roots: bytes, token: str) -> None:
        """`roots` are those of the `api` (PEM), and `token` is what it knows the pod by."""
        self.keys, self.account = directory / "keys", directory / "account"
        self.keys.mkdir()
        write_keys(self.keys)
        self.account.mkdir()
        (self.account / "ca.crt").write_bytes(roots)
        (self.account / "token").write_text(token)
        (self.account / "namespace").write_text("weft-system")
        with reserve_port(HOST) as one, reserve_port(HOST) as other:
            self.port, self.health_port = one.port, other.port
        url = httpx.URL(api)
        self.environ = {"KUBERNETES_SERVICE_HOST": url.host, "KUBERNETES_SERVICE_PORT": str(url.port)}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """The process; gone when the context is left."""
        program = (
            "import sys, pathlib; from weft.identity.pod_access import PodAccess, pod_token; "
            "PodAccess.of.__func__.__defaults__ = pod_token.__defaults__ = (pathlib.Path(sys.argv[1]),); "
            "from weft.cli.main import run; sys.exit(run(sys.argv[2:]))"
        )
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, str(self.account), "kubernetes", "webhook", "--image=weft:test"),
            *(f"--keys={self.keys}", f"--port={self.port}", f"--health-port={self.health_port}"),
            env=self.environ,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def is_ready(self) -> bool:
        """Whether a kubelet has it asked."""
        async with httpx.AsyncClient(base_url=f"http://{HOST}:{self.health_port}", timeout=LIMIT) as kubelet:
            try:
                return (await kubelet.get("/readyz")).status_code == 200
            except httpx.TransportError:
                return False

    async def metrics(self) -> str:
        """What Prometheus is told."""
        async with httpx.AsyncClient(timeout=LIMIT) as prometheus:
            return (await prometheus.get(f"http://{HOST}:{self.health_port}/metrics")).text


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[tuple[WebhookPod, Cluster]]:
    pki = Pki()
    chain, key = pki.svid("")
    (tmp_path / "api.pem").write_bytes(chain + key)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "api.pem")
    trust = ssl.create_default_context(cadata=pki.bundle().pem.decode())
    async with (
        KubernetesStandIn().serving(tls) as api,
        Cluster(api.url, trust=trust, token=lambda: TOKEN) as found,
    ):
        yield WebhookPod(tmp_path, api.url, pki.bundle().pem, TOKEN), found


async def test_its_process_tells_api_servers_whom_to_believe_and_answers_them(
    cluster: tuple[WebhookPod, Cluster],
) -> None:
    started, api = cluster
    kinds = {kind.kind: kind for kind, _ in configurations("weft")}
    for each in installation():
        if each["kind"] in kinds:
            await api.create(kinds[each["kind"]], each)
    async with asyncio.timeout(LIMIT), started.running() as process:
        await until(started.is_ready)
        kind, key = configurations("weft")[0]
        found = await api.get(kind, key)
        assert found is not None
        authority = base64.b64decode(found["webhooks"][0]["clientConfig"]["caBundle"])
        before: Document = {"apiVersion": "v1", "kind": "Pod", **pod()}
        async with client(started.port, authority) as http:
            answer = await http.post("/mutate-pods", content=review(before), headers=AS_JSON)
            assert (await http.post("/validate", content=b"", headers=AS_JSON)).status_code == 400
        patch: Any = json.loads(base64.b64decode(answer.json()["response"]["patch"]))
        image = replace(InjectionSettings(), image="weft:test")
        assert applied(before, patch) == injected(before, image).pod
        shown = await started.metrics()
        assert 'weft_webhook_reviews_total{outcome="changed",webhook="/mutate-pods"} 1.0' in shown
        assert 'weft_webhook_reviews_total{outcome="not-understood",webhook="/validate"} 1.0' in shown
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == ExitCode.OK


async def test_its_process_says_what_it_lacks(cluster: tuple[WebhookPod, Cluster]) -> None:
    started, _ = cluster
    (started.keys / "tls.key").unlink()
    for told in ("tls.key cannot be read", "this runs in a pod of a cluster only"):
        async with asyncio.timeout(LIMIT), started.running() as process:
            _, errors = await process.communicate()
        assert told in errors.decode()
        assert process.returncode == ExitCode.USAGE
        started.environ = {}


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
async def test_its_process_needs_no_more_rights_than_the_installation_gives_it(tmp_path: Path) -> None:
    async with AsyncExitStack() as ends:
        real = await ends.enter_async_context(kubernetes_server(tmp_path))
        api = await ends.enter_async_context(Cluster(real.url, trust=real.trust(), token=lambda: real.token))
        await define(api)
        for name in ("weft-system", "other"):
            await api.create(NAMESPACE, {"metadata": {"name": name}})
        kinds = {each.kind: each for each in (*RIGHTS, *(kind for kind, _ in configurations("weft")))}
        for document in installation():
            about_webhooks = "webhook" in document["metadata"]["labels"].values()
            if document["kind"] in kinds and about_webhooks:
                await api.create(kinds[document["kind"]], document)
        asked = await api.create(
            ClusterKind("", "v1", "TokenRequest", "serviceaccounts/weft-webhook/token"),
            {"metadata": {"name": "weft-webhook", "namespace": "weft-system"}, "spec": {}},
        )
        queue = CUSTOM_KINDS["Queue"]
        await api.create(queue, {"metadata": {"name": "one", "namespace": "other"}, "spec": {}} | TYPE)
        started = WebhookPod(tmp_path, real.url, real.roots().encode(), asked["status"]["token"])
        await ends.enter_async_context(asyncio.timeout(LIMIT))
        await ends.enter_async_context(started.running())
        await until(started.is_ready)
        http = await ends.enter_async_context(client(started.port, (started.keys / "ca.crt").read_bytes()))
        named_alike = resource("Queue", {})
        content = review(named_alike, kind="Queue", group="weft.dev", name="one")
        answer = await http.post("/validate", content=content, headers=AS_JSON)
        [warning] = answer.json()["response"]["warnings"]
        assert "another namespace has a Queue 'one' already" in warning
