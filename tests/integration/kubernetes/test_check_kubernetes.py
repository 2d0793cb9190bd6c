"""`weft check --kubernetes`, asked of a real API server where there is one, and of its stand-in."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.hosting import hosted
from tests.kubernetes_clusters import CLUSTERS, DEFINITION, ClusterApi, cluster_api
from tests.kubernetes_stand_in import TOKEN
from tests.pki import Pki
from tests.unit.kubernetes.pods import pod

from weft.cli.check_kubernetes import Installation, cluster_report
from weft.cli.cluster_agent_findings import POD
from weft.cli.cluster_findings import DEPLOYMENT, ENDPOINT_SLICE, STATEFUL_SET
from weft.cli.exit_codes import ExitCode
from weft.cli.findings import Finding, Level
from weft.kubernetes.controller.conditions import Condition, with_conditions
from weft.kubernetes.controller.kinds import CONFIG_MAP, CUSTOM_KINDS, NAMESPACE, ClusterKind, Document, Key
from weft.kubernetes.installation import installation
from weft.kubernetes.webhook.certificates import webhook_keys
from weft.kubernetes.webhook.publication import configurations, publish

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

NOW = datetime.now(UTC)
SYSTEM, AGENTS = "weft-system", "agents"
PARTS = {"nats": STATEFUL_SET, "control": DEPLOYMENT, "controller": DEPLOYMENT, "webhook": DEPLOYMENT}


@dataclass(frozen=True)
class Stage:
    """A cluster with an installation in which all is well, as far as objects can say."""

    api: ClusterApi
    kubeconfig: Path

    async def findings(self, kubeconfig: Path | None = None) -> list[Finding]:
        environ = {"KUBECONFIG": str(kubeconfig or self.kubeconfig)}
        return await cluster_report(Installation(), environ)

    async def bad(self) -> list[Finding]:
        """What is not well, but for what no test cluster has."""
        return [
            each for each in await self.findings() if each.level != Level.OK and each.what != "metrics.k8s.io"
        ]

    @asynccontextmanager
    async def changed(
        self, kind: ClusterKind, key: Key, patch: Document, subresource: str = ""
    ) -> AsyncIterator[None]:
        """An object changed by a merge patch, and then as it was."""
        before = await self.api.cluster.get(kind, key)
        assert before is not None
        await self.api.cluster.merge(kind, key, patch, subresource=subresource)
        try:
            yield
        finally:
            back = {name: before.get(name) for name in patch}
            await self.api.cluster.merge(kind, key, back, subresource=subresource)

    @asynccontextmanager
    async def with_object(self, kind: ClusterKind, document: Document) -> AsyncIterator[None]:
        metadata = document["metadata"]
        await self.api.cluster.create(kind, document)
        try:
            yield
        finally:
            await self.api.cluster.delete(kind, Key(metadata.get("namespace", ""), metadata["name"]))


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=CLUSTERS)
async def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    directory = tmp_path_factory.mktemp("check")
    async with hosted(cluster_api(request.param, tmp_path_factory.mktemp("cluster"))) as api:
        write_kubeconfig(directory / "config", api)
        await install(api)
        yield Stage(api, directory / "config")


def write_kubeconfig(file: Path, api: ClusterApi, token: str = "") -> None:
    if api.server is not None:
        roots = file.parent / "roots.pem"
        roots.write_text(api.server.roots())
        cluster: Document = {"server": api.server.url, "certificate-authority": "roots.pem"}
        token = token or api.server.token
    else:
        assert api.stand_in is not None
        cluster, token = {"server": api.stand_in.url}, token or TOKEN
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": cluster}],
        "users": [{"name": "tests", "user": {"token": token}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
        "current-context": "tests",
    }
    file.write_text(json.dumps(config))


async def install(api: ClusterApi) -> None:
    """The objects of an installation that are looked at, with what controllers and kubelets would say."""
    labels = {"weft.dev/injection": "enabled"}
    await api.namespace(SYSTEM)
    await api.cluster.create(NAMESPACE, {"metadata": {"name": AGENTS, "labels": labels}})
    found = {(each["kind"], each["metadata"]["name"]): each for each in installation()}
    for part, kind in PARTS.items():
        document = found[kind.kind, f"weft-{part}"]
        await api.cluster.create(kind, document)
        replicas = document["spec"]["replicas"]
        status = {"replicas": replicas, "readyReplicas": replicas, "observedGeneration": 1}
        key = Key(SYSTEM, f"weft-{part}")
        await api.cluster.merge(kind, key, {"status": status}, subresource="status")
    for part in ("control", "webhook"):
        await api.cluster.create(ENDPOINT_SLICE, endpoint_slice(part))
    for kind, key in configurations("weft"):
        await api.cluster.create(kind, found[kind.kind, key.name])
    await publish(api.cluster, "weft", webhook_keys(["weft-webhook.weft-system.svc"])["ca.crt"])
    for namespace in (SYSTEM, AGENTS):
        await api.cluster.create(CONFIG_MAP, roots(namespace))


def endpoint_slice(part: str) -> Document:
    service = f"weft-{part}"
    return {
        "metadata": {
            "name": f"{service}-abc",
            "namespace": SYSTEM,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.7"], "conditions": {"ready": True}}],
        "ports": [{"port": 7400}],
    }


ROOTS = Pki().bundle().pem.decode()


def roots(namespace: str) -> Document:
    return {"metadata": {"name": "weft-roots", "namespace": namespace}, "data": {"roots.pem": ROOTS}}


def agent_pod(name: str, **annotations: str) -> Document:
    document = {"apiVersion": "v1", "kind": "Pod", **pod()}
    document["metadata"] = {"name": name, "namespace": AGENTS, "annotations": annotations}
    return document


async def test_an_installation_in_which_all_is_well_is_told_so(stage: Stage) -> None:
    assert await stage.bad() == []
    found = {each.what: each.found for each in await stage.findings()}
    assert (found["NATS"], found["control plane"]) == ("3 of 3 ready", "3 of 3 ready")
    assert found["custom resources"] == f"{len(CUSTOM_KINDS)} kinds"
    assert found["reached at"] == "Service weft-system/weft-control, 1 behind it"
    assert found["keda.sh"].startswith("not there")
    assert found["inject.weft.dev"].startswith("believed until ")


async def test_it_asks_for_metrics_of_pods(stage: Stage) -> None:
    [found] = [each for each in await stage.findings() if each.what == "metrics.k8s.io"]
    assert (found.level, "metrics-server" in found.advice) == (Level.WARN, True)


@pytest.mark.parametrize(
    ("part", "ready", "level", "told"),
    [
        ("nats", 1, Level.FAIL, "1 of 3 ready: there is no quorum"),
        ("nats", 2, Level.WARN, "2 of 3 ready"),
        ("control", 0, Level.FAIL, "0 of 3 ready"),
        ("webhook", 1, Level.WARN, "1 of 2 ready"),
    ],
)
async def test_parts_that_do_not_run_are_told(
    stage: Stage, part: str, ready: int, level: Level, told: str
) -> None:
    status = {"status": {"readyReplicas": ready}}
    async with stage.changed(PARTS[part], Key(SYSTEM, f"weft-{part}"), status, "status"):
        [found] = await stage.bad()
    assert (found.level, found.found) == (level, told)
    assert f"weft-{part}" in found.advice


async def test_what_is_not_there_at_all_is_told(stage: Stage) -> None:
    elsewhere = Installation(name="other", namespace="nowhere")
    found = await cluster_report(elsewhere, {"KUBECONFIG": str(stage.kubeconfig)})
    bad = {each.what: each.found for each in found if each.level is Level.FAIL}
    assert bad["NATS"] == "there is no StatefulSet nowhere/other-nats"
    assert bad["control plane"] == "there is no Deployment nowhere/other-control"
    assert bad["roots"] == "none in ConfigMap nowhere/other-roots"
    assert "reached at" in bad


async def test_definitions_of_an_older_version_are_told_with_the_fields_they_drop(stage: Stage) -> None:
    key = Key("", "queues.weft.dev")
    found = await stage.api.cluster.get(DEFINITION, key)
    assert found is not None
    older = deepcopy(found["spec"])
    del older["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["concurrency"]
    async with stage.changed(DEFINITION, key, {"spec": older}):
        [told] = await stage.bad()
    assert told.level is Level.FAIL
    assert told.found == "of an older version, which drops fields: Queue (spec.concurrency)"
    assert "weft kubernetes crds" in told.advice


async def test_a_pod_without_a_sidecar_is_told_where_it_should_have_one(stage: Stage) -> None:
    async with stage.with_object(POD, agent_pod("lonely")):
        [told] = await stage.bad()
        assert (told.level, told.found) == (Level.WARN, "pods without one: agents/lonely")
        assert "rollout restart" in told.advice
    async with stage.with_object(POD, agent_pod("declines", **{"weft.dev/inject": "false"})):
        assert await stage.bad() == []
    async with stage.with_object(POD, agent_pod("right", **{"weft.dev/injected": version("weft")})):
        assert await stage.bad() == []
    async with stage.with_object(POD, agent_pod("old", **{"weft.dev/injected": "0.0.1"})):
        [told] = await stage.bad()
        assert told.found == f"of another version than {version('weft')}: agents/old (0.0.1)"


async def test_roots_that_are_missing_somewhere_are_told(stage: Stage) -> None:
    async with stage.changed(CONFIG_MAP, Key(AGENTS, "weft-roots"), {"data": {"roots.pem": "old"}}):
        [told] = await stage.bad()
        assert (told.level, told.found) == (Level.FAIL, "missing or old in: agents")
    async with stage.changed(CONFIG_MAP, Key(SYSTEM, "weft-roots"), {"data": {"roots.pem": None}}):
        [told] = await stage.bad()
        assert (told.level, told.found) == (Level.FAIL, "none in ConfigMap weft-system/weft-roots")


async def test_webhooks_that_nobody_believes_or_reaches_are_told(stage: Stage) -> None:
    kind, key = configurations("weft")[0]
    found = await stage.api.cluster.get(kind, key)
    assert found is not None
    for field, value, told_of in (
        ("caBundle", None, "has no caBundle, so API servers do not believe it"),
        ("failurePolicy", "Fail", "failurePolicy is not Ignore"),
    ):
        changed = deepcopy(found["webhooks"])
        if value is None:
            del changed[0]["clientConfig"][field]
        else:
            changed[0][field] = value
        async with stage.changed(kind, key, {"webhooks": changed}):
            [told] = await stage.bad()
        assert (told.what, told.found) == ("inject.weft.dev", told_of)
    away = {"endpoints": [{"addresses": ["10.0.0.7"], "conditions": {"ready": False}}]}
    async with stage.changed(ENDPOINT_SLICE, Key(SYSTEM, "weft-webhook-abc"), away):
        [told] = await stage.bad()
    assert told.found == "nothing that is ready is behind Service weft-system/weft-webhook"


async def test_resources_that_the_mesh_has_not_are_told(stage: Stage) -> None:
    kind, key = CUSTOM_KINDS["Queue"], Key("default", "work")
    await stage.api.declare("Queue", "work", {})
    try:
        [told] = await stage.bad()
        assert told.found == "not looked at yet: Queue default/work"
        condition = Condition("Ready", "False", "Invalid", "It is wrong.")
        conditions = with_conditions([], [condition], generation=1, now=NOW)
        await stage.api.cluster.merge(kind, key, {"status": {"conditions": conditions}}, subresource="status")
        [told] = await stage.bad()
        assert told.found == "not as declared: Queue default/work (Invalid)"
    finally:
        await stage.api.cluster.delete(kind, key)


async def test_who_may_not_ask_is_told_so_of_everything(stage: Stage, tmp_path: Path) -> None:
    write_kubeconfig(tmp_path / "config", stage.api, token="of-nobody")
    found = await stage.findings(tmp_path / "config")
    assert {each.level for each in found} == {Level.FAIL}
    assert all("answers 401" in each.found for each in found)


async def run(*arguments: str, environ: dict[str, str]) -> tuple[int, str]:
    """The exit code of `weft check`, and what it wrote."""
    program = "import sys; from weft.cli.main import run; sys.exit(run(sys.argv[1:]))"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, "check", "--kubernetes", *arguments),
        env={**os.environ, **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_the_command_shows_it_as_a_table_or_as_json_and_fails_where_something_does(
    stage: Stage,
) -> None:
    environ = {"KUBECONFIG": str(stage.kubeconfig)}
    code, output = await run(environ=environ)
    assert code == ExitCode.OK, output
    assert "The installation works; see the lines that say warn." in output
    code, output = await run("--output=json", "--name=other", environ=environ)
    assert code == ExitCode.FAILED
    found: list[dict[str, Any]] = json.loads(output)
    assert {"level": "fail", "what": "NATS"}.items() <= next(x for x in found if x["what"] == "NATS").items()
