"""`weft kubernetes publish-roots`: a file's roots in a ConfigMap of the stand-in and of a real API server."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from tests.kubernetes_clusters import CLUSTERS, ClusterApi, cluster_api
from tests.kubernetes_server import KubernetesServer
from tests.kubernetes_stand_in import TOKEN, KubernetesStandIn
from tests.pki import Pki
from tests.server_process import HOST

from weft.aio.children import spawn
from weft.aio.guard import Guard
from weft.aio.poll import until
from weft.aio.ports import reserve_port
from weft.errors import Denied, InvalidRequest, MeshError, NotFound, Unauthenticated, Unavailable
from weft.identity.pod_access import PodAccess
from weft.kubernetes.controller.kinds import CONFIG_MAP, Key
from weft.kubernetes.roots_publication import AGAIN_AFTER, RootsPublication

PATIENCE = 120.0
NAMESPACE, NAME = "default", "weft-roots"
ROLE = {
    "metadata": {"name": "weft-control"},
    "rules": [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [NAME], "verbs": ["patch"]}],
}
BINDING = {
    "metadata": {"name": "weft-control"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "weft-control"},
    "subjects": [{"kind": "ServiceAccount", "name": "weft-control", "namespace": NAMESPACE}],
}


class Time:
    """Goes on when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=CLUSTERS)
async def api(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ClusterApi]:
    async with cluster_api(request.param, tmp_path) as running:
        yield running


def everything(api: ClusterApi) -> PodAccess:
    """As who may do everything."""
    if api.server is not None:
        return PodAccess(api.server.url, api.server.token, api.server.trust(), NAMESPACE)
    assert api.stand_in is not None
    return PodAccess(api.stand_in.url, TOKEN, ssl.create_default_context(), NAMESPACE)


async def as_control_plane(server: KubernetesServer) -> PodAccess:
    """As who may patch the one ConfigMap."""
    core = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}"
    async with server.client() as client:
        for path, document in (
            (core, {"metadata": {"name": "weft-control"}}),
            (f"{rbac}/roles", ROLE),
            (f"{rbac}/rolebindings", BINDING),
        ):
            (await client.post(path, json=document)).raise_for_status()
        made = await client.post(f"{core}/weft-control/token", json={"spec": {}})
        token = made.raise_for_status().json()["status"]["token"]
    return PodAccess(server.url, token, server.trust(), NAMESPACE)


async def empty_config_map(api: ClusterApi) -> None:
    """As the installation's manifests have it: without data."""
    await api.cluster.create(CONFIG_MAP, {"metadata": {"name": NAME, "namespace": NAMESPACE}})


async def published(api: ClusterApi) -> object:
    found = await api.cluster.get(CONFIG_MAP, Key(NAMESPACE, NAME))
    return cast(dict[str, Any], found or {}).get("data")


async def test_a_config_map_is_kept_like_the_file(api: ClusterApi, tmp_path: Path) -> None:
    file, clock = tmp_path / "mesh.pem", Time()
    access = everything(api) if api.server is None else await as_control_plane(api.server)
    publication = RootsPublication(file, NAME, lambda: access, clock=clock)
    assert not await publication.look()
    assert await publication.ready() == f"there are no roots in {file} yet"
    first, second = Pki().bundle().pem, Pki().bundle().pem
    file.write_bytes(first)
    with pytest.raises(NotFound, match=r"ConfigMap default/weft-roots .* apply the installation's manifests"):
        await publication.look()
    await empty_config_map(api)
    assert await publication.look()
    assert await publication.ready() == ""
    assert await published(api) == {"roots.pem": first.decode()}
    assert not await publication.look()
    file.write_bytes(second)
    assert await publication.look()
    assert await published(api) == {"roots.pem": second.decode()}
    # Who removes them has them back in a while; what else is there stays.
    await api.cluster.merge(
        CONFIG_MAP, Key(NAMESPACE, NAME), {"data": {"roots.pem": None, "note": "of somebody"}}
    )
    assert not await publication.look()
    clock.now += AGAIN_AFTER
    assert await publication.look()
    assert await published(api) == {"roots.pem": second.decode(), "note": "of somebody"}
    # What is none leaves what is there.
    for nothing in (b"none", b"\xff", b"-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n"):
        file.write_bytes(nothing)
        with pytest.raises(InvalidRequest, match="holds no certificates"):
            await publication.look()
    file.write_bytes(b"x" * (1024 * 1024 + 1))
    with pytest.raises(InvalidRequest, match="has more than"):
        await publication.look()
    assert await published(api) == {"roots.pem": second.decode(), "note": "of somebody"}
    if api.server is not None:
        file.write_bytes(first)
        with pytest.raises(Denied, match="a Role that may patch this ConfigMap"):
            await RootsPublication(file, "others", lambda: access).look()


