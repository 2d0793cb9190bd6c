"""The Gateway API's HTTPRoutes in a cluster, for tests: the kind by name, without its schema."""

from __future__ import annotations

from tests.kubernetes_clusters import DEFINITION, ClusterApi
from tests.kubernetes_documents import Document
from tests.kubernetes_loop import holds
from weft.errors import NotFound
from weft.kubernetes.controller.cluster import Cluster
from weft.kubernetes.controller.http_routes import HTTP_ROUTE
from weft.kubernetes.controller.kinds import Key

PARENT = {"group": "", "kind": "Service", "name": "summarizer"}

_TEXT = {"type": "string"}
_OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
GATEWAY_API = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "httproutes.gateway.networking.k8s.io",
        "annotations": {"api-approved.kubernetes.io": "unapproved, of a test"},
    },
    "spec": {
        "group": "gateway.networking.k8s.io",
        "names": {
            "kind": "HTTPRoute",
            "listKind": "HTTPRouteList",
            "plural": "httproutes",
            "singular": "httproute",
        },
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "apiVersion": _TEXT,
                            "kind": _TEXT,
                            "metadata": {"type": "object"},
                            "spec": _OPEN,
                            "status": _OPEN,
                        },
                    }
                },
            }
        ],
    },
}


async def define_http_routes(cluster: Cluster) -> None:
    """Have the cluster serve them."""
    await cluster.create(DEFINITION, GATEWAY_API)

    async def served() -> bool:
        try:
            await cluster.list(HTTP_ROUTE)
        except NotFound:
            return False
        return True

    await holds(served)


async def http_route(
    api: ClusterApi, key: Key, *rules: Document, parents: tuple[Document, ...] = (PARENT,)
) -> None:
    """Declare an HTTPRoute."""
    document = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": key.name, "namespace": key.namespace},
        "spec": {"parentRefs": list(parents), "rules": list(rules)},
    }
    await api.cluster.apply(HTTP_ROUTE, document, manager="tests")
