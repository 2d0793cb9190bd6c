"""The control plane's API, over a store in memory."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI
from prometheus_client import CollectorRegistry
from tests.control_access import admin_access

from weft.controlplane.api.access import PUBLIC, admit, requires
from weft.controlplane.api.app import MAX_BODY_BYTES, create_api
from weft.controlplane.api.context import ApiContext
from weft.controlplane.sealing import Sealer
from weft.controlplane.secrets import Secrets
from weft.controlplane.sidecars import Sidecars
from weft.model.agent import Instance, Status
from weft.model.node import Address, Inbound, Node
from weft.model.operator import Scope
from weft.registry.registry import Registry
from weft.registry.view import View
from weft.resources.store import Resources
from weft.resources.view import ResourceView
from weft.sdk.server import bind, serving_http
from weft.store.memory import MemoryStore

ONE = Instance("s-1", "summarizer", "127.0.0.1:9001", Status.HEALTHY, frozenset({"summarize", "quote"}), "1")
TWO = Instance("s-2", "summarizer", "127.0.0.1:9002", Status.STARTING, frozenset({"summarize"}), "2")

AGENT = """
apiVersion: weft.dev/v1alpha1
kind: Agent
metadata: {name: summarizer}
spec: {capabilities: [summarize]}
"""

SECRET = """
apiVersion: weft.dev/v1alpha1
kind: Secret
metadata: {name: provider}
spec: {data: {key: VALUE}, inject: [{host: api.example.com, key: key}]}
"""

NODE = Node(
    "s-1",
    outbound=Address("127.0.0.1", 20001),
    inbound=Inbound("summarizer", Address("127.0.0.1", 9001), Address("127.0.0.1", 8001)),
)


@dataclass
class Api:
    """A running API and what is behind it."""

    http: httpx.AsyncClient
    registry: Registry
    view: View
    sidecars: Sidecars

    async def register(self, *instances: Instance) -> None:
        for each in instances:
            generation = self.view.generation
            await self.registry.register(replace(each, incarnation=each.id))
            await self.view.changed_since(generation)

    async def apply(self, manifest: str, **options: Any) -> httpx.Response:
        return await self.http.post("/v1/resources", json={"manifest": manifest, **options})


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    store = MemoryStore()
    registry, resources, sidecars = (
        await Registry.open(store),
        await Resources.open(store, Secrets(Sealer([bytes(32)]))),
        await Sidecars.open(store),
    )
    async with (
        View(registry) as view,
        ResourceView.follow(resources) as declared,
        admin_access(store) as admin,
    ):
        app = create_api(ApiContext(view, resources, declared, sidecars, admin.access), CollectorRegistry())
        async with serving(app) as url, httpx.AsyncClient(base_url=url, headers=admin.headers) as http:
            recording = asyncio.create_task(sidecars.run())
            yield Api(http, registry, view, sidecars)
            recording.cancel()
    await store.close()


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """`app` at an address of its own, since streams want a real server."""
    listener = bind("127.0.0.1", 0)
    host, port = listener.getsockname()
    async with serving_http(app, listener):
        yield f"http://{host}:{port}"


async def ids(api: Api, query: str) -> list[str]:
    answer = await api.http.get(f"/v1/agents?{query}")
    assert answer.status_code == 200, answer.text
    return [each["id"] for each in answer.json()["items"]]


async def test_discovery_gives_healthy_instances_that_meet_all_conditions(api: Api) -> None:
    await api.register(ONE, TWO)
    assert await ids(api, "type=summarizer") == ["s-1"]
    assert await ids(api, "capability=summarize&capability=quote&status=any") == ["s-1"]
    assert await ids(api, "version=2&status=starting&status=healthy") == ["s-2"]
    assert await ids(api, "type=translator") == []


async def test_discovery_comes_in_pages(api: Api) -> None:
    await api.register(ONE, TWO)
    first = (await api.http.get("/v1/agents?status=any&limit=1")).json()
    second = (await api.http.get("/v1/agents", params={"status": "any", "after": first["next"]})).json()
    assert [each["id"] for each in first["items"] + second["items"]] == ["s-1", "s-2"]
    assert second["next"] is None


@pytest.mark.parametrize(
    ("query", "names"),
    [("status=well", "well"), ("label=colour", "colour"), ("limit=0", "limit"), ("limit=100000", "limit")],
)
async def test_a_senseless_condition_is_named(api: Api, query: str, names: str) -> None:
    answer = await api.http.get(f"/v1/agents?{query}")
    assert answer.status_code in {400, 422}
    assert answer.headers["content-type"] == "application/problem+json"
    assert names in answer.text


async def test_a_watch_tells_of_what_is_there_and_then_of_changes(api: Api) -> None:
    await api.register(ONE)
    async with asyncio.timeout(10), api.http.stream("GET", "/v1/agents?watch=true") as stream:
        events = sse(stream)
        assert await anext(events) == ("added", "s-1")
        assert await anext(events) == ("synced", None)
        lease = await api.registry.register(replace(TWO, incarnation="b"))
        await lease.update(replace(TWO, incarnation="b", status=Status.HEALTHY))
        assert await anext(events) == ("added", "s-2")
        await lease.update(replace(TWO, incarnation="b", status=Status.HEALTHY, in_flight=3))
        await lease.update(replace(TWO, incarnation="b", status=Status.HEALTHY, reason="fine"))
        assert await anext(events) == ("changed", "s-2")
        await lease.update(replace(TWO, incarnation="b", status=Status.DRAINING))
        assert await anext(events) == ("removed", "s-2")


async def test_an_instance_shows_what_its_sidecar_rejects(api: Api) -> None:
    await api.register(ONE)
    assert (await api.http.get("/v1/agents/summarizer/s-1")).json()["sync"] is None
    api.sidecars.connected(NODE)
    api.sidecars.rejected(NODE, "type.googleapis.com/x", "bad thing", ("inbound",))
    sync = await sync_until(api, lambda sync: sync is not None and not sync["inSync"])
    assert sync["rejected"][0]["reason"] == "bad thing"
    assert sync["rejected"][0]["resources"] == ["inbound"]
    api.sidecars.synced(NODE, 1)
    assert (await sync_until(api, lambda sync: sync["inSync"]))["rejected"] == []
    api.sidecars.disconnected(NODE)
    await sync_until(api, lambda sync: sync is None)


async def test_an_unknown_instance_is_not_found(api: Api) -> None:
    answer = await api.http.get("/v1/agents/summarizer/nobody")
    assert (answer.status_code, answer.headers["x-weft-error"]) == (404, "not-found")


async def test_a_manifest_is_created_configured_or_left_alone(api: Api) -> None:
    def outcome(answer: httpx.Response) -> str:
        assert answer.status_code == 200, answer.text
        return str(answer.json()["results"][0]["outcome"])

    assert outcome(await api.apply(AGENT, dryRun=True)) == "created"
    assert (await api.http.get("/v1/resources/agents")).json()["items"] == []
    assert outcome(await api.apply(AGENT)) == "created"
    assert outcome(await api.apply(AGENT)) == "unchanged"
    assert outcome(await api.apply(AGENT.replace("[summarize]", "[summarize, quote]"))) == "configured"
    stored = (await api.http.get("/v1/resources/agent/summarizer")).json()
    assert stored["metadata"]["generation"] == 2
    assert stored["spec"]["capabilities"] == ["summarize", "quote"]


async def test_who_applies_is_told_at_which_version_each_resource_is(api: Api) -> None:
    assert (await api.apply(AGENT, dryRun=True)).json()["results"][0]["resourceVersion"] is None
    [applied] = (await api.apply(AGENT)).json()["results"]
    stored = (await api.http.get("/v1/resources/agent/summarizer")).json()
    assert applied["resourceVersion"] == stored["metadata"]["resourceVersion"]


async def test_a_mesh_says_which_one_it_is(api: Api) -> None:
    uid = (await api.http.get("/v1/mesh")).json()["uid"]
    assert uid
    assert (await api.http.get("/v1/mesh")).json() == {"uid": uid}


async def test_nothing_is_applied_unless_all_of_it_is_valid(api: Api) -> None:
    broken = AGENT.replace("capabilities", "capabilites").replace("name: summarizer", "name: other")
    answer = await api.apply(f"{AGENT}---{broken}", file="mesh.yaml")
    assert answer.status_code == 422
    [problem] = answer.json()["errors"]
    assert (problem["file"], problem["line"], problem["field"]) == ("mesh.yaml", 10, "spec.capabilites")
    assert (await api.http.get("/v1/resources")).json()["items"] == []


async def test_an_update_of_an_old_version_is_refused(api: Api) -> None:
    await api.apply(AGENT)
    old = (await api.http.get("/v1/resources/agents/summarizer")).json()["metadata"]["resourceVersion"]
    await api.apply(AGENT.replace("[summarize]", "[quote]"))
    stale = AGENT.replace("{name: summarizer}", f'{{name: summarizer, resourceVersion: "{old}"}}')
    answer = await api.apply(stale)
    assert (answer.status_code, answer.headers["x-weft-error"]) == (409, "conflict")
    refused = await api.http.delete("/v1/resources/agents/summarizer", params={"resourceVersion": old})
    assert refused.status_code == 409


async def test_a_difference_is_shown_before_it_is_applied(api: Api) -> None:
    await api.apply(AGENT)
    changed = AGENT.replace("[summarize]", "[quote]")
    answer = await api.http.post("/v1/diff", json={"manifest": changed})
    [difference] = answer.json()["differences"]
    assert "summarize" in difference["before"]
    assert "quote" in difference["after"]
    assert (await api.http.post("/v1/diff", json={"manifest": AGENT})).json()["differences"] == []


async def test_resources_are_deleted_once(api: Api) -> None:
    await api.apply(AGENT)
    assert (await api.http.delete("/v1/resources/agents/summarizer")).status_code == 204
    assert (await api.http.delete("/v1/resources/agents/summarizer")).status_code == 404
    assert (await api.http.get("/v1/resources/gadgets")).status_code == 404


async def test_a_watch_of_resources_tells_of_puts_and_removals(api: Api) -> None:
    await api.apply(AGENT)
    async with asyncio.timeout(10), api.http.stream("GET", "/v1/resources?watch=true") as stream:
        events = sse(stream)
        assert (await anext(events))[0] == "put"
        assert (await anext(events))[0] == "synced"
        await api.apply(AGENT.replace("[summarize]", "[quote]"))
        assert (await anext(events))[0] == "put"
        await api.http.delete("/v1/resources/agents/summarizer")
        assert (await anext(events))[0] == "removed"


async def test_no_answer_and_no_line_of_the_log_holds_the_value_of_a_secret(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    answers = []
    for value in ("hunter2-first", "hunter2-second", '"hunter2\\nsplit"', "[hunter2]", "{hunter2: x}"):
        body = {"manifest": SECRET.replace("VALUE", value)}
        answers += [await api.http.post(f"/v1/{path}", json=body) for path in ("diff", "resources")]
    for path in ("resources", "resources/secrets", "resources/secret/provider", "audit"):
        answers.append(await api.http.get(f"/v1/{path}"))
    statuses = [each.status_code for each in answers]
    assert statuses == [200] * 4 + [422] * 6 + [200] * 4
    async with asyncio.timeout(10), api.http.stream("GET", "/v1/resources?watch=true") as stream:
        lines = stream.aiter_lines()
        watched = await anext(lines) + await anext(lines)
    said = " ".join([*(each.text + str(each.headers) for each in answers), watched, caplog.text])
    assert "<sealed: 14 bytes, changed 20" in said
    assert "hunter2" not in said


async def test_an_oversized_body_is_refused_unread(api: Api) -> None:
    answer = await api.http.post("/v1/resources", content=b" " * (MAX_BODY_BYTES + 1))
    assert (answer.status_code, answer.headers["x-weft-error"]) == (413, "invalid-request")


@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b'{"manifest": 7}', b'{"manifest": "", "x": 1}'])
async def test_garbage_is_answered_with_what_is_wrong(api: Api, body: bytes) -> None:
    answer = await api.http.post("/v1/resources", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["errors"]


async def test_the_api_describes_itself_and_shows_metrics(api: Api) -> None:
    document = (await api.http.get("/openapi.json")).json()
    assert "/v1/agents" in document["paths"]
    described = document["components"]["schemas"]["InstancePage"]["properties"]["next"]["description"]
    assert described.startswith("Goes into `after`")
    assert (await api.http.get("/metrics")).headers["content-type"].startswith("application/openmetrics-text")
    missing = await api.http.get("/nowhere")
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")


async def test_every_endpoint_is_closed_to_nobody_unless_it_is_public(api: Api) -> None:
    paths = (await api.http.get("/openapi.json")).json()["paths"]
    endpoints = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    async with httpx.AsyncClient(base_url=api.http.base_url) as nobody:
        answers = {
            (method, path): await nobody.request(method, re.sub(r"\{.*?\}", "x", path), content=b"{")
            for method, path in endpoints | {("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/nowhere")}
        }
    admitted = {endpoint for endpoint, answer in answers.items() if answer.status_code != 401}
    assert admitted == endpoints & PUBLIC


def test_an_endpoint_without_a_rule_is_no_part_of_the_api() -> None:
    ruled, unruled = APIRouter(prefix="/v1/new"), APIRouter(prefix="/v1/new")
    ruled.add_api_route("/x", endpoint, dependencies=[Depends(requires(Scope.ADMIN))])
    unruled.add_api_route("/x", endpoint)
    admit(FastAPI(), ruled)
    with pytest.raises(TypeError, match="/v1/new/x"):
        admit(FastAPI(), unruled)


def test_an_endpoint_that_is_taken_in_is_not_built_a_second_time() -> None:
    router, app = APIRouter(), FastAPI()
    router.add_api_route("/x", endpoint, dependencies=[Depends(requires(Scope.ADMIN))])
    admit(app, router)
    assert router.routes[0] in app.routes


async def endpoint() -> None:
    """Does nothing."""


async def sse(stream: httpx.Response) -> AsyncIterator[tuple[str, str | None]]:
    """The name of each event, and the id in its data."""
    name = ""
    async for line in stream.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: ")).get("id")


async def sync_until(api: Api, condition: Any) -> Any:
    async with asyncio.timeout(10):
        while True:
            sync = (await api.http.get("/v1/agents/summarizer/s-1")).json()["sync"]
            if condition(sync):
                return sync
