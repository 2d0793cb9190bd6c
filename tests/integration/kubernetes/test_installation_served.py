"""An installation in a real kube-apiserver: taken as it is, restricted, and able to do what it has to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from tests.integration.kubernetes.node import pods_of
from tests.kubernetes_documents import Document
from tests.kubernetes_server import kubernetes_server, missing

from weft.kubernetes.installation import installation
from weft.kubernetes.installation.assembly import namespace_document
from weft.kubernetes.installation_values import read_values

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

NAMESPACE = "weft-system"
PLURALS = {
    "NetworkPolicy": "networkpolicies",
    "ServiceAccount": "serviceaccounts",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "Job": "jobs",
    "Service": "services",
    "StatefulSet": "statefulsets",
    "Deployment": "deployments",
    "ConfigMap": "configmaps",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "HorizontalPodAutoscaler": "horizontalpodautoscalers",
    "MutatingWebhookConfiguration": "mutatingwebhookconfigurations",
    "ValidatingWebhookConfiguration": "validatingwebhookconfigurations",
    "Namespace": "namespaces",
}
VALUES: Document = {
    "gateways": {"public": {"tlsSecret": "public-tls"}, "partners": {"replicas": {"least": 2, "most": 2}}},
    "controller": {"secretsIn": [NAMESPACE]},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "agents", "operator": "Exists", "effect": "NoSchedule"}],
    "control": {"filesSecret": "collector", "settings": {"WEFT_CONTROL_TRACE_AGE": "60"}},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """An API server in which an installation was applied, to the strict."""
    directory: Path = tmp_path_factory.mktemp("kubernetes")
    async with kubernetes_server(directory) as server, server.client() as client:
        for each in documents():
            answer = await apply(client, each)
            assert answer.status_code == 201, answer.text
            assert answer.headers.get_list("warning") == []
        yield client


def documents() -> list[Document]:
    return [namespace_document(NAMESPACE), *installation(read_values(VALUES), namespace=NAMESPACE)]


def path(document: Document) -> str:
    version, metadata = document["apiVersion"], document["metadata"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    inside = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    return f"{root}{inside}/{PLURALS[document['kind']]}/{metadata['name']}"


async def apply(api: httpx.AsyncClient, document: Document) -> httpx.Response:
    """As `kubectl apply --server-side` does it."""
    return await api.patch(
        path(document),
        json=document,
        params={"fieldManager": "kubectl", "fieldValidation": "Strict"},
        headers={"content-type": "application/apply-patch+yaml"},
    )


async def test_its_pods_are_let_in_where_all_is_restricted(api: httpx.AsyncClient) -> None:
    where = f"/api/v1/namespaces/{NAMESPACE}/pods"
    found = [*pods_of(documents()).values()]
    assert len(found) == 7
    for each in found:
        answer = await api.post(where, json=each)
        assert answer.status_code == 201, answer.text
        assert answer.headers.get_list("warning") == []
    unrestricted = found[0]
    unrestricted["metadata"]["name"] = "unrestricted"
    del unrestricted["spec"]["containers"][0]["securityContext"]["capabilities"]
    refused = await api.post(where, json=unrestricted)
    assert refused.status_code == 403, "or this would tell nothing"


async def test_applied_again_it_leaves_what_others_wrote(api: httpx.AsyncClient) -> None:
    """The mesh's roots, and the authority that the webhook's process puts into its configuration."""
    by_path = {path(each): each for each in documents()}
    roots = f"/api/v1/namespaces/{NAMESPACE}/configmaps/weft-roots"
    [hooks] = [each for each in by_path if each.endswith("/weft-injector")]
    data = {"data": {"roots.pem": "PEM"}}
    answer = await api.patch(roots, json=data, headers={"content-type": "application/merge-patch+json"})
    assert answer.status_code == 200, answer.text
    bundle = [{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": "UEVN"}]
    answer = await api.patch(hooks, json=bundle, headers={"content-type": "application/json-patch+json"})
    assert answer.status_code == 200, answer.text
    for each in by_path.values():
        if each["kind"] != "Job":
            answer = await apply(api, each)
            assert answer.status_code == 200, answer.text
    assert (await api.get(roots)).json()["data"] == {"roots.pem": "PEM"}
    assert (await api.get(hooks)).json()["webhooks"][0]["clientConfig"]["caBundle"] == "UEVN"


def account(name: str) -> str:
    return f"system:serviceaccount:{NAMESPACE}:{name}"


async def allowed(
    api: httpx.AsyncClient,
    user: str,
    verb: str,
    resource: str,
    *,
    group: str = "",
    name: str = "",
    namespace: str = NAMESPACE,
) -> bool:
    asked = {"verb": verb, "group": group, "resource": resource, "name": name, "namespace": namespace}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": account(user), "resourceAttributes": asked},
    }
    answer = await api.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", json=review)
    assert answer.status_code == 201, answer.text
    return bool(answer.json()["status"]["allowed"])


@pytest.mark.parametrize(
    ("user", "verb", "resource", "more"),
    [
        ("weft-bootstrap", "create", "secrets", {}),
        ("weft-control", "patch", "configmaps", {"name": "weft-roots"}),
        ("weft-control", "create", "tokenreviews", {"group": "authentication.k8s.io", "namespace": ""}),
        ("weft-controller", "update", "leases", {"group": "coordination.k8s.io", "name": "weft-controller"}),
        ("weft-controller", "patch", "deployments", {"group": "apps", "namespace": "agents"}),
        ("weft-controller", "patch", "configmaps", {"name": "weft-roots", "namespace": "agents"}),
        ("weft-controller", "get", "secrets", {"name": "provider"}),
        ("weft-webhook", "list", "agents", {"group": "weft.dev", "namespace": ""}),
        (
            "weft-webhook",
            "patch",
            "mutatingwebhookconfigurations",
            {"group": "admissionregistration.k8s.io", "name": "weft-injector", "namespace": ""},
        ),
    ],
)
async def test_each_part_may_do_what_it_has_to(
    api: httpx.AsyncClient, user: str, verb: str, resource: str, more: dict[str, str]
) -> None:
    assert await allowed(api, user, verb, resource, **more)


@pytest.mark.parametrize(
    ("user", "verb", "resource", "more"),
    [
        ("weft-bootstrap", "get", "secrets", {"name": "weft-sealing-key"}),
        ("weft-nats", "get", "configmaps", {"name": "weft-roots"}),
        ("weft-control", "get", "secrets", {"name": "weft-sealing-key"}),
        ("weft-control", "patch", "configmaps", {"name": "kube-root-ca.crt"}),
        ("weft-controller", "get", "secrets", {"name": "provider", "namespace": "agents"}),
        ("weft-controller", "list", "secrets", {}),
        ("weft-controller", "create", "pods", {"namespace": "agents"}),
        ("weft-controller", "patch", "configmaps", {"name": "settings", "namespace": "agents"}),
        ("weft-controller", "create", "clusterrolebindings", {"group": "rbac.authorization.k8s.io"}),
        ("weft-webhook", "get", "secrets", {"name": "weft-webhook"}),
        (
            "weft-webhook",
            "patch",
            "mutatingwebhookconfigurations",
            {"group": "admissionregistration.k8s.io", "name": "another", "namespace": ""},
        ),
        ("public", "get", "configmaps", {"name": "weft-roots"}),
    ],
)
async def test_no_part_may_do_more(
    api: httpx.AsyncClient, user: str, verb: str, resource: str, more: dict[str, str]
) -> None:
    assert not await allowed(api, user, verb, resource, **more)
