"""What sidecars are to know follows what is declared and running, and nothing more moves than must."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.service.discovery.v3.discovery_pb2 import Resource
from tests.clock import Clock

from weft.controlplane.sealing import Sealer
from weft.controlplane.secrets import Secrets
from weft.controlplane.snapshots import DESTINATION_RETENTION, MAX_RETAINED, Snapshots
from weft.controlplane.xds.snapshot import Snapshot
from weft.model.agent import Instance, Locality, Status
from weft.model.manifest import parse_documents, parse_manifest
from weft.model.node import Address, Inbound, Node
from weft.model.resource import AnyResource

API = Address("127.0.0.1", 7400)
DOOR = Node("door", outbound=Address("127.0.0.1", 20001))
ONE = Instance("s-1", "summarizer", "127.0.0.1:9001", Status.HEALTHY, frozenset({"summarize"}), "1")
TWO = Instance("s-2", "summarizer", "127.0.0.1:9002", Status.HEALTHY, frozenset({"summarize"}), "2")

SPLIT = """
apiVersion: weft.dev/v1alpha1
kind: Route
metadata: {name: summarizer}
spec:
  destination: {type: summarizer}
  rules:
  - split: [{version: "1", weight: 90}, {version: "2", weight: 10}]
"""


def snapshots(*instances: Instance, resources: list[AnyResource] | None = None) -> Snapshots:
    result = Snapshots([API])
    result.update(instances, resources or [])
    return result


def addresses(snapshot: Snapshot, cluster: str) -> dict[int, list[int]]:
    """The ports of a cluster's endpoints, by their priority."""
    assignment = ClusterLoadAssignment()
    Resource.FromString(snapshot.endpoints[cluster].wire).resource.Unpack(assignment)
    found: dict[int, list[int]] = {}
    for group in assignment.endpoints:
        ports = [each.endpoint.address.socket_address.port_value for each in group.lb_endpoints]
        found.setdefault(group.priority, []).extend(ports)
    return found


def test_a_change_of_instances_changes_endpoints_only() -> None:
    source = snapshots(ONE)
    before = source.snapshot(DOOR)
    source.update([ONE, TWO], [])
    after = source.snapshot(DOOR)
    assert after.clusters is before.clusters
    assert after.routes is before.routes
    assert after.listeners is before.listeners
    assert addresses(before, "type/summarizer") == {0: [9001]}
    assert addresses(after, "type/summarizer") == {0: [9001, 9002]}
    assert addresses(after, "capability/summarize") == {0: [9001, 9002]}


AFFINITY = """
apiVersion: weft.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: sticky}
spec: {target: {type: summarizer}, loadBalancing: {contextAffinity: true}}
"""


def test_where_conversations_keep_to_instances_there_are_clusters_for_them_and_nowhere_else() -> None:
    plain = snapshots(ONE, TWO).snapshot(DOOR)
    assert not [each for each in plain.clusters if each.startswith("context/")]
    resources = parse_manifest(f"{AFFINITY}---{SPLIT}")
    source = snapshots(ONE, TWO, resources=resources)
    before = source.snapshot(DOOR)
    added = {f"context/type/summarizer{version}" for version in ("", "/1", "/2")}
    assert {each for each in before.clusters if each.startswith("context/")} == added
    assert {each for each in before.endpoints if each.startswith("context/")} == added
    assert sorted(addresses(before, "context/type/summarizer")[0]) == [9001, 9002]
    assert addresses(before, "context/type/summarizer/2") == {0: [9002]}
    assert before.clusters["type/summarizer"] == plain.clusters["type/summarizer"]
    source.update([ONE], resources)
    after = source.snapshot(DOOR)
    assert (after.clusters, after.routes) == (before.clusters, before.routes)
    assert addresses(after, "context/type/summarizer") == {0: [9001]}
    source.update([ONE], parse_manifest(SPLIT))
    assert not [each for each in source.snapshot(DOOR).clusters if each.startswith("context/")]
    assert not [each for each in source.snapshot(DOOR).endpoints if each.startswith("context/")]


def test_endpoints_of_other_destinations_are_not_encoded_again() -> None:
    other = Instance("t-1", "translator", "127.0.0.1:9003", Status.HEALTHY)
    source = snapshots(ONE, other)
    before = source.snapshot(DOOR).endpoints["type/translator"]
    source.update([ONE, TWO, other], [])
    assert source.snapshot(DOOR).endpoints["type/translator"] is before


def test_load_alone_changes_nothing() -> None:
    source = snapshots(ONE)
    generation = source.generation
    source.update([replace(ONE, in_flight=7, reason="busy")], [])
    assert source.generation == generation


async def test_waiters_hear_of_a_change() -> None:
    source = snapshots(ONE)
    waiting = asyncio.create_task(source.changed_since(source.generation))
    await asyncio.sleep(0)
    source.update([TWO], [])
    async with asyncio.timeout(30):
        assert await waiting == source.generation


def test_only_healthy_instances_get_calls() -> None:
    for status in (Status.STARTING, Status.UNHEALTHY, Status.DRAINING):
        source = snapshots(ONE, replace(TWO, status=status))
        assert addresses(source.snapshot(DOOR), "type/summarizer") == {0: [9001]}


def test_an_instance_whose_identity_is_revoked_gets_no_calls() -> None:
    known = snapshots(ONE, TWO)
    known.update([ONE, TWO], [], revoked={"spiffe://weft.local/agent/summarizer/s-1"})
    assert addresses(known.snapshot(DOOR), "type/summarizer") == {0: [9002]}
    known.update([ONE, TWO], [])
    assert sorted(addresses(known.snapshot(DOOR), "type/summarizer")[0]) == [9001, 9002]


