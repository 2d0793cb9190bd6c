"""The Helm chart in a real kube-apiserver: installed, upgraded, taken away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests import helm_chart
from tests.kubernetes_documents import Document
from tests.kubernetes_server import kubernetes_server, missing

from weft.kubernetes.custom_resources import custom_resource_definitions

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.skipif(helm_chart.missing() is not None, reason=str(helm_chart.missing())),
]

NAMESPACE = "weft-system"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1"
INJECTOR = f"{WEBHOOKS}/mutatingwebhookconfigurations/weft-injector"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ROOTS = f"/api/v1/namespaces/{NAMESPACE}/configmaps/weft-roots"
CONTROL = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/weft-control"
MERGE = {"content-type": "application/merge-patch+json"}
AUTHORITY = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t"
UNCHANGEABLE: list[tuple[Document, str]] = [
    ({"storage": {"size": "20Gi"}}, "nats.storage.size cannot be changed here"),
    ({"storage": {"className": "fast"}}, "nats.storage.className cannot be changed"),
    ({"replicas": 1}, "nats.replicas cannot go from 3 to 1"),
]


class Cluster:
    """A kube-apiserver, and Helm in front of it."""

    def __init__(self, client: httpx.AsyncClient, certificate: Path) -> None:
        """`certificate` is the API server's."""
        self._client = client
        self._certificate = certificate

    async def helm(self, *arguments: str, values: Mapping[str, Any] | None = None) -> str:
        """Run Helm; it knows the cluster and the namespace."""
        flags = (
            *("--kube-apiserver", str(self._client.base_url), "--kube-ca-file", str(self._certificate)),
            *("--kube-token", self._client.headers["authorization"].removeprefix("Bearer ")),
            *("--namespace", NAMESPACE),
        )
        return await asyncio.to_thread(helm_chart.helm, [*arguments, *flags], values)

    async def get(self, path: str) -> Document:
        """What is there."""
        answer = await self._client.get(path)
        assert answer.status_code == 200, answer.text
        found: Document = answer.json()
        return found

    async def patch(self, path: str, change: Document) -> None:
        """Change what is there, as something does that runs in the cluster."""
        answer = await self._client.patch(path, json=change, headers=MERGE)
        assert answer.status_code == 200, answer.text

    async def apply(self, path: str, document: Document) -> None:
        """Apply what Helm does not upgrade, as `kubectl apply --server-side --force-conflicts` does."""
        answer = await self._client.patch(
            path,
            params={"fieldManager": "kubectl", "force": "true"},
            json=document,
            headers={"content-type": "application/apply-patch+yaml"},
        )
        assert answer.status_code == 200, answer.text

    async def is_there(self, path: str) -> bool:
        """Whether it is."""
        return (await self._client.get(path)).status_code != 404


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    directory = tmp_path_factory.mktemp("kubernetes")
    async with kubernetes_server(directory) as server, server.client() as client:
        yield Cluster(client, directory / "certificates" / "apiserver.crt")


async def test_a_release_is_installed_upgraded_and_taken_away(cluster: Cluster) -> None:
    chart = str(helm_chart.CHART)
    await cluster.helm("install", "weft", chart, "--create-namespace")
    assert (await cluster.get(CONTROL))["spec"]["replicas"] == 3
    assert await cluster.is_there("/apis/weft.dev/v1alpha1/agents")

    definition = custom_resource_definitions()[0]
    definition["spec"]["names"]["shortNames"] = ["another"]
    await cluster.apply(f"{DEFINITIONS}/{definition['metadata']['name']}", definition)

    # What runs there writes these: an upgrade must not take it away.
    await cluster.patch(ROOTS, {"data": {"roots.pem": "-----BEGIN CERTIFICATE-----"}})
    webhooks = (await cluster.get(INJECTOR))["webhooks"]
    webhooks[0]["clientConfig"]["caBundle"] = AUTHORITY
    await cluster.patch(INJECTOR, {"webhooks": webhooks})

    values = {
        "image": {"tag": "0.9.9"},
        "control": {"replicas": 5},
        "gateways": {"front": {}},
        "monitoring": {"annotations": False},
    }
    await cluster.helm("upgrade", "weft", chart, "--values", "-", values=values)
    control = (await cluster.get(CONTROL))["spec"]
    assert control["replicas"] == 5
    assert control["template"]["spec"]["containers"][0]["image"] == "weft:0.9.9"
    assert (await cluster.get(ROOTS))["data"] == {"roots.pem": "-----BEGIN CERTIFICATE-----"}
    assert (await cluster.get(INJECTOR))["webhooks"][0]["clientConfig"]["caBundle"] == AUTHORITY

    # What a StatefulSet, or NATS, cannot become is said before anything is changed.
    for nats, text in UNCHANGEABLE:
        with pytest.raises(helm_chart.Refused, match=text):
            await cluster.helm("upgrade", "weft", chart, "--values", "-", values={"nats": nats})

    await cluster.helm("rollback", "weft", "1")
    assert (await cluster.get(CONTROL))["spec"]["replicas"] == 3

    await cluster.helm("uninstall", "weft")
    assert not await cluster.is_there(CONTROL)
    assert not await cluster.is_there(INJECTOR)
    assert await cluster.is_there("/apis/weft.dev/v1alpha1/agents"), "what users declared went with it"
