"""Custom resources and a mesh are kept the same, both ways, by the controller between them.

One suite for the real API server and its stand-in.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from tests.controller_scene import SYSTEM, Scene, controller_scene, scene_with_mesh
from tests.hosting import hosted
from tests.kubernetes_clusters import CLUSTERS, ClusterApi, cluster_api
from tests.kubernetes_documents import Document

from weft.aio.ports import reserve_port
from weft.aio.private_file import write_private
from weft.kubernetes.controller.kinds import CUSTOM_KINDS, NAMESPACE, SECRET, Key
from weft.model.operator import Scope
from weft.model.resource import DECLARED_IN

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

QUEUE: Document = {"concurrency": 2}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=CLUSTERS)
async def api(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ClusterApi]:
    async with hosted(cluster_api(request.param, tmp_path_factory.mktemp("cluster"))) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def scene(api: ClusterApi, tmp_path: Path) -> AsyncIterator[Scene]:
    async with hosted(controller_scene(api, tmp_path)) as running:
        yield running


async def concurrency(scene: Scene, name: str) -> int | None:
    found = await scene.in_mesh("Queue", name)
    return None if found is None else found["spec"].get("concurrency")


async def test_what_is_declared_in_the_cluster_is_in_the_mesh_and_the_cluster_is_told(scene: Scene) -> None:
    await scene.api.declare("Queue", "studies", QUEUE)
    async with scene.controlled():
        custom = await scene.ready("Queue", "studies")
        found = await scene.in_mesh("Queue", "studies")
        assert found is not None
        assert found["spec"] == QUEUE
        assert found["metadata"]["annotations"][DECLARED_IN].endswith("/default")
        assert custom["status"]["meshRevision"] == found["metadata"]["resourceVersion"]
        await scene.api.declare("Queue", "studies", {"concurrency": 3})
        await scene.ready("Queue", "studies")
        assert await concurrency(scene, "studies") == 3


async def test_labels_of_a_custom_resource_are_those_of_the_resource(scene: Scene) -> None:
    queue = CUSTOM_KINDS["Queue"]
    await scene.api.declare("Queue", "labelled", QUEUE)
    async with scene.controlled():
        await scene.ready("Queue", "labelled")
        labels = {"team": "crew", "weft.dev/odd": "not-for-the-mesh"}
        await scene.api.cluster.merge(queue, Key("default", "labelled"), {"metadata": {"labels": labels}})

        async def mesh_labels() -> object:
            found = await scene.in_mesh("Queue", "labelled")
            return found and found["metadata"].get("labels")

        await scene.eventually(mesh_labels, lambda found: found == {"team": "crew"})


async def test_what_is_gone_from_the_cluster_is_gone_from_the_mesh(scene: Scene) -> None:
    await scene.api.declare("Queue", "passing", QUEUE)
    async with scene.controlled():
        await scene.ready("Queue", "passing")
    await scene.api.cluster.delete(CUSTOM_KINDS["Queue"], Key("default", "passing"))
    assert await concurrency(scene, "passing") == 2
    async with scene.controlled():  # which was not there when it went
        await scene.gone(lambda: scene.in_mesh("Queue", "passing"))


async def test_a_namespace_that_goes_is_not_held_up_and_takes_what_it_declared_with_it(scene: Scene) -> None:
    namespace = await scene.api.namespace("short-lived")
    await scene.api.declare("Queue", "in-it", QUEUE, namespace)
    async with scene.controlled():
        custom = await scene.ready("Queue", "in-it", namespace)
        assert "finalizers" not in custom["metadata"]
        await scene.api.cluster.delete(NAMESPACE, Key("", namespace))
        await scene.api.cluster.delete(CUSTOM_KINDS["Queue"], Key(namespace, "in-it"))
        await scene.gone(lambda: scene.in_mesh("Queue", "in-it"))


async def test_where_namespaces_are_named_nothing_counts_that_is_in_another(scene: Scene) -> None:
    counted, other = [await scene.api.namespace(each) for each in ("counted", "other")]
    await scene.api.declare("Queue", "before", QUEUE, other)
    async with scene.controlled(namespaces=frozenset({counted})):
        await scene.api.declare("Queue", "taken", QUEUE, SYSTEM)
        await scene.api.declare("Queue", "elsewhere", QUEUE, other)
        await scene.api.declare("Queue", "before", {"concurrency": 3}, counted)
        await scene.ready("Queue", "taken", SYSTEM)
        await scene.ready("Queue", "before", counted)
        assert await concurrency(scene, "before") == 3
        assert await concurrency(scene, "elsewhere") is None
    async with scene.controlled(namespaces=frozenset({other})):
        await scene.ready("Queue", "before", other)
        await scene.ready("Queue", "elsewhere", other)
        await scene.eventually(lambda: concurrency(scene, "before"), lambda found: found == 2)


async def test_what_is_changed_in_the_mesh_is_changed_in_the_cluster(scene: Scene) -> None:
    await scene.api.declare("Queue", "shared", {"concurrency": 2, "maxDeliveries": 7})
    async with scene.controlled():
        await scene.ready("Queue", "shared")
        await scene.apply("Queue", "shared", {"concurrency": 9}, labels={"by": "mesh"})

        async def spec() -> object:
            custom = await scene.api.found("Queue", "shared")
            return custom and (custom["spec"], custom["metadata"].get("labels"))

        await scene.eventually(spec, lambda found: found == ({"concurrency": 9}, {"by": "mesh"}))
        await scene.ready("Queue", "shared")
        found = await scene.in_mesh("Queue", "shared")
        assert found is not None
        assert DECLARED_IN in found["metadata"]["annotations"]
        assert found["spec"] == {"concurrency": 9}


async def test_null_where_it_says_something_comes_through_both_ways(scene: Scene) -> None:
    await scene.api.declare("Topic", "dropping", {})
    await scene.apply("Topic", "mirrored", {"deadLetter": None})
    async with scene.controlled():
        await scene.ready("Topic", "dropping")
        assert (await scene.ready("Topic", "mirrored", SYSTEM))["spec"] == {"deadLetter": None}
        await scene.apply("Topic", "dropping", {"deadLetter": None})
        await scene.eventually(
            lambda: scene.api.found("Topic", "dropping"),
            lambda found: found is not None and found["spec"] == {"deadLetter": None},
        )
        await scene.ready("Topic", "dropping")
        found = await scene.in_mesh("Topic", "dropping")
        assert found is not None
        assert found["spec"] == {"deadLetter": None}


async def test_of_changes_on_both_sides_the_clusters_is_in_force_and_that_is_told(scene: Scene) -> None:
    await scene.api.declare("Queue", "disputed", QUEUE)
    async with scene.controlled():
        await scene.ready("Queue", "disputed")
    await scene.apply("Queue", "disputed", {"concurrency": 8})
    await scene.api.declare("Queue", "disputed", {"concurrency": 4})
    async with scene.controlled():
        await scene.ready("Queue", "disputed")
        assert await concurrency(scene, "disputed") == 4
        await scene.eventually(
            lambda: scene.events("disputed"), lambda found: "MeshChangeOverwritten" in found
        )


async def test_what_is_deleted_in_the_mesh_alone_is_made_there_again(scene: Scene) -> None:
    await scene.api.declare("Queue", "lasting", QUEUE)
    async with scene.controlled():
        await scene.ready("Queue", "lasting")
        before = await scene.in_mesh("Queue", "lasting")
        await scene.mesh.delete("Queue", "lasting")

        def made_again(found: Document | None) -> bool:
            return found is not None and found["metadata"]["resourceVersion"] != version(before)

        await scene.eventually(lambda: scene.in_mesh("Queue", "lasting"), made_again)


def version(found: Document | None) -> str:
    assert found is not None
    return str(found["metadata"]["resourceVersion"])


async def test_what_is_declared_in_the_mesh_is_mirrored_and_goes_with_it(scene: Scene) -> None:
    await scene.apply("Queue", "by-weft", QUEUE)
    async with scene.controlled():
        mirror = await scene.ready("Queue", "by-weft", SYSTEM)
        assert mirror["spec"] == QUEUE
        assert mirror["metadata"]["labels"]["weft.dev/origin"] == "mesh"
        await scene.apply("Queue", "by-weft", {"concurrency": 5})

        async def mirrored() -> object:
            custom = await scene.api.found("Queue", "by-weft", SYSTEM)
            return custom and custom["spec"]

        await scene.eventually(mirrored, lambda found: found == {"concurrency": 5})
        await scene.api.declare("Queue", "by-weft", {"concurrency": 6}, SYSTEM)
        await scene.eventually(lambda: concurrency(scene, "by-weft"), lambda found: found == 6)
        await scene.ready("Queue", "by-weft", SYSTEM)
        await scene.mesh.delete("Queue", "by-weft")
        await scene.gone(lambda: scene.api.found("Queue", "by-weft", SYSTEM))


async def test_a_mirror_that_is_deleted_in_the_cluster_is_deleted_in_the_mesh(scene: Scene) -> None:
    await scene.apply("Queue", "unwanted", QUEUE)
    async with scene.controlled():
        await scene.ready("Queue", "unwanted", SYSTEM)
        await scene.eventually(
            lambda: scene.in_mesh("Queue", "unwanted"),
            lambda found: DECLARED_IN in ((found or {}).get("metadata", {}).get("annotations") or {}),
        )
        await scene.api.cluster.delete(CUSTOM_KINDS["Queue"], Key(SYSTEM, "unwanted"))
        await scene.gone(lambda: scene.in_mesh("Queue", "unwanted"))


async def test_a_mesh_that_lost_its_store_gets_everything_back(api: ClusterApi, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    async with controller_scene(api, first) as scene:
        await scene.apply("Queue", "by-weft", QUEUE)
        await scene.api.declare("Queue", "by-kubectl", QUEUE)
        async with scene.controlled():
            await scene.ready("Queue", "by-weft", SYSTEM)
            await scene.ready("Queue", "by-kubectl")
        async with scene_with_mesh(api, second) as empty:
            async with empty.controlled():
                await empty.eventually(lambda: concurrency(empty, "by-weft"), lambda found: found == 2)
                await empty.eventually(lambda: concurrency(empty, "by-kubectl"), lambda found: found == 2)
            assert await empty.api.found("Queue", "by-weft", SYSTEM) is not None


async def test_of_several_of_a_name_the_oldest_is_in_force_and_the_others_are_told(scene: Scene) -> None:
    namespace = await scene.api.namespace("another-team")
    older = await scene.api.declare("Queue", "twice", QUEUE)
    await scene.eventually(lambda: a_second_later(older))
    await scene.api.declare("Queue", "twice", {"concurrency": 7}, namespace)
    async with scene.controlled():
        await scene.ready("Queue", "twice")
        loser = await scene.ready("Queue", "twice", namespace, status="False", reason="Conflict")
        assert "namespace default" in loser["status"]["conditions"][0]["message"]
        assert await concurrency(scene, "twice") == 2
        await scene.eventually(lambda: scene.events("twice"), lambda found: "Conflict" in found)
        await scene.api.cluster.delete(CUSTOM_KINDS["Queue"], Key("default", "twice"))
        await scene.ready("Queue", "twice", namespace)
        assert await concurrency(scene, "twice") == 7


async def a_second_later(custom: Document) -> bool:
    """Whether what is made now has another time, of which a cluster keeps seconds."""
    created = datetime.fromisoformat(custom["metadata"]["creationTimestamp"])
    return datetime.now(UTC) - created > timedelta(seconds=1)


async def test_what_was_declared_in_the_mesh_is_taken_over_from_no_other_namespace(scene: Scene) -> None:
    await scene.apply("AccessPolicy", "guard", {"default": "deny"})
    async with scene.controlled():
        await scene.ready("AccessPolicy", "guard", SYSTEM)
        await scene.api.declare("AccessPolicy", "guard", {"default": "allow"})
        told = await scene.ready("AccessPolicy", "guard", status="False", reason="Conflict")
        assert f"namespace {SYSTEM}" in told["status"]["conditions"][0]["message"]
        await scene.api.cluster.delete(CUSTOM_KINDS["AccessPolicy"], Key("default", "guard"))
        await scene.api.declare("AccessPolicy", "after", {"effect": "deny", "from": [{"type": "critic"}]})
        await scene.ready("AccessPolicy", "after")
        guard = await scene.in_mesh("AccessPolicy", "guard")
        assert guard is not None
        assert guard["spec"] == {"default": "deny"}
        await scene.api.declare("AccessPolicy", "guard", {"default": "allow"})
        await scene.mesh.delete("AccessPolicy", "guard")
        await scene.ready("AccessPolicy", "guard")
        await scene.gone(lambda: scene.api.found("AccessPolicy", "guard", SYSTEM))


async def test_a_name_that_the_mesh_has_already_is_not_taken_over_though_nothing_mirrors_it(
    scene: Scene,
) -> None:
    await scene.apply("Queue", "before", QUEUE)
    await scene.api.declare("Queue", "before", {"concurrency": 3})
    async with scene.controlled():
        told = await scene.ready("Queue", "before", status="False", reason="Conflict")
        assert "weft apply" in told["status"]["conditions"][0]["message"]
        assert await concurrency(scene, "before") == 2
        await scene.mesh.delete("Queue", "before")
        await scene.ready("Queue", "before")
        assert await concurrency(scene, "before") == 3


async def test_what_is_declared_in_wefts_own_namespace_goes_before_what_is_older(scene: Scene) -> None:
    await scene.api.declare("Queue", "both", QUEUE)
    async with scene.controlled():
        await scene.ready("Queue", "both")
        await scene.api.declare("Queue", "both", {"concurrency": 3}, SYSTEM)
        await scene.ready("Queue", "both", SYSTEM)
        told = await scene.ready("Queue", "both", status="False", reason="Conflict")
        assert "goes before" in told["status"]["conditions"][0]["message"]
        assert await concurrency(scene, "both") == 3


async def test_what_the_mesh_refuses_says_why_and_is_taken_once_it_is_right(scene: Scene) -> None:
    await scene.api.declare("Queue", "refused", {"visibilityTimeout": "1ms"})
    async with scene.controlled():
        custom = await scene.ready("Queue", "refused", status="False", reason="Invalid")
        assert "visibilityTimeout" in custom["status"]["conditions"][0]["message"]
        await scene.eventually(lambda: scene.events("refused"), lambda found: "Invalid" in found)
        await scene.api.declare("Queue", "refused", {"visibilityTimeout": "1m"})
        await scene.ready("Queue", "refused")


async def test_of_custom_resources_that_contradict_each_other_one_says_so(scene: Scene) -> None:
    rules: Document = {
        "destination": {"type": "editor"},
        "rules": [{"split": [{"type": "critic", "weight": 1}]}],
    }
    await scene.api.declare("Route", "first", rules)
    async with scene.controlled():
        await scene.ready("Route", "first")
        await scene.api.declare("Route", "second", rules)
        custom = await scene.ready("Route", "second", status="False", reason="Invalid")
        assert "first" in custom["status"]["conditions"][0]["message"]
        await scene.eventually(lambda: scene.events("second"), lambda found: "Invalid" in found)
        await scene.api.cluster.delete(CUSTOM_KINDS["Route"], Key("default", "first"))
        await scene.ready("Route", "second")


async def test_a_mesh_that_is_away_is_said_and_gets_it_once_it_is_back(scene: Scene) -> None:
    there = scene.url
    with reserve_port("127.0.0.1") as nobody:
        scene.url = f"https://127.0.0.1:{nobody.port}"
        await scene.api.declare("Queue", "waiting", QUEUE)
        async with scene.controlled():
            custom = await scene.ready("Queue", "waiting", status="Unknown", reason="MeshUnavailable")
            assert scene.url in custom["status"]["conditions"][0]["message"]
    scene.url = there
    async with scene.controlled():
        await scene.ready("Queue", "waiting")
    with reserve_port("127.0.0.1") as nobody:
        scene.url = f"https://127.0.0.1:{nobody.port}"
        async with scene.controlled():
            await scene.api.declare("Queue", "changed-meanwhile", QUEUE)
            await scene.ready("Queue", "changed-meanwhile", status="Unknown", reason="MeshUnavailable")
            await scene.ready("Queue", "waiting")


async def test_a_token_that_was_replaced_is_read_anew(scene: Scene) -> None:
    await scene.api.declare("Queue", "before", QUEUE)
    async with scene.controlled():
        await scene.ready("Queue", "before")
        another, _ = await scene.served.tokens.create("another", Scope.ADMIN, created_by="tests")
        write_private(scene.directory / "token", f"{another}\n".encode(), group=True)
        await scene.served.tokens.revoke("controller")
        await scene.api.declare("Queue", "after", QUEUE)
        await scene.ready("Queue", "after")


async def test_values_of_secrets_come_from_the_clusters_and_are_shown_nowhere(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    value, later = "sk-very-secret-indeed", "sk-another-one"
    await scene.api.declare("Secret", "provider", SECRET_SPEC)
    async with scene.controlled():
        missing = await scene.ready("Secret", "provider", status="False", reason="SecretMissing")
        assert "create it" in missing["status"]["conditions"][0]["message"]
        await scene.api.cluster.create(SECRET, core_secret(value))
        try:
            await scene.api.declare("Secret", "provider", {**SECRET_SPEC, "inject": [INJECTION]})
            custom = await scene.ready("Secret", "provider")
            found = await scene.in_mesh("Secret", "provider")
            assert found is not None
            assert found["spec"]["data"]["apiKey"].startswith("<sealed")
            assert value not in f"{custom}{found}{caplog.text}"
            await scene.api.cluster.apply(SECRET, core_secret(later))
            label = {"metadata": {"labels": {"look": "again"}}}
            await scene.api.cluster.merge(CUSTOM_KINDS["Secret"], Key("default", "provider"), label)
            await scene.eventually(
                lambda: scene.in_mesh("Secret", "provider"),
                lambda now: now is not None and now["spec"]["data"] != found["spec"]["data"],
            )
        finally:
            await scene.api.cluster.delete(SECRET, Key("default", "provider-credentials"))


async def test_a_secret_of_the_mesh_is_not_mirrored(scene: Scene) -> None:
    await scene.apply("Secret", "by-weft", {"data": {"apiKey": "value"}})
    await scene.apply("Queue", "beside", QUEUE)
    async with scene.controlled():
        await scene.ready("Queue", "beside", SYSTEM)
        assert await scene.api.found("Secret", "by-weft", SYSTEM) is None


INJECTION: Document = {"host": "api.provider.example", "prefix": "Bearer ", "key": "apiKey"}
SECRET_SPEC: Document = {
    "data": {"apiKey": {"secretKeyRef": {"name": "provider-credentials", "key": "api-key"}}}
}


def core_secret(value: str) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "provider-credentials", "namespace": "default"},
        "data": {"api-key": base64.b64encode(value.encode()).decode()},
    }