def test_an_agent_that_names_new_capabilities_all_the_time_does_not_fill_every_envoy() -> None:
    clock = Clock(1000.0)
    source = Snapshots([API], clock=clock)
    for turn in range(10):
        names = frozenset(f"c-{turn}-{number}" for number in range(100))
        source.update([ONE, replace(TWO, capabilities=names)], [])
        clock.now += 1
    clusters = source.snapshot(DOOR).clusters
    assert {"type/summarizer", "capability/summarize", "capability/c-9-0", "capability/c-8-0"} <= set(
        clusters
    )
    assert "capability/c-0-0" not in clusters
    assert len(clusters) < 100 + MAX_RETAINED + 10


def test_a_destination_stays_known_for_a_while_after_its_last_instance() -> None:
    clock = Clock(1000.0)
    source = Snapshots([API], clock=clock)
    source.update([ONE], [])
    clock.now += DESTINATION_RETENTION - 1
    source.update([], [])
    assert addresses(source.snapshot(DOOR), "type/summarizer") == {}
    clock.now += 2
    source.update([], [])
    assert "type/summarizer" not in source.snapshot(DOOR).clusters
    assert "type/summarizer" not in source.snapshot(DOOR).endpoints


def test_versions_that_a_route_names_have_clusters_of_their_own() -> None:
    source = snapshots(ONE, TWO, resources=list(parse_manifest(SPLIT)))
    snapshot = source.snapshot(DOOR)
    assert addresses(snapshot, "type/summarizer/1") == {0: [9001]}
    assert addresses(snapshot, "type/summarizer/2") == {0: [9002]}
    assert addresses(snapshot, "type/summarizer") == {0: [9001, 9002]}


def test_every_cluster_by_eds_has_endpoints_even_if_none() -> None:
    source = snapshots(resources=list(parse_manifest(SPLIT)))
    snapshot = source.snapshot(DOOR)
    fixed = {"control", "forward", "scheduler"}
    assert set(snapshot.clusters) - fixed == set(snapshot.endpoints)


def test_callers_prefer_their_zone_then_their_region_then_any() -> None:
    near = replace(ONE, locality=Locality("eu", "a"))
    region = replace(TWO, locality=Locality("eu", "b"))
    far = Instance("s-3", "summarizer", "127.0.0.1:9003", Status.HEALTHY, locality=Locality("us", "c"))
    source = snapshots(near, region, far)

    def seen_from(locality: Locality) -> dict[int, list[int]]:
        return addresses(source.snapshot(replace(DOOR, locality=locality)), "type/summarizer")

    assert seen_from(Locality("eu", "a")) == {0: [9001], 1: [9002], 2: [9003]}
    assert seen_from(Locality("us", "x")) == {0: [9003], 1: [9001, 9002]}
    assert seen_from(Locality()) == {0: [9001, 9002, 9003]}


def test_priorities_have_no_gaps() -> None:
    far = replace(ONE, locality=Locality("us", "c"))
    near = replace(TWO, locality=Locality("eu", "a"))
    source = snapshots(far, near)
    caller = replace(DOOR, locality=Locality("eu", "a"))
    assert addresses(source.snapshot(caller), "type/summarizer") == {0: [9002], 1: [9001]}


def test_callers_of_one_locality_share_what_is_encoded() -> None:
    source = snapshots(ONE)
    one, other = source.snapshot(DOOR), source.snapshot(replace(DOOR, id="another"))
    assert one.endpoints is other.endpoints
    assert one.clusters is other.clusters


OUTSIDE = """
apiVersion: weft.dev/v1alpha1
kind: Secret
metadata: {name: key}
spec: {data: {key: VALUE}, inject: [{host: api.example.com, key: key, for: [writer, editor]}]}
---
apiVersion: weft.dev/v1alpha1
kind: Egress
metadata: {name: default}
spec: {mode: list}
"""


def test_callers_who_reach_the_same_outside_share_it_and_a_new_value_is_all_that_moves() -> None:
    seal = Secrets(Sealer([bytes(32)]))

    def declared(value: str) -> list[AnyResource]:
        return [seal(each, None) for each in parse_documents(OUTSIDE.replace("VALUE", value))]

    source = Snapshots([API], secret_value=seal.value)
    source.update([ONE], declared("first"))
    writer, editor, reader = (source.snapshot(agent_of(each)) for each in ("writer", "editor", "reader"))
    door = source.snapshot(DOOR)
    assert writer.secrets is editor.secrets
    assert writer.routes["outbound"] is editor.routes["outbound"]
    assert reader.routes["outbound"] is door.routes["outbound"]
    assert reader.routes["outbound"] is not writer.routes["outbound"]
    assert set(writer.clusters) - set(reader.clusters) == {"outside/api.example.com"} == set(writer.secrets)
    assert not reader.secrets
    generation = source.generation
    source.update([ONE], declared("second"))
    assert source.generation > generation
    rotated = source.snapshot(agent_of("writer"))
    assert rotated.routes is writer.routes
    assert rotated.clusters is writer.clusters
    [before], [after] = writer.secrets.values(), rotated.secrets.values()
    assert before.version != after.version


def agent_of(agent_type: str) -> Node:
    return replace(DOOR, inbound=Inbound(agent_type, Address("127.0.0.1", 1), Address("127.0.0.1", 2)))