async def test_who_is_not_let_in_is_told_why(api: ClusterApi, tmp_path: Path) -> None:
    (tmp_path / "mesh.pem").write_bytes(Pki().bundle().pem)
    right = everything(api)
    nobody = PodAccess(right.url, "of-nobody", right.trust, NAMESPACE)
    with pytest.raises(Unauthenticated, match="is the pod's service account token of this cluster"):
        await RootsPublication(tmp_path / "mesh.pem", NAME, lambda: nobody).look()
    away = PodAccess(f"https://{HOST}:1", right.token, right.trust, NAMESPACE)
    with pytest.raises(Unavailable, match="does not answer"):
        await RootsPublication(tmp_path / "mesh.pem", NAME, lambda: away).look()


_PROGRAM = (
    "import sys, pathlib; import weft.identity.pod_access as p; "
    "p.PodAccess.of.__func__.__defaults__ = (pathlib.Path(sys.argv[1]),); "
    "from weft.cli.main import run; sys.exit(run(sys.argv[2:]))"
)


async def test_the_process_of_a_pod_publishes_and_stops_when_asked(tmp_path: Path) -> None:
    pki, credentials, file = Pki(), tmp_path / "serviceaccount", tmp_path / "mesh.pem"
    (tmp_path / "server.pem").write_bytes(b"".join(pki.svid("")))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "server.pem")
    credentials.mkdir()
    (credentials / "ca.crt").write_bytes(pki.bundle().pem)
    (credentials / "token").write_text(f"{TOKEN}\n")
    (credentials / "namespace").write_text(NAMESPACE)
    with reserve_port(HOST) as reserved:
        port = reserved.port
    async with AsyncExitStack() as ends:
        stand_in = await ends.enter_async_context(KubernetesStandIn().serving(tls))
        guard = await ends.enter_async_context(Guard(grace=0.1))
        log = ends.enter_context((tmp_path / "log").open("wb"))
        where = httpx.URL(stand_in.url)
        trust = ssl.create_default_context(cadata=pki.bundle().pem.decode())
        anyone = await ends.enter_async_context(
            httpx.AsyncClient(
                base_url=stand_in.url, verify=trust, headers={"authorization": f"Bearer {TOKEN}"}
            )
        )
        path = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
        (await anyone.post(path, json={"metadata": {"name": NAME}})).raise_for_status()
        child = await spawn(
            [
                *(sys.executable, "-c", _PROGRAM, str(credentials), "kubernetes", "publish-roots"),
                *("--file", str(file), "--config-map", NAME),
                *("--listen", HOST, "--health-port", str(port)),
            ],
            guard=guard,
            environ={
                "KUBERNETES_SERVICE_HOST": where.host,
                "KUBERNETES_SERVICE_PORT": str(where.port),
            },
            stdout=log.fileno(),
            stderr=asyncio.subprocess.STDOUT,
        )
        ends.push_async_callback(child.stop, 60.0)
        probes = await ends.enter_async_context(
            httpx.AsyncClient(base_url=f"http://{HOST}:{port}", trust_env=False)
        )

        async def says(path: str, status: int) -> bool:
            assert child.running, (tmp_path / "log").read_text()
            try:
                return (await probes.get(path)).status_code == status
            except httpx.TransportError:
                return False

        async with asyncio.timeout(PATIENCE):
            await until(lambda: says("/livez", 200))
            await until(lambda: says("/readyz", 503))
            file.write_bytes(pki.bundle().pem)
            await until(lambda: says("/readyz", 200))
        found = (await anyone.get(f"{path}/{NAME}")).raise_for_status().json()
        assert found["data"] == {"roots.pem": pki.bundle().pem.decode()}
        assert await child.stop(60.0) == 0


async def test_outside_of_a_pod_it_says_so(tmp_path: Path) -> None:
    def nowhere() -> PodAccess:
        return PodAccess.of({})

    (tmp_path / "mesh.pem").write_bytes(Pki().bundle().pem)
    with pytest.raises(MeshError, match="in a pod of a cluster only"):
        await RootsPublication(tmp_path / "mesh.pem", NAME, nowhere).look()
