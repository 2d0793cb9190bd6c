"""An installation that runs: each container's command, with what stands in its pod and nothing else.

The API server is real, and so are accounts, tokens and rights. There are no kubelets, Services and volumes of
a cluster: in their place is node.py. One NATS server, one control plane.
"""

from __future__ import annotations

import asyncio
import base64
import re
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
from tests.integration.kubernetes.node import LIMIT, Node, pods_of
from tests.integration.kubernetes.test_installation_served import apply
from tests.kubernetes_documents import Document
from tests.kubernetes_server import kubernetes_server, missing

from weft.aio.poll import until
from weft.aio.ports import reserve_port
from weft.kubernetes.custom_resources import custom_resource_definitions
from weft.kubernetes.installation import installation
from weft.kubernetes.installation.assembly import namespace_document
from weft.kubernetes.installation_values import read_values
from weft.kubernetes.manifest_text import read_manifests
from weft.local.control import ControlApi

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

HOST = "127.0.0.1"
WEBHOOK, CONTROLLER, GATEWAY = "127.0.0.3", "127.0.0.4", "127.0.0.5"
OTHERS = {"weft-webhook": WEBHOOK, "weft-controller": CONTROLLER, "weft-gateway-public": GATEWAY}
NAMESPACE = "weft-system"
VALUES: Document = {
    "nats": {"replicas": 1},
    "control": {"replicas": 1},
    "gateways": {"public": {"replicas": {"least": 1, "most": 1}}},
}
RESTORE = Path(__file__).parents[3] / "examples" / "kubernetes" / "restore.yaml"
PORTS = (7400, 7401, 7404, 7405, 7406, 4222, 6222, 8222, 8223, 9443, 8081, 8080, 7443, 7490)
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GATEWAYS = f"/apis/weft.dev/v1alpha1/namespaces/{NAMESPACE}/gateways"


def elsewhere() -> dict[str, str]:
    """Where on this machine is what the manifests speak of."""
    with ExitStack() as held:
        ports = {str(each): str(held.enter_context(reserve_port(HOST)).port) for each in PORTS}
    hosts = (
        "weft-nats-0.weft-nats.weft-system.svc",
        "weft-nats.weft-system.svc",
        "weft-control.weft-system.svc",
    )
    return {**ports, "$(POD_NAME).weft-nats.weft-system.svc": HOST, **dict.fromkeys(hosts, HOST)}


async def secret(api: httpx.AsyncClient, name: str, key: str) -> str:
    answer = await api.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/{name}")
    return base64.b64decode(answer.raise_for_status().json()["data"][key]).decode()


async def installed(api: httpx.AsyncClient) -> dict[str, Document]:
    """Everything is applied; the pods that the cluster would make of it."""
    for each in custom_resource_definitions():
        (await api.post(DEFINITIONS, json=each)).raise_for_status()
    documents = [namespace_document(NAMESPACE), *installation(read_values(VALUES), namespace=NAMESPACE)]
    for each in documents:
        (await apply(api, each)).raise_for_status()
    pods = pods_of(documents)
    [monitored] = [pods["weft-nats"]["spec"]["containers"][0]["args"]]
    monitored.append("--monitor-port=8222")
    pods["weft-nats-0"] = pods.pop("weft-nats")
    pods["weft-nats-0"]["metadata"]["name"] = "weft-nats-0"
    return pods


async def test_an_installation_comes_up_and_a_gateway_declared_in_the_cluster_serves(tmp_path: Path) -> None:
    async with AsyncExitStack() as ends:
        server = await ends.enter_async_context(kubernetes_server(tmp_path))
        api = await ends.enter_async_context(server.client())
        places = elsewhere()
        pods = await installed(api)
        # Not below tmp_path: the paths of Unix sockets are short.
        directory = ends.enter_context(TemporaryDirectory(prefix="weft-node-"))
        node = Node(server, api, Path(directory), places)
        ends.push_async_callback(node.stop)
        [job] = [name for name in pods if name.startswith("weft-bootstrap")]
        await node.start(pods[job], HOST)
        await node.succeeds("bootstrap")
        await node.start(pods["weft-nats-0"], HOST)
        await node.start(pods["weft-control"], HOST)
        for name in ("weft-nats-0", "weft-control"):
            await node.passes(pods[name], HOST)
        for name, ip in OTHERS.items():
            await node.start(pods[name], ip)
        await node.passes(pods["weft-webhook"], WEBHOOK)
        await node.passes(pods["weft-controller"], CONTROLLER)
        declared = {
            "apiVersion": "weft.dev/v1alpha1",
            "kind": "Gateway",
            "metadata": {"name": "public"},
            "spec": {"anonymous": True},
        }
        (await api.post(GATEWAYS, json=declared)).raise_for_status()
        await node.passes(pods["weft-gateway-public"], GATEWAY)
        for name, ip in (("weft-webhook", WEBHOOK), ("weft-controller", CONTROLLER), ("weft-nats-0", HOST)):
            await node.passes(pods[name], ip, probe="livenessProbe")
        await operator_sees(api, places, tmp_path)
        await until_ready(api)
        code, backup = await node.execute("control", "weft", "kubernetes", "backup")
        assert code == 0
        await node.stop()
        await restored(Node(server, api, Path(directory, "anew"), places), pods, backup, ends)
        await operator_sees(api, places, tmp_path)


async def restored(node: Node, pods: dict[str, Document], backup: bytes, ends: AsyncExitStack) -> None:
    """As docs/kubernetes.md says: NATS is empty, no control plane runs, and a pod restores the backup."""
    ends.push_async_callback(node.stop)
    await node.start(pods["weft-nats-0"], HOST)
    await node.passes(pods["weft-nats-0"], HOST)
    [pod] = read_manifests(one_server(RESTORE.read_text()), RESTORE.name)
    await node.start(pod, HOST)
    code, said = await node.execute("restore", "weft", "kubernetes", "restore", given=backup)
    assert (code, said.endswith(b" streams restored\n")) == (0, True)
    await node.start(pods["weft-control"], HOST)
    await node.passes(pods["weft-control"], HOST)


def one_server(text: str) -> str:
    """The example with what its first lines say of one NATS server."""
    [first, *others] = re.findall(r'"tls://weft-nats-[0-9][^"]*"', text)
    return re.sub(r"\[" + first + r".*?\]", f"[{first}]", text, flags=re.DOTALL).replace(
        'NATS_REPLICAS, value: "3"', f'NATS_REPLICAS, value: "{len(others) - 1}"'
    )


async def operator_sees(api: httpx.AsyncClient, places: dict[str, str], directory: Path) -> None:
    """As by `kubectl port-forward`, with the token and the roots that lie in the cluster."""
    answer = await api.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/weft-roots")
    roots = directory / "operators-roots.pem"
    roots.write_text(answer.raise_for_status().json()["data"]["roots.pem"])
    token = (await secret(api, "weft-operator-token", "token")).strip()
    async with ControlApi(f"https://localhost:{places['7400']}", token=token, roots=roots) as control:
        [gateway] = (await control.resource("gateways", "public"),)
        assert gateway["spec"]["anonymous"] is True


async def until_ready(api: httpx.AsyncClient) -> None:
    """The cluster says of the custom resource that the mesh has it."""

    async def ready() -> bool:
        status = (await api.get(f"{GATEWAYS}/public")).json().get("status", {})
        return any(
            (each["type"], each["status"]) == ("Ready", "True") for each in status.get("conditions", [])
        )

    async with asyncio.timeout(LIMIT):
        await until(ready)
