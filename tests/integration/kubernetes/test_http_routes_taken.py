"""HTTPRoutes of the Gateway API in a cluster: the Routes that are made of them, and what their status says.

One suite for the real API server and its stand-in. Whether the mesh has a Route, the tests say here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from tests.gateway_api import PARENT, define_http_routes, http_route
from tests.hosting import hosted
from tests.kubernetes_clusters import CLUSTERS, ClusterApi, cluster_api
from tests.kubernetes_loop import events, gone, holds, looping, parts_without_mesh, there

from weft.kubernetes.controller.agent_deployments import SERVICE
from weft.kubernetes.controller.conditions import Condition, with_conditions
from weft.kubernetes.controller.http_routes import HTTP_ROUTE, ROUTE, HttpRoutes
from weft.kubernetes.controller.kinds import NAMESPACE, Document, Key, key_of

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

HALF = {"backendRefs": [{"name": "summarizer", "port": 80}, {"name": "summarizer-v2", "port": 80}]}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=CLUSTERS)
async def api(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ClusterApi]:
    async with hosted(cluster_api(request.param, tmp_path_factory.mktemp("cluster"))) as running:
        await define_http_routes(running.cluster)
        yield running


@asynccontextmanager
async def controlling(api: ClusterApi) -> AsyncIterator[None]:
    """The reconciler, as the controller runs it; afterwards nothing is left of HTTPRoutes and Routes.

    A type is one in all namespaces, so what one test leaves would be in force in the next.
    """
    try:
        async with looping(HttpRoutes(parts_without_mesh(api))):
            yield
    finally:
        for kind in (HTTP_ROUTE, ROUTE):
            for each in (await api.cluster.list(kind)).items:
                await api.cluster.delete(kind, key_of(each))


async def service(api: ClusterApi, name: str, namespace: str, **annotations: str) -> None:
    metadata = {
        "name": name,
        "namespace": namespace,
        "annotations": {f"weft.dev/{each}": value for each, value in annotations.items()},
    }
    spec = {"ports": [{"port": 80}], "selector": {"app": name}}
    await api.cluster.apply(
        SERVICE, {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}, manager="tests"
    )


async def meshed_namespace(api: ClusterApi, name: str) -> str:
    """A namespace whose pods get sidecars, with two versions of the summarizer."""
    await api.namespace(name)
    patch = {"metadata": {"labels": {"weft.dev/injection": "enabled"}}}
    await api.cluster.merge(NAMESPACE, Key("", name), patch)
    await service(api, "summarizer", name)
    await service(api, "summarizer-v2", name, type="summarizer", version="2")
    return name


def route_key(namespace: str) -> Key:
    return Key(namespace, "httproute-summarizer")


async def route(api: ClusterApi, key: Key, matches: Callable[[Document], bool] = bool) -> Document:
    """The Route of a key, once there is one that is as wanted."""
    return await there(api, ROUTE, key, lambda found: matches(found["spec"]))


async def route_is_gone(api: ClusterApi, key: Key) -> None:
    await gone(api, ROUTE, key)


async def mesh_says(api: ClusterApi, key: Key, status: str, reason: str, message: str = "so") -> None:
    """Have a Route's status be what the sync with the mesh would write."""
    found = await route(api, key)
    generation = found["metadata"]["generation"]
    condition = Condition("Ready", status, reason, message)  # type: ignore[arg-type]
    conditions = with_conditions((), [condition], generation=generation, now=datetime.now(UTC))
    told = {"observedGeneration": generation, "conditions": conditions}
    await api.cluster.merge(ROUTE, key, {"status": told}, subresource="status")


async def told(api: ClusterApi, key: Key, type_: str, reason: str) -> Document:
    """The condition of an HTTPRoute's parent in the mesh, once it has that reason."""
    found: list[Document] = []

    async def asked() -> bool:
        document = await api.cluster.get(HTTP_ROUTE, key)
        assert document is not None
        for parent in (document.get("status") or {}).get("parents") or ():
            if parent["controllerName"] == "weft.dev/controller":
                found[:] = [each for each in parent["conditions"] if each["type"] == type_]
        return bool(found) and found[0]["reason"] == reason

    await holds(asked)
    return found[0]


async def test_an_http_route_becomes_a_route_which_goes_with_it(api: ClusterApi) -> None:
    key = Key(await meshed_namespace(api, "taken"), "half")
    async with controlling(api):
        await http_route(api, key, HALF)
        made = await route(api, route_key(key.namespace))
        assert made["spec"] == {
            "destination": {"type": "summarizer"},
            "rules": [{"name": "half-1", "split": [{"weight": 1}, {"version": "2", "weight": 1}]}],
        }
        [owner] = made["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"]) == ("HTTPRoute", "half")
        assert (await told(api, key, "Accepted", "Pending"))["status"] == "Unknown"
        await mesh_says(api, route_key(key.namespace), "True", "Applied")
        assert (await told(api, key, "Accepted", "Accepted"))["status"] == "True"
        assert (await told(api, key, "ResolvedRefs", "ResolvedRefs"))["status"] == "True"
        await api.cluster.delete(HTTP_ROUTE, key)
        await route_is_gone(api, route_key(key.namespace))


