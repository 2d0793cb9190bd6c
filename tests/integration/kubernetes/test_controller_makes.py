"""The controller as a whole, with a mesh: what it makes of a cluster's own objects, and with which rights."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.controller_scene import SYSTEM, Scene, controller_scene, grant, scene_with_mesh
from tests.gateway_api import define_http_routes, http_route
from tests.hosting import hosted
from tests.kubernetes_clusters import CLUSTERS, ClusterApi, cluster_api
from tests.kubernetes_documents import Document
from tests.kubernetes_server import missing

from weft.kubernetes.controller.agent_deployments import AGENT_DEPLOYMENT, DEPLOYMENT, MADE, SERVICE
from weft.kubernetes.controller.cluster import Cluster
from weft.kubernetes.controller.http_routes import HTTP_ROUTE
from weft.kubernetes.controller.kinds import CONFIG_MAP, NAMESPACE, Key, key_of
from weft.kubernetes.controller.plain_services import ENDPOINT_SLICE

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

AGENTS = "agents"
ROUTE = Key(AGENTS, "canary")
IMAGE = {"image": "registry.example/summarizer:1"}
TWO = {**IMAGE, "replicas": {"least": 2, "most": 2}}
ROOTS = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "weft-roots", "namespace": SYSTEM},
    "data": {"roots.pem": "roots"},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=CLUSTERS)
async def api(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ClusterApi]:
    async with hosted(cluster_api(request.param, tmp_path_factory.mktemp("cluster"))) as running:
        await define_http_routes(running.cluster)
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def scene(api: ClusterApi, tmp_path: Path) -> AsyncIterator[Scene]:
    async with hosted(controller_scene(api, tmp_path)) as running:
        await furnish(api)
        yield running
        for each in (await api.cluster.list(HTTP_ROUTE)).items:
            await api.cluster.delete(HTTP_ROUTE, key_of(each))


async def furnish(api: ClusterApi) -> None:
    """A namespace whose pods get sidecars, with Services of two versions, and the mesh's roots."""
    await api.namespace(AGENTS)
    enabled = {"metadata": {"labels": {"weft.dev/injection": "enabled"}}}
    await api.cluster.merge(NAMESPACE, Key("", AGENTS), enabled)
    await api.cluster.apply(CONFIG_MAP, ROOTS, manager="tests")
    for name, selector in (
        ("summarizer", {}),
        ("summarizer-next", {"weft.dev/agent": "summarizer", "app.kubernetes.io/version": "2"}),
    ):
        metadata = {"name": name, "namespace": AGENTS}
        spec = {"ports": [{"port": 80}], "selector": {"app": name, **selector}}
        service = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
        await api.cluster.apply(SERVICE, service, manager="tests")


async def plain_service(api: ClusterApi, address: str) -> None:
    """A Service without sidecars."""
    labels = {"weft.dev/discover": "true"}
    await api.cluster.apply(
        SERVICE,
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "crm", "namespace": AGENTS, "labels": labels},
            "spec": {"ports": [{"port": 80}]},
        },
        manager="tests",
    )
    await api.cluster.apply(
        ENDPOINT_SLICE,
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "crm-1",
                "namespace": AGENTS,
                "labels": {**labels, "kubernetes.io/service-name": "crm"},
            },
            "addressType": "IPv4",
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        },
        manager="tests",
    )


async def canary(api: ClusterApi, *, weight: int) -> None:
    backends = [
        {"name": "summarizer", "port": 80, "weight": 100 - weight},
        {"name": "summarizer-next", "port": 80, "weight": weight},
    ]
    await http_route(api, ROUTE, {"backendRefs": backends})


async def accepted(scene: Scene, status: str, reason: str) -> Document:
    """The condition of the HTTPRoute, once it is as given."""

    async def look() -> Document:
        found = await scene.api.cluster.get(HTTP_ROUTE, ROUTE)
        assert found is not None
        parents = (found.get("status") or {}).get("parents") or [{"conditions": [{}]}]
        condition: Document = parents[0]["conditions"][0]
        return condition

    def is_so(found: Document) -> bool:
        return (found.get("type"), found.get("status"), found.get("reason")) == ("Accepted", status, reason)

    return await scene.eventually(look, is_so)


async def spec_in_mesh(scene: Scene, kind: str, name: str, wanted: Document) -> None:
    """Wait until the mesh has a resource so."""
    await scene.eventually(
        lambda: scene.in_mesh(kind, name), lambda found: found is not None and found["spec"] == wanted
    )


def split(weight: int) -> Document:
    shares = [{"weight": 100 - weight}, {"version": "2", "weight": weight}]
    return {"destination": {"type": "summarizer"}, "rules": [{"name": "canary-1", "split": shares}]}


