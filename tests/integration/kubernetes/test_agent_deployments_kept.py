"""AgentDeployments in a cluster: what is made of them, what becomes of that, and what is told.

One suite for the real API server and its stand-in. Nothing runs pods here: how they are, the tests say.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from tests.hosting import hosted
from tests.kubernetes_clusters import CLUSTERS, DEFINITION, ClusterApi, cluster_api
from tests.kubernetes_loop import SYSTEM, events, gone, holds, looping, parts_without_mesh, there

from weft.errors import NotFound
from weft.kubernetes.controller.agent_deployments import (
    AGENT_DEPLOYMENT,
    DEPLOYMENT,
    MADE,
    SCALED_OBJECT,
    SERVICE,
    AgentDeployments,
)
from weft.kubernetes.controller.conditions import found_condition
from weft.kubernetes.controller.kinds import (
    CONFIG_MAP,
    NAMESPACE,
    Document,
    Key,
    key_of,
)
from weft.kubernetes.controller.roots import Roots
from weft.kubernetes.injection import InjectionSettings

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

IMAGE = {"image": "registry.example/summarizer:1.4"}
SETTINGS = InjectionSettings(image="registry.example/weft:1")
KINDS = {each.kind: each for each in MADE}
AUTOSCALER = KINDS["HorizontalPodAutoscaler"]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=CLUSTERS)
async def api(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ClusterApi]:
    async with hosted(cluster_api(request.param, tmp_path_factory.mktemp("cluster"))) as running:
        await running.namespace(SYSTEM)
        yield running


@asynccontextmanager
async def controlling(api: ClusterApi) -> AsyncIterator[None]:
    """The reconcilers of AgentDeployments and of the roots, as the controller runs them."""
    parts = parts_without_mesh(api)
    async with looping(AgentDeployments(parts, SETTINGS), Roots(parts, "weft-roots")):
        yield


async def told(api: ClusterApi, key: Key, reason: str, type_: str = "Ready") -> Document:
    """The condition of an AgentDeployment, once it has that reason, about what is declared now."""
    found: list[Document] = []

    async def asked() -> bool:
        document = await api.cluster.get(AGENT_DEPLOYMENT, key)
        assert document is not None
        condition = found_condition(document, type_)
        if condition is None or condition["reason"] != reason:
            return False
        found.append(condition)
        return bool(condition["observedGeneration"] == document["metadata"]["generation"])

    await holds(asked)
    return found[-1]


async def roll_out(api: ClusterApi, key: Key, ready: int = 3, **status: Any) -> None:
    """Say of a Deployment what its controller would."""
    deployment = await there(api, DEPLOYMENT, key)
    conditions = [
        {"type": "Available", "status": "True" if ready else "False", "reason": "Enough", "message": "so"}
    ]
    figures = dict.fromkeys(("replicas", "updatedReplicas"), 3)
    patch = {
        "observedGeneration": deployment["metadata"]["generation"],
        **figures,
        "readyReplicas": ready,
        "availableReplicas": ready,
        "conditions": conditions,
        **status,
    }
    await api.cluster.merge(DEPLOYMENT, key, {"status": patch}, subresource="status")


async def test_all_that_an_agent_deployment_stands_for_is_made_and_goes_with_it(api: ClusterApi) -> None:
    key = Key(await api.namespace("making"), "summarizer")
    async with controlling(api):
        declared = await api.declare("AgentDeployment", key.name, IMAGE, key.namespace)
        await told(api, key, "Waiting")
        for kind in MADE:
            if kind != SCALED_OBJECT:
                made = await there(api, kind, key)
                [owner] = made["metadata"]["ownerReferences"]
                assert (owner["uid"], owner["controller"]) == (declared["metadata"]["uid"], True)
        deployment = await there(api, DEPLOYMENT, key)
        pod = deployment["spec"]["template"]["spec"]
        assert [each["name"] for each in pod["initContainers"]] == ["weft-sidecar"]
        assert pod["initContainers"][0]["image"] == SETTINGS.image
        assert await api.cluster.get(SCALED_OBJECT, key) is None


async def test_the_status_says_how_the_pods_are(api: ClusterApi) -> None:
    key = Key(await api.namespace("telling"), "summarizer")
    async with controlling(api):
        await api.declare("AgentDeployment", key.name, IMAGE, key.namespace)
        await roll_out(api, key, ready=0)
        assert (await told(api, key, "PodsNotReady"))["status"] == "False"
        await roll_out(api, key)
        assert (await told(api, key, "PodsReady"))["status"] == "True"
        assert (await told(api, key, "RolledOut", "Progressing"))["status"] == "False"
        found = await api.found("AgentDeployment", key.name, key.namespace)
        assert found is not None
        assert (found["status"]["readyReplicas"], found["status"]["replicas"]) == (3, 3)
        assert ("Warning", "PodsNotReady") in await events(api, key)


async def test_a_change_is_rolled_out_and_what_others_changed_or_removed_is_put_right(
    api: ClusterApi,
) -> None:
    key = Key(await api.namespace("changing"), "summarizer")
    async with controlling(api):
        await api.declare("AgentDeployment", key.name, IMAGE, key.namespace)
        await told(api, key, "Waiting")
        await api.declare("AgentDeployment", key.name, {"image": "registry.example/other:2"}, key.namespace)
        await holds(lambda: _runs(api, key, "registry.example/other:2"))
        elsewhere = {"metadata": {"name": key.name, "namespace": key.namespace}}
        stray = {"apiVersion": "apps/v1", "kind": "Deployment", **elsewhere, "spec": {"minReadySeconds": 5}}
        await api.cluster.apply(DEPLOYMENT, stray, manager="others")
        wrong = {"spec": {"revisionHistoryLimit": 1}}
        await api.cluster.merge(DEPLOYMENT, key, wrong)

        async def right() -> bool:
            found = await there(api, DEPLOYMENT, key)
            return bool(found["spec"]["revisionHistoryLimit"] == 5)

        await holds(right)
        found = await there(api, DEPLOYMENT, key)
        assert found["spec"]["minReadySeconds"] == 5, "what is not said is others' to say"
        await api.cluster.delete(DEPLOYMENT, key)
        await there(api, DEPLOYMENT, key)


async def _runs(api: ClusterApi, key: Key, image: str) -> bool:
    found = await api.cluster.get(DEPLOYMENT, key)
    containers = found["spec"]["template"]["spec"]["containers"] if found is not None else []
    return any(each["image"] == image for each in containers)


async def test_an_autoscaler_that_is_not_wanted_any_more_goes(api: ClusterApi) -> None:
    key = Key(await api.namespace("scaling"), "summarizer")
    async with controlling(api):
        await api.declare("AgentDeployment", key.name, IMAGE, key.namespace)
        await there(api, AUTOSCALER, key)
        same = {**IMAGE, "replicas": {"least": 2, "most": 2}}
        await api.declare("AgentDeployment", key.name, same, key.namespace)
        await gone(api, AUTOSCALER, key)

        async def two() -> bool:
            return bool((await there(api, DEPLOYMENT, key))["spec"].get("replicas") == 2)

        await holds(two)


async def test_where_an_autoscaler_takes_over_no_pod_goes(api: ClusterApi) -> None:
    if api.stand_in is not None:
        pytest.skip("the stand-in does not know of fields with two managers")
    key = Key(await api.namespace("handover"), "summarizer")
    async with controlling(api):
        same = {**IMAGE, "replicas": {"least": 4, "most": 4}}
        await api.declare("AgentDeployment", key.name, same, key.namespace)
        await there(api, DEPLOYMENT, key)
        await api.declare("AgentDeployment", key.name, IMAGE, key.namespace)
        await there(api, AUTOSCALER, key)
        await holds(lambda: _not_applied(api, key))
        deployment = await there(api, DEPLOYMENT, key)
        assert deployment["spec"]["replicas"] == 4
        await api.cluster.merge(DEPLOYMENT, key, {"spec": {"replicas": 7}})
        await api.declare("AgentDeployment", key.name, {**IMAGE, "user": 1000}, key.namespace)
        await told(api, key, "Waiting")
        assert (await there(api, DEPLOYMENT, key))["spec"]["replicas"] == 7, "that is the autoscaler's to say"


async def _not_applied(api: ClusterApi, key: Key) -> bool:
    deployment = await there(api, DEPLOYMENT, key)
    [mine] = [each for each in deployment["metadata"]["managedFields"] if each["manager"] == "weft"]
    return "f:replicas" not in mine["fieldsV1"]["f:spec"]


async def test_a_queue_scales_where_keda_is_and_where_it_is_not_that_is_told(api: ClusterApi) -> None:
    key = Key(await api.namespace("queues"), "summarizer")
    queue = {"name": "studies", "prometheus": "http://prometheus.monitoring.svc:9090"}
    async with controlling(api):
        await api.declare("AgentDeployment", key.name, IMAGE, key.namespace)
        await there(api, AUTOSCALER, key)
        await api.declare("AgentDeployment", key.name, {**IMAGE, "scaling": {"queue": queue}}, key.namespace)
        assert "install KEDA" in (await told(api, key, "KedaMissing"))["message"]
        await gone(api, AUTOSCALER, key)
        await api.cluster.create(DEFINITION, KEDA)
        await holds(lambda: _served(api))
        # It would be looked at again soon; a change has it looked at now.
        await api.cluster.merge(AGENT_DEPLOYMENT, key, {"metadata": {"labels": {"keda": "there"}}})
        scaled = await there(api, SCALED_OBJECT, key)
        assert scaled["spec"]["scaleTargetRef"]["name"] == key.name
        await told(api, key, "Waiting")


async def _served(api: ClusterApi) -> bool:
    try:
        await api.cluster.list(SCALED_OBJECT)
    except NotFound:
        return False
    return True


async def test_what_is_somebody_elses_is_left_alone_and_told(api: ClusterApi) -> None:
    key = Key(await api.namespace("taken"), "summarizer")
    theirs = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": key.name, "namespace": key.namespace},
        "spec": {"ports": [{"port": 81}], "clusterIP": "None"},
    }
    await api.cluster.create(SERVICE, theirs)
    async with controlling(api):
        await api.declare("AgentDeployment", key.name, IMAGE, key.namespace)
        message = (await told(api, key, "NameTaken"))["message"]
        assert "Service taken/summarizer" in message
        assert await api.cluster.get(DEPLOYMENT, key) is None, "nothing is made by halves"
        assert ("Warning", "NameTaken") in await events(api, key)
        await api.cluster.delete(SERVICE, key)
        await api.cluster.merge(AGENT_DEPLOYMENT, key, {"metadata": {"labels": {"service": "gone"}}})
        await told(api, key, "Waiting")


async def test_what_was_expanded_before_is_taken_over(api: ClusterApi) -> None:
    key = Key(await api.namespace("expanded"), "summarizer")
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {
            "name": key.name,
            "namespace": key.namespace,
            "labels": {"app.kubernetes.io/managed-by": "weft"},
        },
    }
    await api.cluster.create(KINDS["ServiceAccount"], account)
    async with controlling(api):
        await api.declare("AgentDeployment", key.name, IMAGE, key.namespace)
        await told(api, key, "Waiting")
        assert (await there(api, KINDS["ServiceAccount"], key))["metadata"]["ownerReferences"]


@pytest.mark.parametrize(
    ("name", "spec", "reason", "said"),
    [
        ("control", IMAGE, "Invalid", "reserved"),
        ("twice", {**IMAGE, "replicas": {"least": 5, "most": 2}}, "Invalid", "least (5) is above most (2)"),
        ("ported", {**IMAGE, "agent": {"port": 7443}}, "PortTaken", "7443"),
    ],
)
async def test_what_cannot_be_is_told_and_nothing_is_made(
    api: ClusterApi, name: str, spec: Document, reason: str, said: str
) -> None:
    key = Key(await api.namespace("wrong"), name)
    async with controlling(api):
        await api.declare("AgentDeployment", key.name, spec, key.namespace)
        assert said in (await told(api, key, reason))["message"]
        assert await api.cluster.get(DEPLOYMENT, key) is None


async def test_an_agent_deployment_of_a_namespace_that_goes_is_told_and_stops_nobody(api: ClusterApi) -> None:
    key = Key(await api.namespace("going"), "summarizer")
    await api.declare("AgentDeployment", key.name, IMAGE, key.namespace)
    await api.cluster.delete(NAMESPACE, Key("", key.namespace))
    other = Key(await api.namespace("staying"), "summarizer")
    async with controlling(api):
        assert "because it is being terminated" in (await told(api, key, "Refused"))["message"]
        assert await api.cluster.get(DEPLOYMENT, key) is None
        await api.declare("AgentDeployment", other.name, IMAGE, other.namespace)
        await told(api, other, "Waiting")


ROOTS = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "weft-roots", "namespace": SYSTEM},
    "data": {"roots.pem": "first"},
}


async def set_label(api: ClusterApi, namespace: str, value: str | None) -> None:
    patch = {"metadata": {"labels": {"weft.dev/injection": value}}}
    await api.cluster.merge(NAMESPACE, Key("", namespace), patch)


async def copy_is(api: ClusterApi, namespace: str, roots: str) -> None:
    async def asked() -> bool:
        found = await api.cluster.get(CONFIG_MAP, Key(namespace, "weft-roots"))
        return found is not None and found["data"] == {"roots.pem": roots}

    await holds(asked)


async def test_the_roots_are_where_sidecars_are_and_nowhere_else(api: ClusterApi) -> None:
    labelled, bare, later = [await api.namespace(each) for each in ("labelled", "bare", "later")]
    await set_label(api, labelled, "enabled")
    await set_label(api, bare, "disabled")
    await api.cluster.apply(CONFIG_MAP, ROOTS, manager="tests")
    async with controlling(api):
        await copy_is(api, labelled, "first")
        await api.cluster.apply(CONFIG_MAP, {**ROOTS, "data": {"roots.pem": "second"}}, manager="tests")
        await copy_is(api, labelled, "second")
        await set_label(api, later, "enabled")
        await copy_is(api, later, "second")
        await set_label(api, later, None)
        await gone(api, CONFIG_MAP, Key(later, "weft-roots"))
        agent = await api.declare("AgentDeployment", "rooted", IMAGE, later)
        await copy_is(api, later, "second")
        await api.cluster.delete(AGENT_DEPLOYMENT, key_of(agent))
        await gone(api, CONFIG_MAP, Key(later, "weft-roots"))
    assert await api.cluster.get(CONFIG_MAP, Key(bare, "weft-roots")) is None
    original = await api.cluster.get(CONFIG_MAP, Key(SYSTEM, "weft-roots"))
    assert original is not None
    assert original["data"] == {"roots.pem": "second"}


async def test_roots_that_somebody_put_there_are_left_alone_and_told(api: ClusterApi) -> None:
    place = Key(await api.namespace("own-roots"), "weft-roots")
    theirs = {**ROOTS, "metadata": {"name": place.name, "namespace": place.namespace}, "data": {"x": "y"}}
    await api.cluster.create(CONFIG_MAP, theirs)
    await api.cluster.apply(CONFIG_MAP, ROOTS, manager="tests")
    await set_label(api, place.namespace, "enabled")

    async def warned() -> bool:
        return ("Warning", "RootsNotKept") in await events(api, place)

    async with controlling(api):
        await holds(warned)
        found = await api.cluster.get(CONFIG_MAP, place)
        assert found is not None
        assert found["data"] == {"x": "y"}


_TEXT = {"type": "string"}
KEDA = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "scaledobjects.keda.sh"},
    "spec": {
        "group": "keda.sh",
        "names": {
            "kind": "ScaledObject",
            "listKind": "ScaledObjectList",
            "plural": "scaledobjects",
            "singular": "scaledobject",
        },
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "apiVersion": _TEXT,
                            "kind": _TEXT,
                            "metadata": {"type": "object"},
                            "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        },
                    }
                },
            }
        ],
    },
}
"""KEDA's kind, by name."""