async def test_what_the_mesh_does_not_take_is_told_in_its_words(api: ClusterApi) -> None:
    key = Key(await meshed_namespace(api, "untaken"), "half")
    async with controlling(api):
        await http_route(api, key, HALF)
        await mesh_says(api, route_key(key.namespace), "False", "Invalid", "Route 'mine' is for it already")
        condition = await told(api, key, "Accepted", "Refused")
        assert (condition["status"], condition["message"]) == ("False", "Route 'mine' is for it already")


async def test_a_route_follows_its_http_routes_and_their_services(api: ClusterApi) -> None:
    key = Key(await meshed_namespace(api, "following"), "half")
    at = route_key(key.namespace)
    async with controlling(api):
        await http_route(api, key, {"backendRefs": [{"name": "later", "port": 80}]})
        await route(api, at, lambda spec: "fault" in spec["rules"][0])
        assert "'later'" in (await told(api, key, "ResolvedRefs", "BackendNotFound"))["message"]
        await service(api, "later", key.namespace)
        await route(api, at, lambda spec: spec["rules"][0].get("split") == [{"type": "later", "weight": 1}])
        await told(api, key, "ResolvedRefs", "ResolvedRefs")
        await http_route(api, Key(key.namespace, "more"), {"matches": [{"method": "GET"}], **HALF})
        made = await route(api, at, lambda spec: len(spec["rules"]) == 2)
        assert {each["name"] for each in made["metadata"]["ownerReferences"]} == {"half", "more"}


async def test_a_route_that_somebody_changed_or_removed_is_made_as_it_was(api: ClusterApi) -> None:
    key = Key(await meshed_namespace(api, "changed"), "half")
    at = route_key(key.namespace)
    async with controlling(api):
        await http_route(api, key, HALF)
        made = await route(api, at)
        await api.cluster.merge(ROUTE, at, {"spec": {"rules": [{"name": "theirs"}]}})
        await route(api, at, lambda spec: bool(spec == made["spec"]))
        await api.cluster.delete(ROUTE, at)
        await route(api, at, lambda spec: bool(spec == made["spec"]))


async def test_what_a_mesh_cannot_do_is_told_and_the_rest_is_done(api: ClusterApi) -> None:
    key = Key(await meshed_namespace(api, "partly"), "partly")
    redirect = {"filters": [{"type": "RequestRedirect", "requestRedirect": {"scheme": "https"}}]}
    async with controlling(api):
        await http_route(api, key, redirect, HALF)
        condition = await told(api, key, "PartiallyInvalid", "UnsupportedValue")
        assert condition["status"] == "True"
        assert condition["message"].startswith("Dropped Rule: rule 1: ")
        await http_route(api, key, redirect)
        assert (await told(api, key, "Accepted", "UnsupportedValue"))["status"] == "False"

        async def warned() -> bool:
            return await events(api, key) == [("Warning", "UnsupportedValue")] * 2

        await holds(warned)
        await route_is_gone(api, route_key(key.namespace))


async def test_what_others_say_of_an_http_route_stays_and_what_the_mesh_said_goes_with_its_parent(
    api: ClusterApi,
) -> None:
    key = Key(await meshed_namespace(api, "shared"), "shared")
    gateway = {"name": "edge"}
    theirs = {"parentRef": gateway, "controllerName": "example.dev/gateways", "conditions": []}
    await http_route(api, key, HALF, parents=(gateway, PARENT))
    await api.cluster.merge(HTTP_ROUTE, key, {"status": {"parents": [theirs]}}, subresource="status")
    async with controlling(api):
        await told(api, key, "Accepted", "Pending")
        assert theirs in await parents(api, key)
        await http_route(api, key, HALF, parents=(gateway,))

        async def alone() -> bool:
            return await parents(api, key) == [theirs]

        await holds(alone)
        await route_is_gone(api, route_key(key.namespace))


async def parents(api: ClusterApi, key: Key) -> list[Any]:
    found = await api.cluster.get(HTTP_ROUTE, key)
    assert found is not None
    return list(found["status"]["parents"])


async def test_a_route_of_somebody_else_is_left_alone(api: ClusterApi) -> None:
    key = Key(await meshed_namespace(api, "theirs"), "half")
    spec = {"destination": {"type": "critic"}, "rules": [{"name": "theirs"}]}
    await api.declare("Route", "httproute-summarizer", spec, key.namespace)
    async with controlling(api):
        await http_route(api, key, HALF)
        assert "give it another name" in (await told(api, key, "Accepted", "Refused"))["message"]
        found = await route(api, route_key(key.namespace))
        assert found["spec"] == spec


async def test_a_namespace_that_goes_stops_nobody_elses_routes(api: ClusterApi) -> None:
    going = Key(await meshed_namespace(api, "going"), "half")
    parent = {**PARENT, "name": "writer"}
    await service(api, "writer", going.namespace)
    await http_route(api, going, {"backendRefs": [{"name": "writer", "port": 80}]}, parents=(parent,))
    await api.cluster.delete(NAMESPACE, Key("", going.namespace))
    staying = Key(await meshed_namespace(api, "staying"), "half")
    async with controlling(api):
        condition = await told(api, going, "Accepted", "Refused")
        assert "because it is being terminated" in condition["message"]
        await http_route(api, staying, HALF)
        await route(api, route_key(staying.namespace))
