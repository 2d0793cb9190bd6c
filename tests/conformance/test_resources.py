"""Applying, reading, deleting and following resources, over every kind of store."""

from __future__ import annotations

import asyncio

import pytest

from weft.errors import Conflict, InvalidResource, NotFound, Unavailable
from weft.model.manifest import Document, parse_documents
from weft.model.resource import AnyResource
from weft.resources import turn
from weft.resources.store import Applied, Outcome, Resources
from weft.resources.view import ResourceView
from weft.store.bucket import Bucket, Store
from weft.store.memory import MemoryStore

PATIENCE = 60.0


def agent(name: str = "summarizer", spec: str = "{weight: 2}", metadata: str = "") -> str:
    head = f"apiVersion: weft.dev/v1alpha1\nkind: Agent\nmetadata: {{name: {name}{metadata}}}\n"
    return f"{head}spec: {spec}\n---\n"


def route(name: str, destination: str, to: str) -> str:
    return (
        f"apiVersion: weft.dev/v1alpha1\nkind: Route\nmetadata: {{name: {name}}}\nspec:\n"
        f"  destination: {{type: {destination}}}\n  rules: [{{split: [{{type: {to}, weight: 1}}]}}]\n---\n"
    )


def parsed(*manifests: str) -> list[Document]:
    return parse_documents("".join(manifests), "m.yaml")


def outcomes(applied: list[Applied]) -> list[str]:
    return [each.outcome.value for each in applied]


@pytest.fixture
async def resources(store: Store) -> Resources:
    return await Resources.open(store)


async def test_applying_creates_then_configures_then_changes_nothing(resources: Resources) -> None:
    first = await resources.apply(parsed(agent(), agent("critic")))
    second = await resources.apply(parsed(agent(spec="{weight: 3}"), agent("critic")))
    third = await resources.apply(parsed(agent(spec="{weight: 3}")))
    assert [outcomes(each) for each in (first, second, third)] == [
        ["created", "created"],
        ["configured", "unchanged"],
        ["unchanged"],
    ]
    assert [each.metadata.name for each in await resources.list("Agent")] == ["critic", "summarizer"]


async def test_where_else_a_resource_is_declared_stays_when_others_apply_theirs(resources: Resources) -> None:
    marked = agent(metadata=', annotations: {"weft.dev/declared-in": one/crew, why: because}')
    await resources.apply(parsed(marked))
    assert await resources.diff(parsed(agent(metadata=", annotations: {why: because}"))) == []
    [applied] = await resources.apply(parsed(agent(spec="{weight: 3}")))
    assert applied.resource.metadata.annotations == {"weft.dev/declared-in": "one/crew"}
    [moved] = await resources.apply(
        parsed(agent(metadata=', annotations: {"weft.dev/declared-in": two/crew}'))
    )
    assert moved.resource.metadata.annotations == {"weft.dev/declared-in": "two/crew"}


async def test_null_is_kept_where_it_says_something(resources: Resources) -> None:
    topic = "apiVersion: weft.dev/v1alpha1\nkind: Topic\nmetadata: {name: news}\nspec: "
    await resources.apply(parsed(f"{topic}{{deadLetter: null}}"))
    found = await resources.get("Topic", "news")
    assert found.spec.dead_letter is None
    assert found.document()["spec"] == {"deadLetter": None}
    assert outcomes(await resources.apply(parsed(f"{topic}{{deadLetter: null}}"))) == ["unchanged"]
    assert outcomes(await resources.apply(parsed(f"{topic}{{}}"))) == ["configured"]
    assert (await resources.get("Topic", "news")).document()["spec"] == {}


async def test_a_mesh_is_the_same_for_as_long_as_its_store_is(store: Store) -> None:
    first, second = await Resources.open(store), await Resources.open(store)
    uids = await asyncio.gather(*(each.uid.get() for each in (first, second) * 4))
    assert len(set(uids)) == 1
    assert uids[0] != await (await Resources.open(MemoryStore())).uid.get()


async def test_the_generation_grows_with_the_spec_only(resources: Resources) -> None:
    [created] = await resources.apply(parsed(agent()))
    [labelled] = await resources.apply(parsed(agent(metadata=", labels: {team: a}")))
    [changed] = await resources.apply(parsed(agent(spec="{weight: 9}", metadata=", labels: {team: a}")))
    metadata = [each.resource.metadata for each in (created, labelled, changed)]
    assert [each.generation for each in metadata] == [1, 1, 2]
    assert len({each.creation_timestamp for each in metadata}) == 1
    assert metadata[0].creation_timestamp is not None
    versions = [int(each.resource_version or 0) for each in metadata]
    assert versions == sorted(set(versions))
    assert await resources.get("Agent", "summarizer") == changed.resource