async def test_an_http_route_is_in_force_in_the_mesh_and_goes_from_there(scene: Scene) -> None:
    async with scene.controlled():
        await canary(scene.api, weight=10)
        await spec_in_mesh(scene, "Route", "httproute-summarizer", split(10))
        await accepted(scene, "True", "Accepted")
        await canary(scene.api, weight=50)
        await spec_in_mesh(scene, "Route", "httproute-summarizer", split(50))
        # By hand, in the mesh: what the cluster says holds.
        await scene.apply("Route", "httproute-summarizer", split(99))
        await spec_in_mesh(scene, "Route", "httproute-summarizer", split(50))
        await scene.api.cluster.delete(HTTP_ROUTE, ROUTE)
        await scene.gone(lambda: scene.in_mesh("Route", "httproute-summarizer"))


async def test_an_http_route_against_a_route_of_the_mesh_is_told_why_it_is_not_in_force(scene: Scene) -> None:
    await scene.apply("Route", "mine", {"destination": {"type": "summarizer"}, "rules": [{"name": "mine"}]})
    async with scene.controlled():
        await canary(scene.api, weight=10)
        condition = await accepted(scene, "False", "Refused")
        assert "Route 'mine' is for destination type 'summarizer' already" in condition["message"]
        assert await scene.in_mesh("Route", "httproute-summarizer") is None


async def test_a_plain_service_can_be_called_in_the_mesh(scene: Scene) -> None:
    async with scene.controlled():
        await plain_service(scene.api, "10.0.0.7")
        await spec_in_mesh(scene, "ExternalAgent", "crm", {"endpoints": ["10.0.0.7:8080"]})
        await plain_service(scene.api, "10.0.0.8")
        await spec_in_mesh(scene, "ExternalAgent", "crm", {"endpoints": ["10.0.0.8:8080"]})
        await scene.api.cluster.delete(SERVICE, Key(AGENTS, "crm"))
        await scene.gone(lambda: scene.in_mesh("ExternalAgent", "crm"))


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
async def test_the_rights_that_an_installation_gives_are_enough_for_all_of_it(tmp_path: Path) -> None:
    async with cluster_api("kube-apiserver", tmp_path) as api:
        await define_http_routes(api.cluster)
        await api.namespace(SYSTEM)
        await grant(api)
        await furnish(api)
        server = api.server
        assert server is not None
        token = await server_token(api)
        async with (
            Cluster(server.url, trust=server.trust(), token=lambda: token) as cluster,
            scene_with_mesh(api, tmp_path) as scene,
        ):
            allowed = Scene(ClusterApi(cluster, None, server), scene.served, scene.mesh, tmp_path, scene.url)
            await canary(api, weight=10)
            await plain_service(api, "10.0.0.7")
            await api.declare("AgentDeployment", "writer", TWO, AGENTS)
            async with allowed.controlled():
                await accepted(scene, "True", "Accepted")
                await spec_in_mesh(scene, "ExternalAgent", "crm", {"endpoints": ["10.0.0.7:8080"]})
                roots, writer = Key(AGENTS, "weft-roots"), Key(AGENTS, "writer")
                await scene.eventually(lambda: api.cluster.get(CONFIG_MAP, roots))
                await scene.eventually(lambda: api.cluster.get(DEPLOYMENT, writer))
                # With an autoscaler, and without it again.
                [autoscaler] = [each for each in MADE if each.kind == "HorizontalPodAutoscaler"]
                await api.declare("AgentDeployment", "writer", IMAGE, AGENTS)
                await scene.eventually(lambda: api.cluster.get(autoscaler, writer))
                await api.declare("AgentDeployment", "writer", TWO, AGENTS)
                await scene.gone(lambda: api.cluster.get(autoscaler, writer))
                await scene.ready("AgentDeployment", "writer", AGENTS, status="Unknown", reason="Waiting")
                await api.cluster.delete(HTTP_ROUTE, ROUTE)
                await scene.gone(lambda: scene.in_mesh("Route", "httproute-summarizer"))
                disabled = {"metadata": {"labels": {"weft.dev/injection": None}}}
                await api.cluster.merge(NAMESPACE, Key("", AGENTS), disabled)
                await api.cluster.delete(AGENT_DEPLOYMENT, writer)
                await scene.gone(lambda: api.cluster.get(CONFIG_MAP, roots))


async def server_token(api: ClusterApi) -> str:
    """What the controller's pod comes with."""
    assert api.server is not None
    async with api.server.client() as client:
        asked = await client.post(
            f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/weft-controller/token",
            json={"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}},
        )
        return str(asked.raise_for_status().json()["status"]["token"])
