"""Services without sidecars in a cluster, and the ExternalAgents that are made of them.

One suite for the real API server and its stand-in. Which addresses are ready, the tests say.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.hosting import hosted
from tests.kubernetes_clusters import CLUSTERS, ClusterApi, cluster_api
from tests.kubernetes_documents import Document
from tests.kubernetes_loop import events, gone, holds, looping, parts_without_mesh, there

from weft.kubernetes.controller.agent_deployments import SERVICE
from weft.kubernetes.controller.kinds import Key
from weft.kubernetes.controller.plain_services import ENDPOINT_SLICE, EXTERNAL_AGENT, PlainServices

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

DISCOVER = {"weft.dev/discover": "true"}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=CLUSTERS)
async def api(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ClusterApi]:
    async with hosted(cluster_api(request.param, tmp_path_factory.mktemp("cluster"))) as running:
        yield running


async def service(
    api: ClusterApi, key: Key, *ports: Document, discover: str = "true", **annotations: str
) -> None:
    document = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": key.name,
            "namespace": key.namespace,
            "labels": {"weft.dev/discover": discover},
            "annotations": {f"weft.dev/{name}": value for name, value in annotations.items()},
        },
        "spec": {"ports": list(ports or ({"name": "http", "port": 80},)), "selector": {"app": key.name}},
    }
    await api.cluster.apply(SERVICE, document, manager="tests")


async def ready(api: ClusterApi, key: Key, *addresses: str) -> None:
    """Say as the cluster would which addresses of a Service are ready."""
    document = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{key.name}-slice",
            "namespace": key.namespace,
            "labels": {**DISCOVER, "kubernetes.io/service-name": key.name},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [each], "conditions": {"ready": True}} for each in addresses],
    }
    await api.cluster.apply(ENDPOINT_SLICE, document, manager="tests")


def calls(*endpoints: str) -> Document:
    return {"endpoints": list(endpoints)}


async def test_a_plain_service_is_an_agent_for_as_long_as_an_address_is_ready(api: ClusterApi) -> None:
    key = Key(await api.namespace("plain"), "crm")
    async with looping(PlainServices(parts_without_mesh(api))):
        await service(api, key)
        await ready(api, key, "10.0.0.7", "10.0.0.8")
        both = calls("10.0.0.7:8080", "10.0.0.8:8080")
        made = await there(api, EXTERNAL_AGENT, key, lambda found: bool(found["spec"] == both))
        [owner] = made["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"]) == ("Service", "crm")
        await ready(api, key, "10.0.0.8")
        one = calls("10.0.0.8:8080")
        await there(api, EXTERNAL_AGENT, key, lambda found: bool(found["spec"] == one))
        await ready(api, key)
        await gone(api, EXTERNAL_AGENT, key)
        await ready(api, key, "10.0.0.9")
        await there(api, EXTERNAL_AGENT, key)
        await api.cluster.merge(SERVICE, key, {"metadata": {"labels": {"weft.dev/discover": None}}})
        await gone(api, EXTERNAL_AGENT, key)


async def test_another_type_is_another_agent_and_what_was_changed_is_put_right(api: ClusterApi) -> None:
    key = Key(await api.namespace("typed"), "crm")
    customers = Key(key.namespace, "customers")
    async with looping(PlainServices(parts_without_mesh(api))):
        await service(api, key)
        await ready(api, key, "10.0.0.7")
        await there(api, EXTERNAL_AGENT, key)
        await service(api, key, type="customers", capabilities="find")
        await gone(api, EXTERNAL_AGENT, key)
        wanted = {**calls("10.0.0.7:8080"), "capabilities": ["find"]}
        await there(api, EXTERNAL_AGENT, customers, lambda found: bool(found["spec"] == wanted))
        await api.cluster.merge(EXTERNAL_AGENT, customers, {"spec": {"version": "theirs"}})
        await there(api, EXTERNAL_AGENT, customers, lambda found: bool(found["spec"] == wanted))


async def test_what_is_wrong_with_a_service_is_told_and_it_is_no_agent(api: ClusterApi) -> None:
    key = Key(await api.namespace("unclear"), "crm")

    async def told() -> bool:
        return ("Warning", "PortUnclear") in await events(api, key)

    async with looping(PlainServices(parts_without_mesh(api))):
        await service(api, key)
        await ready(api, key, "10.0.0.7")
        await there(api, EXTERNAL_AGENT, key)
        await service(api, key, {"name": "http", "port": 80}, {"name": "metrics", "port": 81})
        await gone(api, EXTERNAL_AGENT, key)
        await holds(told)


async def test_what_somebody_declared_is_left_alone_and_told(api: ClusterApi) -> None:
    key = Key(await api.namespace("declared"), "crm")
    theirs = calls("crm.example:80")
    await api.declare("ExternalAgent", key.name, theirs, key.namespace)

    async def told() -> bool:
        return ("Warning", "NameTaken") in await events(api, key)

    async with looping(PlainServices(parts_without_mesh(api))):
        await service(api, key)
        await ready(api, key, "10.0.0.7")
        await holds(told)
        found = await api.found("ExternalAgent", key.name, key.namespace)
        assert found is not None
        assert found["spec"] == theirs


async def test_services_that_ask_for_nothing_are_none_of_the_meshs(api: ClusterApi) -> None:
    key, asked = Key(await api.namespace("quiet"), "crm"), Key("quiet", "asked")
    async with looping(PlainServices(parts_without_mesh(api))):
        await service(api, key, discover="false")
        await ready(api, key, "10.0.0.7")
        await service(api, asked)
        await ready(api, asked, "10.0.0.8")
        await there(api, EXTERNAL_AGENT, asked)
        assert await api.cluster.get(EXTERNAL_AGENT, key) is None