def topic(spec: str) -> str:
    return f"apiVersion: weft.dev/v1alpha1\nkind: Topic\nmetadata: {{name: orders}}\nspec: {spec}\n---\n"


async def test_the_partitions_of_a_topic_stay_until_it_is_deleted(resources: Resources) -> None:
    await resources.apply(parsed(topic("{partitions: 4}")))
    for refused in (topic("{}"), topic("{partitions: 8}")):
        with pytest.raises(InvalidResource, match="4 for good"):
            await resources.apply(parsed(agent(), refused))
        with pytest.raises(InvalidResource, match="4 for good"):
            await resources.diff(parsed(refused))
    assert await resources.list("Agent") == []
    await resources.apply(parsed(topic("{partitions: 4, maxDeliveries: 2}")))
    await resources.delete("Topic", "orders")
    assert outcomes(await resources.apply(parsed(topic("{partitions: 8}")))) == ["created"]


async def test_a_default_that_is_written_out_is_a_change(resources: Resources) -> None:
    await resources.apply(parsed(agent(spec="{}")))
    assert outcomes(await resources.apply(parsed(agent(spec="{weight: 1}")))) == ["configured"]
    assert (await resources.get("Agent", "summarizer")).document()["spec"] == {"weight": 1}


async def test_what_the_mesh_sets_itself_is_not_taken_from_a_manifest(resources: Resources) -> None:
    [applied] = await resources.apply(
        parsed(agent(metadata=", generation: 77, creationTimestamp: '1999-01-01T00:00:00Z'"))
    )
    assert applied.resource.metadata.generation == 1
    assert applied.resource.metadata.creation_timestamp != "1999-01-01T00:00:00Z"


async def test_a_dry_run_says_what_would_happen_and_changes_nothing(resources: Resources) -> None:
    assert outcomes(await resources.apply(parsed(agent()), dry_run=True)) == ["created"]
    assert await resources.list("Agent") == []


async def test_nothing_is_written_if_anything_contradicts_what_is_stored(resources: Resources) -> None:
    await resources.apply(parsed(route("a", "alpha", "beta")))
    with pytest.raises(InvalidResource) as caught:
        await resources.apply(parsed(agent("fine"), route("b", "beta", "alpha")))
    [problem] = caught.value.problems
    assert (problem.file, problem.line, problem.field) == ("m.yaml", 11, "spec.rules")
    assert "beta → alpha → beta" in problem.message
    assert await resources.list("Agent") == []


async def test_a_resource_with_the_current_version_is_written_and_one_with_an_old_version_refused(
    resources: Resources,
) -> None:
    [created] = await resources.apply(parsed(agent()))
    version = f", resourceVersion: '{created.resource.metadata.resource_version}'"
    await resources.apply(parsed(agent(spec="{weight: 5}", metadata=version)))
    with pytest.raises(Conflict, match=r"Agent 'summarizer' is not at resourceVersion .*get it anew"):
        await resources.apply(parsed(agent("other"), agent(spec="{weight: 6}", metadata=version)))
    assert [each.metadata.name for each in await resources.list("Agent")] == ["summarizer"]
    assert (await resources.get("Agent", "summarizer")).spec.weight == 5


async def test_a_resource_version_of_what_was_deleted_is_refused(resources: Resources) -> None:
    with pytest.raises(Conflict, match="does not exist"):
        await resources.apply(parsed(agent(metadata=", resourceVersion: '4'")))


async def test_of_writers_that_contradict_each_other_one_wins(store: Store) -> None:
    replicas = [await Resources.open(store) for _ in range(6)]
    manifests = [parsed(route(f"r-{index}", "alpha", f"to-{index}")) for index in range(6)]
    results = await asyncio.gather(
        *(replica.apply(manifest) for replica, manifest in zip(replicas, manifests, strict=True)),
        return_exceptions=True,
    )
    refused = [each for each in results if isinstance(each, BaseException)]
    assert len(refused) == 5
    assert all(isinstance(each, InvalidResource) for each in refused), refused
    assert len(await replicas[0].list("Route")) == 1


async def test_writers_without_a_version_all_get_their_turn(store: Store) -> None:
    replicas = [await Resources.open(store) for _ in range(5)]
    writes = (
        replica.apply(parsed(agent(spec=f"{{weight: {index}}}")))
        for index, replica in enumerate(replicas, 10)
    )
    await asyncio.gather(*writes)
    assert (await replicas[0].get("Agent", "summarizer")).metadata.generation == 5


async def test_a_writer_that_was_killed_holds_up_the_others_for_one_turn_only(store: Store) -> None:
    resources = await Resources.open(store)
    abandoned = turn.Turn(await store.bucket(turn.BUCKET, _Text()))
    context = abandoned.taken()
    await context.__aenter__()
    started = asyncio.get_running_loop().time()
    async with asyncio.timeout(PATIENCE):
        assert outcomes(await resources.apply(parsed(agent()))) == ["created"]
    assert asyncio.get_running_loop().time() - started > turn.TURN_TTL / 2


