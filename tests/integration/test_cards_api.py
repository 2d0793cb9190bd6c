"""The catalogue of A2A cards, asked by members of the mesh and by operators: real TLS, real policies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from tests.control_access import MemoryAudit
from tests.control_api import served
from tests.pki import Pki

from weft.controlplane.api.access import control_access
from weft.controlplane.api.app import create_api
from weft.controlplane.api.cards import MAX_PAGE
from weft.controlplane.api.context import ApiContext
from weft.controlplane.api.tls import server_tls
from weft.controlplane.offers import OfferView
from weft.controlplane.sidecars import Sidecars
from weft.controlplane.tokens import Tokens
from weft.identity.tls import client_context
from weft.model.agent import Instance, Status
from weft.model.agent_card import MESH_CARD_PATH
from weft.model.manifest import parse_documents
from weft.model.offer import Offer
from weft.model.operator import Scope
from weft.model.spiffe import agent_id, control_id
from weft.registry.offers import Offers
from weft.registry.registry import Registry
from weft.registry.view import View
from weft.resources.store import Resources
from weft.resources.view import ResourceView
from weft.store.memory import MemoryStore

POLICIES = """
apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: closed}
spec: {default: deny}
---
apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: planner-asks-coder}
spec: {effect: allow, from: [{type: planner}], to: [{type: coder}]}
---
apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: planner-sends-to-writer}
spec:
  effect: allow
  from: [{type: planner}]
  to: [{capability: write}]
  rules: [{paths: [/a2a*], a2a: {methods: [SendMessage]}}]
---
apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: planner-polls-archive}
spec:
  effect: allow
  from: [{type: planner}]
  to: [{type: archive}]
  rules: [{paths: [/a2a*], a2a: {methods: [GetTask]}}]
