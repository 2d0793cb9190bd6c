"""The webhooks as an API server asks them: the real one where there is one, and its stand-in.

Asked is by the configurations of the installation, in which no more is changed than where the webhooks are,
and how long they have.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from tests.hosting import hosted
from tests.kubernetes_clusters import CLUSTERS, ClusterApi, cluster_api
from tests.kubernetes_stand_in import TOKEN
from tests.unit.kubernetes.pods import pod

from weft.aio.poll import until
from weft.aio.ports import reserve_port
from weft.kubernetes.controller.kinds import CUSTOM_KINDS, NAMESPACE, ClusterKind, Document, Key
from weft.kubernetes.injection_settings import InjectionSettings
from weft.kubernetes.installation import installation
from weft.kubernetes.webhook import process, server
from weft.kubernetes.webhook.certificates import ServingKeys, read_bundle, webhook_keys
from weft.kubernetes.webhook.process import Publication, WebhookSettings, webhooks
from weft.kubernetes.webhook.publication import configurations

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

HOST = "127.0.0.1"
SYSTEM = "weft-system"
POD = ClusterKind("", "v1", "Pod", "pods")
LIMIT = 120.0


def write_keys(directory: Path) -> None:
    for name, content in webhook_keys([HOST]).items():
        (directory / name).write_bytes(content)


@dataclass
class Stage:
    """A cluster, and webhooks that can be away for a while."""

    api: ClusterApi
    http: httpx.AsyncClient
    settings: WebhookSettings
    _ends: AsyncExitStack = field(default_factory=AsyncExitStack)
    _number: int = 0

    async def start(self) -> None:
        """Have webhooks, and await that they are asked."""
        await self._ends.enter_async_context(hosted(webhooks(self.settings, self.api.cluster, SYSTEM)))
        await self.awaited(self.asked)

    async def stop(self) -> None:
        """Have none."""
        ends, self._ends = self._ends, AsyncExitStack()
        await ends.aclose()

    @staticmethod
    async def awaited(condition: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(LIMIT):
            await until(condition)

    async def asked(self) -> bool:
        pods, resources = await self.create_pod("agents"), await self.create("Egress", CONTRADICTION)
        return "initContainers" in pods.json().get("spec", {}) and resources.status_code == 422

    def name(self) -> str:
        """One that nothing has."""
        self._number += 1
        return f"thing-{self._number}"

    async def create_pod(
        self, namespace: str, change: Callable[[Document], None] | None = None
    ) -> httpx.Response:
        document = {"apiVersion": "v1", "kind": "Pod", **pod()}
        document["metadata"]["name"] = self.name()
        if change is not None:
            change(document)
        return await self.http.post(POD.path(namespace), json=document)

    async def create(
        self, kind: str, spec: Document, *, name: str = "", namespace: str = "default"
    ) -> httpx.Response:
        known = CUSTOM_KINDS[kind]
        metadata = {"name": name or self.name(), "namespace": namespace}
        document = {"apiVersion": known.api_version, "kind": kind, "metadata": metadata, "spec": spec}
        return await self.http.post(known.path(namespace), json=document)


CONTRADICTION = {"mode": "open", "allow": [{"host": "example.test"}]}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=CLUSTERS)
async def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    directory = tmp_path_factory.mktemp("webhooks")
    write_keys(directory)
    async with AsyncExitStack() as ends:
        patch = ends.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(process, "TOLD_WITHIN", LIMIT)
        patch.setattr(server, "READ_TIMEOUT", LIMIT)
        api = await ends.enter_async_context(
            hosted(cluster_api(request.param, tmp_path_factory.mktemp("cluster")))
        )
        http = await ends.enter_async_context(client(api))
        for name, labels in (
            ("agents", {"weft.dev/injection": "enabled"}),
            (SYSTEM, {"weft.dev/injection": "enabled"}),
            ("strict", {"weft.dev/injection": "enabled", "pod-security.kubernetes.io/enforce": "restricted"}),
            ("plain", {"weft.dev/injection": "disabled"}),
        ):
            # A real API server names each by this label itself.
            all_labels = {**labels, "kubernetes.io/metadata.name": name}
            await api.cluster.create(NAMESPACE, {"metadata": {"name": name, "labels": all_labels}})
        with reserve_port(HOST) as port, reserve_port(HOST) as health:
            settings = WebhookSettings(
                "weft", HOST, port.port, health.port, directory, InjectionSettings(image="weft:test")
            )
        await configure(api, f"https://{HOST}:{settings.port}")
        running = Stage(api, http, settings)
        await running.start()
        yield running
        await running.stop()


def client(api: ClusterApi) -> httpx.AsyncClient:
    if api.server is not None:
        return api.server.client()
    assert api.stand_in is not None
    headers = {"authorization": f"Bearer {TOKEN}"}
    return httpx.AsyncClient(base_url=api.stand_in.url, headers=headers, timeout=LIMIT)


async def configure(api: ClusterApi, url: str) -> None:
    """Have both configurations of an installation, for webhooks at `url`."""
    kinds = {kind.kind: kind for kind, _ in configurations("weft")}
    documents = [each for each in installation(namespace=SYSTEM) if each["kind"] in kinds]
    assert len(documents) == 2
    for document in documents:
        for webhook in document["webhooks"]:
            service = webhook["clientConfig"].pop("service")
            webhook["clientConfig"]["url"] = url + service["path"]
            # The most there is: nothing here is about who is fast.
            webhook["timeoutSeconds"] = 30
        await api.cluster.create(kinds[document["kind"]], document)


def told(response: httpx.Response) -> str:
    return " ".join(response.headers.get_list("warning"))


def sidecars(response: httpx.Response) -> list[str]:
    assert response.status_code == 201, response.text
    return [each["name"] for each in response.json()["spec"].get("initContainers", [])]


async def test_a_pod_in_a_labelled_namespace_gets_a_sidecar(stage: Stage) -> None:
    created = await stage.create_pod("agents")
    assert sidecars(created) == ["weft-sidecar"]
    found = created.json()
    [sidecar] = found["spec"]["initContainers"]
    assert (sidecar["image"], sidecar["restartPolicy"]) == ("weft:test", "Always")
    [agent] = found["spec"]["containers"]
    assert agent["image"] == "example.test/summarizer:1"
    assert agent["livenessProbe"]["httpGet"]["path"] == "/agent/probes/liveness"
    assert found["metadata"]["labels"]["weft.dev/agent"] == "summarizer"
    assert told(created) == ""


async def test_a_sidecar_is_taken_where_pods_must_be_restricted(stage: Stage) -> None:
    def restrict(document: Document) -> None:
        seccomp = {"type": "RuntimeDefault"}
        document["spec"]["securityContext"] = {"runAsNonRoot": True, "seccompProfile": seccomp}
        [agent] = document["spec"]["containers"]
        agent["securityContext"] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}

    assert sidecars(await stage.create_pod("strict", restrict)) == ["weft-sidecar"]


@pytest.mark.parametrize("namespace", ["plain", "default", SYSTEM])
async def test_pods_elsewhere_are_never_touched(stage: Stage, namespace: str) -> None:
    def forbid(document: Document) -> None:
        document["spec"]["hostNetwork"] = True

    created = await stage.create_pod(namespace)
    assert sidecars(created) == []
    assert created.json()["metadata"]["labels"] == {"app": "summarizer"}
    assert sidecars(await stage.create_pod(namespace, forbid)) == []


async def test_a_pod_that_wants_none_is_left_alone(stage: Stage) -> None:
    def decline(document: Document) -> None:
        document["metadata"]["labels"] = {"weft.dev/inject": "false"}

    assert sidecars(await stage.create_pod("agents", decline)) == []


def _own_envoy(document: Document) -> None:
    document["spec"]["containers"].append({"name": "envoy", "image": "envoyproxy/envoy:v1.35"})


def _host_network(document: Document) -> None:
    document["spec"]["hostNetwork"] = True


def _no_service_account(document: Document) -> None:
    del document["spec"]["serviceAccountName"]


@pytest.mark.parametrize(
    ("change", "reason", "what_to_do"),
    [
        (_own_envoy, "OtherProxy", "remove it"),
        (_host_network, "HostNetwork", "remove hostNetwork"),
        (_no_service_account, "NoServiceAccount", "create a ServiceAccount of the agent's name"),
    ],
)
async def test_a_pod_that_cannot_have_one_is_refused_with_what_to_do(
    stage: Stage, change: Callable[[Document], None], reason: str, what_to_do: str
) -> None:
    refused = await stage.create_pod("agents", change)
    assert refused.status_code == 422
    message = refused.json()["message"]
    assert 'admission webhook "inject.weft.dev" denied the request' in message
    assert reason in message
    assert what_to_do in message
    assert refused.json()["details"]["causes"][0]["reason"] == reason


async def test_an_init_container_that_needs_the_network_is_warned_of(stage: Stage) -> None:
    def fetch_first(document: Document) -> None:
        command = ["curl", "http://planner.mesh/plan"]
        document["spec"]["initContainers"] = [{"name": "fetch", "image": "a:1", "command": command}]

    created = await stage.create_pod("agents", fetch_first)
    assert sidecars(created) == ["weft-sidecar", "fetch"], "the sidecar is there before it"
    assert "InitContainerOutside" in told(created)
    assert "set HTTP_PROXY" in told(created)


@pytest.mark.parametrize(
    ("kind", "spec", "what"),
    [
        ("Egress", CONTRADICTION, "spec.allow: goes with mode list only"),
        ("AgentDeployment", {"image": "a:1", "replicas": {"least": 5, "most": 2}}, "least (5) is above most"),
        ("AgentDeployment", {"image": "a:1", "agent": {"port": 7443}}, "PortTaken"),
    ],
)
async def test_a_custom_resource_that_cannot_hold_is_refused(
    stage: Stage, kind: str, spec: Document, what: str
) -> None:
    refused = await stage.create(kind, spec)
    assert refused.status_code == 422
    assert 'admission webhook "validate.weft.dev" denied the request' in refused.json()["message"]
    assert what in refused.json()["message"]


async def test_one_of_the_same_name_in_another_namespace_is_warned_of(stage: Stage) -> None:
    name = stage.name()
    first = await stage.create("Queue", {}, name=name)
    assert (first.status_code, told(first)) == (201, "")
    second = await stage.create("Queue", {}, name=name, namespace="agents")
    assert second.status_code == 201
    assert f"another namespace has a Queue '{name}' already" in told(second)


async def test_webhooks_that_are_down_hold_up_nobody(stage: Stage) -> None:
    await stage.stop()
    try:
        assert sidecars(await stage.create_pod("agents")) == []
        name = stage.name()
        assert (await stage.create("Egress", CONTRADICTION, name=name)).status_code == 201
    finally:
        await stage.start()
    # What was taken meanwhile can be labelled, and corrected, but not made anew.
    path = f"{CUSTOM_KINDS['Egress'].path('default')}/{name}"
    found = (await stage.http.get(path)).json()
    labelled = {**found, "metadata": {**found["metadata"], "labels": {"a": "b"}}}
    answer = await stage.http.put(path, json=labelled)
    assert answer.status_code == 200, answer.text
    other = {**answer.json(), "spec": {**CONTRADICTION, "for": ["a"]}}
    assert (await stage.http.put(path, json=other)).status_code == 422
    assert (await stage.http.put(path, json={**answer.json(), "spec": {"mode": "open"}})).status_code == 200


async def test_keys_are_replaced_under_way_and_api_servers_told(stage: Stage) -> None:
    directory = stage.settings.keys
    before = (directory / "ca.crt").read_bytes()
    write_keys(directory)
    assert (directory / "ca.crt").read_bytes() != before
    await stage.stop()
    await stage.start()
    assert sidecars(await stage.create_pod("agents")) == ["weft-sidecar"]
    kind, key = configurations("weft")[0]
    found = await stage.api.cluster.get(kind, key)
    assert found is not None
    assert len(read_bundle(found["webhooks"][0]["clientConfig"]["caBundle"])) == 2, "those of before stay"


async def test_in_a_namespace_that_is_being_deleted_nothing_is_held_up(stage: Stage) -> None:
    name = await stage.api.namespace("short-lived")
    assert (await stage.create("Queue", {}, name="work", namespace=name)).status_code == 201
    await stage.api.cluster.delete(NAMESPACE, Key("", name))
    refused = await stage.create("Queue", {}, namespace=name)
    assert refused.status_code == 403
    assert "is being terminated" in refused.json()["message"]
    await stage.api.cluster.delete(CUSTOM_KINDS["Queue"], Key(name, "work"))
    assert await stage.api.found("Queue", "work", name) is None


async def test_what_is_missing_of_an_installation_is_said_and_put_right_once_it_is_there(
    stage: Stage,
) -> None:
    kind, key = configurations("weft")[1]
    found = await stage.api.cluster.get(kind, key)
    assert found is not None
    await stage.api.cluster.delete(kind, key)
    publication = Publication(stage.api.cluster, "weft", ServingKeys(stage.settings.keys))
    await publication.look()
    assert "there is no ValidatingWebhookConfiguration weft-validator" in await publication.ready()
    for webhook in found["webhooks"]:
        del webhook["clientConfig"]["caBundle"]
    metadata = {"name": found["metadata"]["name"]}
    await stage.api.cluster.create(kind, {**found, "metadata": metadata})

    async def put_right() -> bool:
        # The webhooks that run may do it at the same time.
        await publication.look()
        return await publication.ready() == ""

    await stage.awaited(put_right)
    await stage.awaited(stage.asked)
