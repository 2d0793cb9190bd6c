"""Custom resources in a real kube-apiserver: what is defined, taken, refused and shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.kubernetes_documents import Document, examples, refusals
from tests.kubernetes_server import kubernetes_server, missing

from weft.aio.poll import until
from weft.kubernetes.custom_resources import API_VERSION, GROUP, VERSION, custom_resource_definitions

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

DEFINITIONS = {each["spec"]["names"]["kind"]: each for each in custom_resource_definitions()}
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
STRICT = {"fieldValidation": "Strict"}
MERGE = {"content-type": "application/merge-patch+json"}
AS_TABLE = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """An API server that has every definition, and serves the resources."""
    directory: Path = tmp_path_factory.mktemp("kubernetes")
    async with kubernetes_server(directory) as server, server.client() as client:
        for definition in DEFINITIONS.values():
            answer = await client.post(CRDS, json=definition, params=STRICT)
            assert answer.status_code == 201, answer.text
        async with asyncio.timeout(120):
            for kind in DEFINITIONS:
                await until(lambda kind=kind: _served(client, kind))  # type: ignore[misc]
        yield client


async def _served(client: httpx.AsyncClient, kind: str) -> bool:
    return (await client.get(path_of(kind))).status_code == 200


def path_of(kind: str, namespace: str = "default") -> str:
    plural = DEFINITIONS[kind]["spec"]["names"]["plural"]
    return f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{plural}"


def resource(kind: str, name: str, spec: Any) -> Document:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


async def created(api: httpx.AsyncClient, document: Document, namespace: str = "default") -> httpx.Response:
    return await api.post(path_of(document["kind"], namespace), json=document, params=STRICT)


async def test_every_definition_is_established_and_structural(api: httpx.AsyncClient) -> None:
    found = (await api.get(CRDS)).json()["items"]
    assert {each["spec"]["names"]["kind"] for each in found} == set(DEFINITIONS)
    for each in found:
        conditions = {one["type"]: one["status"] for one in each["status"]["conditions"]}
        assert conditions["Established"] == conditions["NamesAccepted"] == "True"
        assert "NonStructuralSchema" not in conditions


async def test_every_example_can_be_created(api: httpx.AsyncClient) -> None:
    for number, (source, documents) in enumerate(examples().items()):
        for document in documents:
            namespace = document["metadata"].get("namespace", f"example-{number}")
            await api.post("/api/v1/namespaces", json={"metadata": {"name": namespace}})
            answer = await created(api, document, namespace)
            if refusals(DEFINITIONS[document["kind"]], document):
                assert document["kind"] == "Secret", (source, document)
                assert answer.status_code == 400, "its values would lie in the cluster as they are"
            else:
                assert answer.status_code == 201, (source, answer.text)


@pytest.mark.parametrize(
    ("kind", "spec", "told"),
    [
        ("Agent", {"ports": 80}, 'unknown field "spec.ports"'),
        ("Agent", {"health": {"interval": "5"}}, "spec.health.interval"),
        ("Agent", {"drainTimeout": 5}, "spec.drainTimeout"),
        ("Secret", {"data": {"key": "in plain text"}}, "spec.data.key"),
        ("Route", {"destination": {"type": "a", "capability": "b"}, "rules": [{}]}, "oneOf"),
        ("AccessPolicy", {"effect": "allow", "to": [{"type": "a", "topic": "b"}]}, "oneOf"),
        ("Budget", {"usd": 0}, "spec.usd"),
    ],
)
async def test_what_is_wrong_is_refused_and_told(
    api: httpx.AsyncClient, kind: str, spec: Any, told: str
) -> None:
    document = resource(kind, "wrong", spec)
    answer = await created(api, document)
    assert answer.status_code in {400, 422}
    assert told in answer.json()["message"]
    assert refusals(DEFINITIONS[kind], document) != [], "tests without a server would not know"


async def test_a_name_that_the_mesh_cannot_have_is_refused(api: httpx.AsyncClient) -> None:
    answer = await created(api, resource("Agent", "with.dots", {}))
    assert answer.status_code == 422
    assert "metadata.name" in answer.json()["message"]


async def test_partitions_stay_as_they_are(api: httpx.AsyncClient) -> None:
    assert (await created(api, resource("Topic", "ordered", {"partitions": 4}))).status_code == 201
    path = f"{path_of('Topic')}/ordered"
    for partitions in (5, None):
        answer = await api.patch(path, json={"spec": {"partitions": partitions}}, headers=MERGE)
        assert answer.status_code == 422
        assert "declare another topic" in answer.json()["message"]
    answer = await api.patch(path, json={"spec": {"maxAge": "1h"}}, headers=MERGE)
    assert answer.status_code == 200


async def test_null_is_kept_where_it_means_something_and_left_out_elsewhere(api: httpx.AsyncClient) -> None:
    answer = await created(api, resource("Topic", "nulls", {"deadLetter": None, "maxAge": None}))
    assert answer.json()["spec"] == {"deadLetter": None}


async def test_the_status_is_a_matter_of_its_own_and_is_shown(api: httpx.AsyncClient) -> None:
    await created(api, resource("Queue", "work", {"concurrency": 3}))
    path = f"{path_of('Queue')}/work"
    ready = {
        "type": "Ready",
        "status": "False",
        "reason": "Contradiction",
        "message": "There is a second one.",
        "lastTransitionTime": "2026-11-22T04:00:00Z",
        "observedGeneration": 1,
    }
    status = {"status": {"observedGeneration": 1, "conditions": [ready]}}
    beside = await api.patch(path, json=status, headers=MERGE)
    assert "status" not in beside.json()
    written = await api.patch(f"{path}/status", json=status, headers=MERGE)
    assert written.json()["status"] == status["status"]
    assert written.json()["metadata"]["generation"] == 1
    shown = await columns(api, path)
    assert (shown["Name"], shown["At once"]) == ("work", 3)
    assert (shown["Ready"], shown["Reason"]) == ("False", "Contradiction")


async def columns(api: httpx.AsyncClient, path: str) -> dict[str, Any]:
    """What `kubectl get` shows of a resource."""
    table = (await api.get(path, headers=AS_TABLE)).json()
    [row] = table["rows"]
    return dict(zip((each["name"] for each in table["columnDefinitions"]), row["cells"], strict=True))


_VALUE = {"secretKeyRef": {"name": "provider", "key": "api-key"}}


@pytest.mark.parametrize(
    ("kind", "spec", "shown"),
    [
        ("Agent", {"capabilities": ["a", "b"]}, {"Capabilities": '["a","b"]', "Version": None}),
        ("Egress", {"mode": "open", "for": ["a"]}, {"Mode": "open", "For": '["a"]'}),
        ("Secret", {"data": {"key": _VALUE}}, {"For": None}),
        (
            "Secret",
            {"data": {"key": _VALUE}, "inject": [{"host": "api.example", "key": "key"}]},
            {"For": "api.example"},
        ),
        ("ModelPool", {"providers": [{"name": "a"}]}, {"Models": None, "Providers": None}),
        ("Budget", {"tokens": 10**15, "usd": 0.5}, {"Tokens": 10**15, "USD": 0.5}),
        ("AgentDeployment", {"image": "a:1", "replicas": {"most": 4}}, {"Image": "a:1", "Most": 4}),
    ],
)
async def test_columns_show_what_is_declared(
    api: httpx.AsyncClient, kind: str, spec: Any, shown: Document
) -> None:
    path = f"{path_of(kind)}/shown"
    assert (await created(api, resource(kind, "shown", spec))).status_code == 201
    try:
        assert shown.items() <= (await columns(api, path)).items()
    finally:
        await api.delete(path)


async def test_every_kind_is_found_by_its_short_name_and_its_category(api: httpx.AsyncClient) -> None:
    found = (await api.get(f"/apis/{GROUP}/{VERSION}")).json()["resources"]
    kinds = {each["kind"]: each for each in found if "/" not in each["name"]}
    assert set(kinds) == set(DEFINITIONS)
    for kind, each in kinds.items():
        names = DEFINITIONS[kind]["spec"]["names"]
        assert (each["shortNames"], each["categories"]) == (names["shortNames"], ["weft"])
