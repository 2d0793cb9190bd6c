"""What AgentDeployments stand for in a real kube-apiserver, which lets only restricted pods in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from tests.kubernetes_documents import Document
from tests.kubernetes_server import kubernetes_server, missing

from weft.kubernetes.agent_deployment import AgentDeployment, read_agent_deployment
from weft.kubernetes.agent_manifests import agent_manifests
from weft.kubernetes.injection import InjectionSettings

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

NAMESPACE = "agents"
STRICT = {"fieldValidation": "Strict"}
PATHS = {
    "ServiceAccount": "/api/v1/namespaces/agents/serviceaccounts",
    "Service": "/api/v1/namespaces/agents/services",
    "Deployment": "/apis/apps/v1/namespaces/agents/deployments",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/agents/poddisruptionbudgets",
    "HorizontalPodAutoscaler": "/apis/autoscaling/v2/namespaces/agents/horizontalpodautoscalers",
}
SETTINGS = pytest.mark.parametrize(
    ("name", "settings"), [("alone", None), ("beside", InjectionSettings())], ids=["alone", "with a sidecar"]
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """An API server with a namespace for agents, in which PodSecurity is `restricted`."""
    directory: Path = tmp_path_factory.mktemp("kubernetes")
    rules = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    async with kubernetes_server(directory) as server, server.client() as client:
        metadata = {"name": NAMESPACE, "labels": rules}
        answer = await client.post("/api/v1/namespaces", json={"metadata": metadata})
        assert answer.status_code == 201, answer.text
        yield client


def deployment(name: str) -> AgentDeployment:
    spec = {
        "image": "registry.example/agent:1",
        "agent": {"capabilities": ["summarize"], "version": "1", "labels": {"team": "texts"}},
        "secretEnvironment": {"HOLYSHEEP_API_KEY": {"name": "holysheep", "key": "api-key"}},
    }
    return read_agent_deployment({"metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})


async def created(api: httpx.AsyncClient, path: str, document: Document) -> httpx.Response:
    return await api.post(path, json=document, params=STRICT)


@SETTINGS
async def test_everything_is_taken_without_a_warning(
    api: httpx.AsyncClient, name: str, settings: InjectionSettings | None
) -> None:
    documents = agent_manifests(deployment(name), settings).documents
    assert [each["kind"] for each in documents] == list(PATHS)
    for each in documents:
        answer = await created(api, PATHS[each["kind"]], each)
        assert answer.status_code == 201, answer.text
        assert answer.headers.get_list("warning") == []


@SETTINGS
async def test_its_pods_are_let_in_where_all_is_restricted(
    api: httpx.AsyncClient, name: str, settings: InjectionSettings | None
) -> None:
    documents = agent_manifests(deployment(name), settings).documents
    [template] = [each["spec"]["template"] for each in documents if each["kind"] == "Deployment"]
    pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
    pod = {"apiVersion": "v1", "kind": "Pod", **template}
    pod["metadata"] = {**template["metadata"], "name": name}
    answer = await created(api, pods, pod)
    assert answer.status_code == 201, answer.text
    [container] = pod["spec"]["containers"]
    pod["metadata"]["name"] = f"{name}-unrestricted"
    del container["securityContext"]
    refused = await created(api, pods, pod)
    assert refused.status_code == 403, "or this would tell nothing"