class _Text:
    def encode(self, value: str) -> bytes:
        return value.encode()

    def decode(self, data: bytes) -> str:
        return data.decode()


async def test_a_write_that_fails_midway_says_what_was_written_and_is_completed_by_repeating(
    store: Store,
) -> None:
    resources = await Resources.open(store)
    failing = Resources(_FailsAfter(resources.bucket, 1), await turn.Turn.open(store), resources.uid)
    manifest = parsed(agent("a"), agent("b"), agent("c"))
    with pytest.raises(Unavailable) as caught:
        await failing.apply(manifest)
    assert caught.value.detail == str(caught.value)
    assert (
        "written: Agent 'a'; uncertain: Agent 'b'; not written: Agent 'c'; applying again completes it"
        in caught.value.detail
    )
    assert outcomes(await resources.apply(manifest)) == ["unchanged", "created", "created"]


class _FailsAfter:
    """A bucket whose server is lost after so many creations."""

    def __init__(self, bucket: Bucket[AnyResource], creations: int) -> None:
        self._bucket = bucket
        self._left = creations
        self.get, self.put, self.update = bucket.get, bucket.put, bucket.update
        self.delete, self.entries, self.watch = bucket.delete, bucket.entries, bucket.watch
        self.recent = bucket.recent

    async def create(self, key: str, value: AnyResource, *, ttl: float | None = None) -> int:
        if not self._left:
            raise Unavailable("the store is gone")
        self._left -= 1
        return await self._bucket.create(key, value, ttl=ttl)


async def test_what_is_deleted_is_gone_and_cannot_be_deleted_again(resources: Resources) -> None:
    await resources.apply(parsed(agent()))
    await resources.delete("Agent", "summarizer")
    with pytest.raises(NotFound, match="no Agent 'summarizer'"):
        await resources.get("Agent", "summarizer")
    with pytest.raises(NotFound):
        await resources.delete("Agent", "summarizer")


async def test_deleting_at_an_old_version_is_refused(resources: Resources) -> None:
    [old] = await resources.apply(parsed(agent()))
    [new] = await resources.apply(parsed(agent(spec="{weight: 7}")))
    with pytest.raises(Conflict):
        await resources.delete("Agent", "summarizer", resource_version=old.resource.metadata.resource_version)
    await resources.delete("Agent", "summarizer", resource_version=new.resource.metadata.resource_version)
    assert await resources.list("Agent") == []


async def test_a_difference_shows_yaml_before_and_after_and_leaves_out_what_stays(
    resources: Resources,
) -> None:
    await resources.apply(parsed(agent(), agent("same")))
    changed, new = await resources.diff(parsed(agent(spec="{weight: 4}"), agent("same"), agent("new")))
    assert (changed.kind, changed.name) == ("Agent", "summarizer")
    assert changed.before is not None
    assert "weight: 2" in changed.before
    assert "weight: 4" in changed.after
    assert "resourceVersion" not in changed.before + changed.after
    assert (new.name, new.before) == ("new", None)


async def test_a_view_follows_what_is_applied_and_deleted(resources: Resources) -> None:
    async with asyncio.timeout(PATIENCE), ResourceView.follow(resources) as view:
        assert view.resources == {}
        generation = view.generation
        [applied] = await resources.apply(parsed(agent()))
        generation = await view.changed_since(generation)
        assert view.resources == {"agent.summarizer": applied.resource}
        await resources.delete("Agent", "summarizer")
        await view.changed_since(generation)
        assert view.resources == {}


async def test_a_view_knows_from_the_start_what_is_there(resources: Resources) -> None:
    await resources.apply(parsed(agent(), agent("critic")))
    async with asyncio.timeout(PATIENCE), ResourceView.follow(resources) as view:
        assert sorted(view.resources) == ["agent.critic", "agent.summarizer"]


async def test_an_error_within_a_views_context_comes_out_as_it_is(resources: Resources) -> None:
    with pytest.raises(NotFound):
        async with ResourceView.follow(resources):
            await resources.get("Agent", "nobody")


async def test_garbage_in_the_store_does_not_hide_the_rest(store: Store, resources: Resources) -> None:
    await resources.apply(parsed(agent()))
    raw = await store.bucket("resources", _Text())
    for index, garbage in enumerate(['{"kind": "Gizmo"}', "[" * 5000, '{"kind": "Agent", "spec": 1}']):
        await raw.put(f"agent.garbage-{index}", garbage)
    assert [each.metadata.name for each in await resources.list("Agent")] == ["summarizer"]


def test_outcomes_are_the_words_that_the_api_promises() -> None:
    assert [each.value for each in Outcome] == ["created", "configured", "unchanged"]