"""


def card(name: str) -> dict[str, Any]:
    way = {"url": "http://127.0.0.1:9/a2a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
    return {"name": name, "supportedInterfaces": [way], "skills": [{"id": "write", "tags": [name]}]}


@dataclass
class Api:
    """The API, and who asks it."""

    directory: Path
    pki: Pki
    tokens: Tokens
    registry: Registry
    offers: Offers
    resources: Resources
    view: OfferView
    declared: ResourceView
    port: int = 0

    async def offer(self, agent_type: str, offer: Offer, *capabilities: str) -> None:
        instance = Instance(
            f"{agent_type}-1", agent_type, "127.0.0.1:9", Status.HEALTHY, frozenset(capabilities)
        )
        await self.registry.register(replace(instance, incarnation="x"))
        await self.offers.publish(instance.key, offer)
        while agent_type not in self.view.by_type:
            await self.view.changed_since(self.view.generation)

    async def declare(self, manifest: str) -> None:
        documents = parse_documents(manifest, "mesh.yaml")
        await self.resources.apply(documents)
        while len(self.declared.resources) < len(documents):
            await self.declared.changed_since(self.declared.generation)

    def agent(self, agent_type: str) -> httpx.AsyncClient:
        """An agent, as its sidecar passes on what it asks."""
        credentials = self.directory / "client.pem"
        identity = agent_id(self.pki.trust_domain, agent_type, f"{agent_type}-1")
        credentials.write_bytes(b"".join(self.pki.svid(identity)))
        context = client_context(self.pki.bundle().pem, credentials)
        return self._client(context, {"x-weft-destination": "control.mesh"})

    async def operator(self) -> httpx.AsyncClient:
        token, _ = await self.tokens.create("v", Scope.VIEWER, created_by="tests")
        context = client_context(self.pki.bundle().pem, None)
        return self._client(context, {"authorization": f"Bearer {token}"})

    def _client(self, context: Any, headers: Mapping[str, str]) -> httpx.AsyncClient:
        url = f"https://127.0.0.1:{self.port}"
        return httpx.AsyncClient(base_url=url, verify=context, headers=headers, trust_env=False, timeout=30)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    store, pki = MemoryStore(), Pki()
    registry, resources = await Registry.open(store), await Resources.open(store)
    sidecars, offers = await Sidecars.open(store), await Offers.open(store)
    async with (
        View(registry) as instances,
        ResourceView.follow(resources) as declared,
        OfferView.follow(offers, instances) as view,
        Tokens.follow(store) as tokens,
    ):
        access = control_access(tokens, MemoryAudit(), bundles=pki.bundles, observer="control-1")
        context = ApiContext(instances, resources, declared, sidecars, access, offers=view)
        tls = server_tls()
        tls.use(*pki.svid(control_id(pki.trust_domain, "control-1")), pki.bundles())
        made = Api(tmp_path, pki, tokens, registry, offers, resources, view, declared)
        async with served(create_api(context, CollectorRegistry()), tls) as made.port:
            yield made
    await store.close()


async def types(client: httpx.AsyncClient, query: str = "") -> list[str]:
    answer = await client.get(f"/v1/cards{query}")
    assert answer.status_code == 200, answer.text
    return [each["type"] for each in answer.json()["items"]]


async def test_everybody_sees_the_cards_of_those_it_may_speak_to(api: Api) -> None:
    for name in ("coder", "writer", "archive", "secret"):
        await api.offer(name, Offer(card(name)), *(["write"] if name == "writer" else []))
    async with api.agent("planner") as planner, api.agent("stranger") as stranger:
        assert await types(planner) == ["archive", "coder", "secret", "writer"]
        await api.declare(POLICIES)
        assert await types(planner) == ["coder", "writer"]
        assert await types(stranger) == []
        assert (await planner.get("/v1/cards/coder")).json()["card"]["name"] == "coder"
        assert await types(planner, "?q=secret") == []
        for unseen in ("secret", "nobody"):
            refusal = await planner.get(f"/v1/cards/{unseen}")
            assert (refusal.status_code, refusal.headers["x-weft-error"]) == (404, "not-found")
            assert (
                refusal.json()["detail"].replace(unseen, "x")
                == (await planner.get("/v1/cards/x")).json()["detail"]
            )
            passed_on = {"x-weft-card-of": f"type/{unseen}", "x-weft-destination": f"{unseen}.mesh"}
            assert (await planner.get(MESH_CARD_PATH, headers=passed_on)).status_code == 404
    async with await api.operator() as operator:
        assert await types(operator) == ["archive", "coder", "secret", "writer"]


async def test_the_catalogue_comes_in_pages(api: Api) -> None:
    for number in range(5):
        await api.offer(f"a{number}", Offer(card(f"n{number}")))
    async with await api.operator() as operator:
        found, after = [], ""
        while after is not None:
            page = (await operator.get(f"/v1/cards?limit=2&after={after}")).json()
            assert len(page["items"]) <= 2
            found += [each["type"] for each in page["items"]]
            after = page["next"]
        assert found == ["a0", "a1", "a2", "a3", "a4"]
        assert await types(operator, "?tag=N3&skill=write&type=a3&type=a4") == ["a3"]
        for wrong in (f"limit={MAX_PAGE + 1}", "limit=x", "q=" + "x" * 2000, "tag=" + "x" * 300):
            assert (await operator.get(f"/v1/cards?{wrong}")).status_code == 422


async def test_operators_are_told_what_could_not_be_read(api: Api) -> None:
    await api.offer("broken", Offer(notes=("its card did not come within 10 s",)))
    await api.offer("plain", Offer())
    async with await api.operator() as operator, api.agent("planner") as planner:
        page = (await operator.get("/v1/cards")).json()
        assert (page["items"], page["unread"]) == ([], {"broken": ["its card did not come within 10 s"]})
        assert (await planner.get("/v1/cards")).json()["unread"] == {}


BACK = [
    ({"x-weft-card-of": "type/coder", "host": "coder.mesh"}, "http://coder.mesh/a2a"),
    ({"x-weft-card-of": "type/coder", "host": "[::1]:8080"}, "http://[::1]:8080/a2a"),
    ({"x-weft-card-of": "capability/write", "host": "write.cap.mesh"}, "http://write.cap.mesh/a2a"),
    (
        {
            "x-weft-card-of": "instance/coder",
            "x-weft-destination": "coder-1.coder.mesh",
            "host": "coder-1.coder.mesh",
        },
        "http://coder-1.coder.mesh/a2a",
    ),
    (
        {"x-weft-card-of": "type/coder", "x-weft-card-base": "https://mesh.example:8443"},
        "https://mesh.example:8443/v1/agents/coder/a2a",
    ),
]


async def test_a_card_leads_back_to_where_it_was_asked_for(api: Api) -> None:
    await api.offer("coder", Offer(card("coder")), "write")
    async with api.agent("planner") as planner:
        for headers, url in BACK:
            answer = await planner.get(MESH_CARD_PATH, headers=headers)
            assert answer.status_code == 200, answer.text
            assert answer.json()["supportedInterfaces"][0]["url"] == url
            assert "private" in answer.headers["cache-control"]


ODD: list[dict[str, str]] = [
    {},
    {"x-weft-card-of": "coder"},
    {"x-weft-card-of": "type/coder", "host": "evil example"},
    {"x-weft-card-of": "type/coder", "host": 'a"b'},
    {"x-weft-card-of": "type/coder", "x-weft-card-base": "javascript:alert(1)"},
    {"x-weft-card-of": "type/coder", "x-weft-card-base": "http://a/b"},
    {"x-weft-card-of": "type/coder", "x-weft-card-base": "http://user@a"},
]


async def test_a_question_that_no_envoy_asks_gets_no_card(api: Api) -> None:
    await api.offer("coder", Offer(card("coder")))
    async with api.agent("planner") as planner:
        for headers in ODD:
            answer = await planner.get(MESH_CARD_PATH, headers=headers)
            assert answer.status_code in {400, 422}, headers
