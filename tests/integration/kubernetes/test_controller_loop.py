"""What the controller stands on: the client of a cluster's API, what is followed of it, the loop, reports.

One suite for the real API server and its stand-in.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
import pytest_asyncio
from tests.hosting import hosted
from tests.kubernetes_clusters import CLUSTERS, ClusterApi, cluster_api
from tests.kubernetes_loop import looping

from weft.aio.poll import until
from weft.errors import Conflict, InvalidRequest, NotFound, Unauthenticated, Unavailable
from weft.kubernetes.controller.cluster import Cluster
from weft.kubernetes.controller.conditions import Condition, Reports, found_condition
from weft.kubernetes.controller.following import Following
from weft.kubernetes.controller.kinds import CONFIG_MAP, CUSTOM_KINDS, EVENT, ClusterKind, Document, Key
from weft.kubernetes.controller.loop import Source

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

LIMIT = 60.0
AGENT = CUSTOM_KINDS["Agent"]
NOWHERE = ClusterKind("weft.dev", "v1alpha1", "Nothing", "nothings")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=CLUSTERS)
async def api(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ClusterApi]:
    async with hosted(cluster_api(request.param, tmp_path_factory.mktemp("cluster"))) as running:
        yield running


def config_map(name: str, data: dict[str, str], **metadata: object) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", **metadata},
        "data": data,
    }


class Noting:
    """Notes which keys it was to look at, and does as it was told."""

    name = "noting"

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources
        self.seen: list[Key] = []
        self.fails: list[Exception] = []
        self.again: list[float] = []

    async def reconcile(self, key: Key) -> float | None:
        self.seen.append(key)
        if self.fails:
            raise self.fails.pop()
        return self.again.pop() if self.again else None


async def holds(condition: Callable[[], bool]) -> None:
    async def asked() -> bool:
        return condition()

    async with asyncio.timeout(LIMIT):
        await until(asked)


async def test_what_was_written_is_read_and_what_is_not_there_is_none(api: ClusterApi) -> None:
    made = await api.cluster.create(CONFIG_MAP, config_map("written", {"a": "1"}))
    assert made["metadata"]["uid"]
    found = await api.cluster.get(CONFIG_MAP, Key("default", "written"))
    assert found is not None
    assert found["data"] == {"a": "1"}
    assert await api.cluster.get(CONFIG_MAP, Key("default", "never")) is None
    assert await api.cluster.get(CONFIG_MAP, Key("nowhere", "written")) is None
    with pytest.raises(Conflict, match="already exists"):
        await api.cluster.create(CONFIG_MAP, config_map("written", {}))


async def test_an_object_is_replaced_only_at_the_version_that_is_meant(api: ClusterApi) -> None:
    made = await api.cluster.create(CONFIG_MAP, config_map("replaced", {"a": "1"}))
    await api.cluster.replace(CONFIG_MAP, {**made, "data": {"a": "2"}})
    with pytest.raises(Conflict):
        await api.cluster.replace(CONFIG_MAP, {**made, "data": {"a": "3"}})
    with pytest.raises(NotFound):
        await api.cluster.replace(CONFIG_MAP, config_map("never-there", {}))


async def test_a_patch_of_another_version_is_refused(api: ClusterApi) -> None:
    await api.cluster.create(CONFIG_MAP, config_map("patched", {"a": "1", "b": "2"}))
    key = Key("default", "patched")
    patched = await api.cluster.merge(CONFIG_MAP, key, {"data": {"a": None, "c": "3"}})
    assert patched["data"] == {"b": "2", "c": "3"}
    version = {"resourceVersion": patched["metadata"]["resourceVersion"]}
    await api.cluster.merge(CONFIG_MAP, key, {"metadata": version, "data": {"c": "4"}})
    with pytest.raises(Conflict):
        await api.cluster.merge(CONFIG_MAP, key, {"metadata": version, "data": {"c": "5"}})
    with pytest.raises(NotFound):
        await api.cluster.merge(CONFIG_MAP, Key("default", "no-such"), {"data": {}})


async def test_what_is_applied_no_more_goes_and_what_others_set_stays(api: ClusterApi) -> None:
    await api.cluster.apply(CONFIG_MAP, config_map("applied", {"a": "1", "b": "2"}))
    await api.cluster.merge(CONFIG_MAP, Key("default", "applied"), {"data": {"theirs": "x"}})
    again = await api.cluster.apply(CONFIG_MAP, config_map("applied", {"a": "3"}))
    assert again["data"] == {"a": "3", "theirs": "x"}
    same = await api.cluster.apply(CONFIG_MAP, config_map("applied", {"a": "3"}))
    assert same["metadata"]["resourceVersion"] == again["metadata"]["resourceVersion"]


async def test_only_what_is_meant_is_deleted_and_what_is_gone_is_no_error(api: ClusterApi) -> None:
    made = await api.cluster.create(CONFIG_MAP, config_map("deleted", {}))
    key = Key("default", "deleted")
    with pytest.raises(Conflict):
        await api.cluster.delete(CONFIG_MAP, key, uid="another")
    await api.cluster.delete(CONFIG_MAP, key, uid=made["metadata"]["uid"])
    await api.cluster.delete(CONFIG_MAP, key)
    assert await api.cluster.get(CONFIG_MAP, key) is None


async def test_generations_count_changes_of_the_spec_alone(api: ClusterApi) -> None:
    first = await api.declare("Agent", "generations", {"capabilities": ["a"]})
    assert first["metadata"]["generation"] == 1
    await api.cluster.merge(
        AGENT, Key("default", "generations"), {"status": {"observedGeneration": 1}}, subresource="status"
    )
    await api.cluster.merge(AGENT, Key("default", "generations"), {"metadata": {"labels": {"a": "b"}}})
    found = await api.found("Agent", "generations")
    assert found is not None
    assert found["metadata"]["generation"] == 1
    assert found["status"] == {"observedGeneration": 1}
    second = await api.declare("Agent", "generations", {"capabilities": ["b"]})
    assert second["metadata"]["generation"] == 2


async def test_what_the_schema_refuses_is_told(api: ClusterApi) -> None:
    with pytest.raises(InvalidRequest, match="port"):
        await api.declare("Agent", "refused", {"port": 0})


async def test_nobody_without_a_token_gets_in(api: ClusterApi) -> None:
    server = api.server
    trust = server.trust() if server is not None else False
    async with Cluster(api.cluster.url, trust=trust, token=lambda: "not-this") as nobody:
        with pytest.raises(Unauthenticated):
            await nobody.list(CONFIG_MAP)


async def test_an_api_that_is_not_there_is_unavailable() -> None:
    async with Cluster("http://127.0.0.1:1", trust=False, token=lambda: "none") as cluster:
        with pytest.raises(Unavailable, match="does not answer"):
            await cluster.get(CONFIG_MAP, Key("default", "any"))


async def test_lists_of_several_pages_are_whole_and_labels_choose(api: ClusterApi) -> None:
    for number in range(6):
        labels = {"of": "pages", "half": str(number % 2)}
        await api.cluster.create(CONFIG_MAP, config_map(f"page-{number}", {}, labels=labels))
    listing = await api.cluster.list(CONFIG_MAP, labels="of=pages", page=2)
    assert [each["metadata"]["name"] for each in listing.items] == [f"page-{number}" for number in range(6)]
    assert {each["kind"] for each in listing.items} == {"ConfigMap"}
    assert len((await api.cluster.list(CONFIG_MAP, labels="of=pages,half=1")).items) == 3
    assert (await api.cluster.list(CONFIG_MAP, namespace="kube-system", labels="of=pages")).items == []
    with pytest.raises(NotFound):
        await api.cluster.list(NOWHERE)


async def test_a_reconciler_is_woken_by_what_is_there_what_changes_and_what_goes(api: ClusterApi) -> None:
    await api.cluster.create(CONFIG_MAP, config_map("there-before", {}, labels={"of": "waking"}))
    following = Following(api.cluster, CONFIG_MAP, labels="of=waking")
    noting = Noting([Source(following)])
    before, after = Key("default", "there-before"), Key("default", "made-later")
    async with looping(noting):
        await holds(lambda: before in noting.seen)
        await api.cluster.create(CONFIG_MAP, config_map("made-later", {"a": "1"}, labels={"of": "waking"}))
        await holds(lambda: after in noting.seen)
        assert following.objects[after]["data"] == {"a": "1"}
        noting.seen.clear()
        await api.cluster.merge(CONFIG_MAP, after, {"data": {"a": "2"}})
        await holds(lambda: after in noting.seen)
        assert following.objects[after]["data"] == {"a": "2"}
        noting.seen.clear()
        await api.cluster.merge(CONFIG_MAP, before, {"metadata": {"labels": None}})
        await holds(lambda: before in noting.seen)
        assert before not in following.objects
        noting.seen.clear()
        await api.cluster.delete(CONFIG_MAP, after)
        await holds(lambda: after in noting.seen)
        assert following.objects == {}


async def test_a_reconciler_that_fails_is_asked_again_and_one_that_wants_to_be_too(api: ClusterApi) -> None:
    await api.cluster.create(CONFIG_MAP, config_map("failing", {}, labels={"of": "failing"}))
    noting = Noting([Source(Following(api.cluster, CONFIG_MAP, labels="of=failing"))])
    noting.fails = [Unavailable("the mesh is away"), Conflict("somebody was there first")]
    noting.again = [0.01]
    async with looping(noting):
        await holds(lambda: len(noting.seen) >= 4)
    assert set(noting.seen) == {Key("default", "failing")}


async def test_a_kind_that_the_cluster_does_not_have_stops_nothing_else(api: ClusterApi) -> None:
    await api.cluster.create(CONFIG_MAP, config_map("beside", {}, labels={"of": "missing"}))
    missing = Following(api.cluster, NOWHERE)
    noting = Noting([Source(missing), Source(Following(api.cluster, CONFIG_MAP, labels="of=missing"))])
    async with looping(noting):
        await holds(lambda: Key("default", "beside") in noting.seen)
        assert missing.missing


async def test_a_watch_that_broke_or_lost_its_place_goes_on_with_how_things_stand(api: ClusterApi) -> None:
    if api.stand_in is None:
        pytest.skip("the real one does not break watches when asked to")
    following = Following(api.cluster, CONFIG_MAP, labels="of=broken")
    noting = Noting([Source(following)])
    gone, made = Key("default", "gone-meanwhile"), Key("default", "made-meanwhile")
    await api.cluster.create(CONFIG_MAP, config_map(gone.name, {}, labels={"of": "broken"}))
    async with looping(noting):
        await holds(lambda: gone in noting.seen)
        noting.seen.clear()
        await api.cluster.delete(CONFIG_MAP, gone)
        await api.cluster.create(CONFIG_MAP, config_map(made.name, {}, labels={"of": "broken"}))
        api.stand_in.compact()
        api.stand_in.end_watches()
        await holds(lambda: {gone, made} <= set(noting.seen))
        assert set(following.objects) == {made}


async def test_what_became_of_an_object_is_in_its_status_and_in_an_event(api: ClusterApi) -> None:
    agent = await api.declare("Agent", "reported", {"capabilities": ["a"]})
    reports = Reports(api.cluster, "controller-0")
    wrong = Condition("Ready", "False", "Invalid", "the mesh does not take it: write it otherwise")
    await reports.status(AGENT, agent, [wrong])
    found = await api.found("Agent", "reported")
    assert found is not None
    told = found_condition(found, "Ready")
    assert told is not None
    assert (told["status"], told["reason"], told["observedGeneration"]) == ("False", "Invalid", 1)
    assert found["status"]["observedGeneration"] == 1
    events = await events_about(api, "reported")
    assert [(each["type"], each["reason"], each["note"]) for each in events] == [
        ("Warning", "Invalid", wrong.message)
    ]
    assert events[0]["regarding"]["uid"] == agent["metadata"]["uid"]
    await reports.status(AGENT, found, [wrong])
    assert await api.found("Agent", "reported") == found, "nothing is written where nothing changes"
    await reports.status(AGENT, found, [Condition("Ready", "True", "Applied", "the mesh has it")])
    assert len(await events_about(api, "reported")) == 2


async def test_an_event_that_comes_again_counts(api: ClusterApi) -> None:
    agent = await api.declare("Agent", "counted", {})
    reports = Reports(api.cluster, "controller-0")
    for _ in range(3):
        await reports.event(agent, "Warning", "Odd", "ü" * 2000)
    [event] = await events_about(api, "counted")
    assert event["series"]["count"] == 3
    assert len(event["note"].encode()) <= 1024


async def test_reports_about_what_is_gone_are_no_error_and_never_about_another(api: ClusterApi) -> None:
    agent = await api.declare("Agent", "replaced", {})
    reports = Reports(api.cluster, "controller-0")
    ready = Condition("Ready", "True", "Applied", "the mesh has it")
    await api.cluster.delete(AGENT, Key("default", "replaced"))
    await reports.status(AGENT, agent, [ready])
    await api.declare("Agent", "replaced", {})
    with pytest.raises(Conflict):
        await reports.status(AGENT, agent, [ready])


async def events_about(api: ClusterApi, name: str) -> list[Document]:
    found = (await api.cluster.list(EVENT, namespace="default")).items
    return [each for each in found if each["regarding"]["name"] == name]
