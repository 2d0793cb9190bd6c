"""The controller as a process: which replica leads, what it tells, what it may do, older definitions."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from tests.controller_scene import SYSTEM, Scene, controller_scene, grant, scene_with_mesh
from tests.hosting import hosted
from tests.kubernetes_clusters import CLUSTERS, DEFINITION, ClusterApi, cluster_api, define
from tests.kubernetes_documents import Document
from tests.kubernetes_server import missing
from tests.kubernetes_stand_in import HOST, TOKEN, KubernetesStandIn
from tests.pki import Pki

from weft.aio.poll import until
from weft.aio.ports import reserve_port
from weft.cli.exit_codes import ExitCode
from weft.errors import Unavailable
from weft.kubernetes.controller.cluster import Cluster
from weft.kubernetes.controller.kinds import LEASE, Key
from weft.kubernetes.controller.leader import Leadership, Terms

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

QUEUE: Document = {"concurrency": 2}
LIMIT = 60.0
SHORT = Terms(lease=2.0, deadline=1.5, pause=0.1)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=CLUSTERS)
async def api(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ClusterApi]:
    async with hosted(cluster_api(request.param, tmp_path_factory.mktemp("cluster"))) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def scene(api: ClusterApi, tmp_path: Path) -> AsyncIterator[Scene]:
    async with hosted(controller_scene(api, tmp_path)) as running:
        yield running


class Work:
    """What is done by who leads: by one at a time."""

    def __init__(self) -> None:
        self.now: list[str] = []
        self.at_once = 0
        """The most that ever worked at the same time."""
        self.done_by: set[str] = set()

    async def by(self, who: str) -> None:
        self.now.append(who)
        self.done_by.add(who)
        self.at_once = max(self.at_once, len(self.now))
        try:
            await asyncio.Event().wait()
        finally:
            self.now.remove(who)

    async def is_done_by(self, who: str) -> None:
        async def done() -> bool:
            return self.now == [who]

        async with asyncio.timeout(LIMIT):
            await until(done)


class Broken(Cluster):
    """A client that can be cut off."""

    cut_off = False

    async def _ask(self, *arguments: object, **options: object) -> Document:
        if self.cut_off:
            raise Unavailable("the wire is cut")
        return await super()._ask(*arguments, **options)  # type: ignore[arg-type]


@asynccontextmanager
async def leading(cluster: Cluster, lease: str, who: str, work: Work) -> AsyncIterator[Leadership]:
    leadership = Leadership(cluster, Key("default", lease), who, terms=SHORT)
    running = asyncio.create_task(leadership.run(lambda: work.by(who)))
    try:
        yield leadership
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_one_leads_and_another_takes_over_when_it_stops(api: ClusterApi) -> None:
    work = Work()
    async with leading(api.cluster, "handed-over", "first", work):
        await work.is_done_by("first")
        assert await holder(api, "handed-over") == "first"
    assert not await holder(api, "handed-over"), "it is given back"
    async with leading(api.cluster, "handed-over", "second", work):
        await work.is_done_by("second")
    assert work.at_once == 1


async def holder(api: ClusterApi, lease: str) -> str:
    found = await api.cluster.get(LEASE, Key("default", lease))
    assert found is not None
    return str(found["spec"].get("holderIdentity") or "")


async def test_who_is_cut_off_stops_before_another_takes_over(api: ClusterApi) -> None:
    work = Work()
    trust = api.server.trust() if api.server is not None else False
    token = api.server.token if api.server is not None else TOKEN
    async with (
        Broken(api.cluster.url, trust=trust, token=lambda: token) as line,
        leading(line, "cut-off", "first", work) as first,
    ):
        await work.is_done_by("first")
        async with leading(api.cluster, "cut-off", "second", work):
            line.cut_off = True
            await work.is_done_by("second")
            assert not first.leading
            assert not first.heard
    assert work.at_once == 1
    assert work.done_by == {"first", "second"}


async def test_a_replica_that_waits_is_ready_and_does_nothing(scene: Scene) -> None:
    async with scene.controlled("first"):
        await scene.eventually(lambda: page(scene, "/readyz"), lambda found: "leads" in found.text)
        assert (await page(scene, "/livez")).status_code == 200
        metrics = (await page(scene, "/metrics")).text
        assert "weft_controller_leading 1.0" in metrics
        async with scene.controlled("second"):
            waiting = await scene.eventually(
                lambda: page(scene, "/readyz"), lambda found: found.status_code == 200
            )
            assert waiting.text == "ok\nanother replica leads\n"
            await scene.api.declare("Queue", "led", QUEUE)
            await scene.ready("Queue", "led")
            metrics = (await page(scene, "/metrics")).text
            assert "weft_controller_leading 0.0" in metrics
            assert 'outcome="done"' not in metrics


async def page(scene: Scene, path: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=scene.health, trust_env=False) as client:
        try:
            return await client.get(path)
        except httpx.TransportError:
            return httpx.Response(503, text="nobody listens")


async def test_definitions_of_an_older_version_are_told_and_the_rest_goes_on(
    api: ClusterApi, tmp_path: Path
) -> None:
    definitions = {
        kind: await api.cluster.get(DEFINITION, Key("", f"{kind}.weft.dev")) for kind in ("tools", "queues")
    }
    await without_field(api, definitions["queues"], "concurrency")
    await api.cluster.delete(DEFINITION, Key("", "tools.weft.dev"))
    try:
        async with controller_scene(api, tmp_path) as scene:
            await scene.apply("Queue", "newer", {"concurrency": 3, "maxDeliveries": 9})
            await scene.api.declare("Topic", "beside", {})
            async with scene.controlled():
                await scene.ready("Topic", "beside")
                mirror = await scene.ready(
                    "Queue", "newer", SYSTEM, status="False", reason="DefinitionOutdated"
                )
                assert "weft kubernetes crds" in mirror["status"]["conditions"][0]["message"]
                told = await scene.eventually(
                    lambda: page(scene, "/readyz"), lambda found: "no kind Tool" in found.text
                )
                assert told.status_code == 200
                assert "Queue lacks spec.concurrency" in told.text
                await scene.eventually(
                    lambda: scene.events(SYSTEM), lambda found: "DefinitionOutdated" in found
                )
                # A change in the mesh goes on coming into the cluster; none of the loss goes back.
                await scene.apply("Queue", "newer", {"concurrency": 3, "maxDeliveries": 4})
                await scene.eventually(
                    lambda: scene.api.found("Queue", "newer", SYSTEM),
                    lambda found: found is not None and found["spec"] == {"maxDeliveries": 4},
                )
                await scene.ready("Queue", "newer", SYSTEM, status="False", reason="DefinitionOutdated")
            found = await scene.in_mesh("Queue", "newer")
            assert found is not None
            assert found["spec"] == {"concurrency": 3, "maxDeliveries": 4}
    finally:
        queues = plain(definitions["queues"])
        await api.cluster.merge(DEFINITION, Key("", queues["metadata"]["name"]), {"spec": queues["spec"]})
        await define(api.cluster)


async def test_a_definition_that_is_deleted_takes_nothing_from_the_mesh(scene: Scene) -> None:
    if scene.api.server is None:
        pytest.skip("the stand-in keeps what there is of a kind that is defined no more")
    await scene.apply("Queue", "of-the-mesh", QUEUE)
    await scene.api.declare("Queue", "of-the-cluster", QUEUE)
    async with scene.controlled():
        await scene.ready("Queue", "of-the-mesh", SYSTEM)
        await scene.ready("Queue", "of-the-cluster")
        before = await looks(scene, "sync of Queue")
        definition = Key("", "queues.weft.dev")
        try:
            await scene.api.cluster.delete(DEFINITION, definition)
            await scene.gone(lambda: scene.api.cluster.get(DEFINITION, definition))
            await scene.eventually(lambda: looks(scene, "sync of Queue"), lambda found: found >= before + 2)
            assert await scene.in_mesh("Queue", "of-the-mesh") is not None
            assert await scene.in_mesh("Queue", "of-the-cluster") is not None
        finally:
            await define(scene.api.cluster)


async def looks(scene: Scene, reconciler: str) -> float:
    """How often a reconciler has looked at something."""
    lines = (await page(scene, "/metrics")).text.splitlines()
    told = [each for each in lines if each.startswith("weft_controller_reconciles_total{")]
    return sum(float(each.rpartition(" ")[2]) for each in told if f'"{reconciler}"' in each)


async def without_field(api: ClusterApi, definition: Document | None, field: str) -> None:
    changed = json.loads(json.dumps(plain(definition)))
    schema = changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    del schema["properties"]["spec"]["properties"][field]
    await api.cluster.merge(DEFINITION, Key("", changed["metadata"]["name"]), {"spec": changed["spec"]})


def plain(definition: Document | None) -> Document:
    assert definition is not None
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": definition["metadata"]["name"]},
        "spec": definition["spec"],
    }


async def test_the_command_runs_in_a_pod_and_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    pki = Pki()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served = tmp_path / "server.pem"
    served.write_bytes(b"".join(pki.svid("")))
    tls.load_cert_chain(served)
    credentials = tmp_path / "serviceaccount"
    credentials.mkdir()
    (credentials / "ca.crt").write_bytes(pki.bundle().pem)
    (credentials / "token").write_text(f"{TOKEN}\n")
    (credentials / "namespace").write_text(SYSTEM)
    trust = ssl.create_default_context(cadata=pki.bundle().pem.decode())
    async with (
        KubernetesStandIn().serving(tls) as stand_in,
        Cluster(stand_in.url, trust=trust, token=lambda: TOKEN) as cluster,
    ):
        await define(cluster)
        api = ClusterApi(cluster, stand_in, None)
        await api.namespace(SYSTEM)
        async with scene_with_mesh(api, tmp_path) as scene:
            await scene.api.declare("Queue", "by-command", QUEUE)
            process = await started(scene, stand_in, credentials)
            await scene.ready("Queue", "by-command")
            process.send_signal(signal.SIGTERM)
            _, errors = await process.communicate()
            assert process.returncode == ExitCode.OK, errors.decode()
            assert "HTTP Request" not in errors.decode(), "each request is nothing to write down"
            lease = await cluster.get(LEASE, Key(SYSTEM, "weft-controller"))
            assert lease is not None
            assert not lease["spec"]["holderIdentity"]


async def started(scene: Scene, stand_in: KubernetesStandIn, credentials: Path) -> asyncio.subprocess.Process:
    program = (
        "import sys, pathlib; import weft.identity.pod_access as c; place = (pathlib.Path(sys.argv[1]),); "
        "c.PodAccess.of.__func__.__defaults__ = place; c.pod_token.__defaults__ = place; "
        "from weft.cli.main import run; sys.exit(run(sys.argv[2:]))"
    )
    with reserve_port(HOST) as held:
        port = held.port
    environ = {
        **os.environ,
        "KUBERNETES_SERVICE_HOST": HOST,
        "KUBERNETES_SERVICE_PORT": stand_in.url.rpartition(":")[2],
        "POD_NAME": "weft-controller-0",
    }
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, str(credentials), "kubernetes", "controller"),
        *(f"--listen={HOST}", f"--health-port={port}", f"--api={scene.url}"),
        *(f"--token-file={scene.directory / 'token'}", f"--trust-bundle={scene.served.roots}"),
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
async def test_the_rights_that_an_installation_gives_it_are_enough(tmp_path: Path) -> None:
    async with cluster_api("kube-apiserver", tmp_path) as api:
        await api.namespace(SYSTEM)
        await grant(api)
        server = api.server
        assert server is not None
        token = await token_of(api, "weft-controller")
        async with (
            Cluster(server.url, trust=server.trust(), token=lambda: token) as cluster,
            scene_with_mesh(api, tmp_path) as scene,
        ):
            allowed = Scene(ClusterApi(cluster, None, server), scene.served, scene.mesh, tmp_path, scene.url)
            await scene.api.declare("Queue", "declared", QUEUE)
            await scene.api.declare("Queue", "wrong", {"visibilityTimeout": "1ms"})
            await scene.api.declare(
                "Secret", "secret", {"data": {"key": {"secretKeyRef": {"name": "theirs", "key": "key"}}}}
            )
            await scene.apply("Queue", "mirrored", QUEUE)
            async with allowed.controlled():
                await scene.ready("Queue", "declared")
                await scene.ready("Queue", "mirrored", SYSTEM)
                await scene.ready("Queue", "wrong", status="False", reason="Invalid")
                await scene.eventually(lambda: scene.events("wrong"), lambda found: "Invalid" in found)
                await scene.ready("Secret", "secret", status="False", reason="SecretDenied")
                await scene.mesh.delete("Queue", "mirrored")
                await scene.gone(lambda: scene.api.found("Queue", "mirrored", SYSTEM))
                told = await scene.eventually(
                    lambda: page(allowed, "/readyz"), lambda found: "leads" in found.text
                )
                assert told.text == "ok\nleads\n"


async def token_of(api: ClusterApi, account: str) -> str:
    assert api.server is not None
    async with api.server.client() as client:
        asked = await client.post(
            f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/{account}/token",
            json={"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}},
        )
        return str(asked.raise_for_status().json()["status"]["token"])
