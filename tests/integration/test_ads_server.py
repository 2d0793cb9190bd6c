"""The ADS server, as gRPC clients find it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, Resource
from tests.xds import NODE, AdsMesh, OneSnapshot, bare, running, snapshot, stream

from weft.aio.ports import PortUnavailable
from weft.controlplane.xds.server import MAX_REQUEST_BYTES
from weft.controlplane.xds.snapshot import CLUSTER, ENDPOINTS, EncodedResource
from weft.model.node import Node


@pytest.fixture
async def mesh() -> AsyncIterator[AdsMesh]:
    async with running(AdsMesh()) as mesh:
        yield mesh


async def test_a_sidecar_gets_what_it_asks_for_and_then_what_changes(mesh: AdsMesh) -> None:
    async with stream(mesh) as client:
        await client.say(CLUSTER, NODE)
        first = await client.hear()
        assert [(each.name, each.version) for each in first.resources] == [("a", "1")]
        await client.ack(first)
        mesh.source.change(clusters=bare(a="2"))
        assert [(each.name, each.version) for each in (await client.hear()).resources] == [("a", "2")]


async def test_a_burst_of_changes_is_one_push(mesh: AdsMesh) -> None:
    async with stream(mesh) as client:
        await client.say(ENDPOINTS, NODE, resource_names_subscribe=["a"])
        await client.ack(await client.hear())
        await mesh.log.seen("synced")
        for version in range(2, 50):
            mesh.source.change(endpoints=bare(a=str(version)))
            await asyncio.sleep(0)
        last = await client.hear()
        assert [each.version for each in last.resources] == ["49"]
        await client.ack(last)
        assert await mesh.log.seen("synced", 2) == ("synced", NODE.key, str(mesh.source.generation))
        assert mesh.metric("weft_xds_pushes_total", type="eds") == 2


async def test_changes_that_do_not_end_are_pushed_all_the_same() -> None:
    async with running(AdsMesh(quiet=0.5, longest_delay=0.6)) as mesh, stream(mesh) as client:
        await client.say(ENDPOINTS, NODE, resource_names_subscribe=["a"])
        await client.ack(await client.hear())
        await mesh.log.seen("synced")
        noise = asyncio.create_task(change_without_end(mesh))
        assert [each.name for each in (await client.hear()).resources] == ["a"]
        assert not noise.done()
        noise.cancel()


async def change_without_end(mesh: AdsMesh) -> None:
    for version in range(1000):
        mesh.source.change(endpoints=bare(a=f"v{version}"))
        await asyncio.sleep(0.05)


async def test_a_rejection_is_told_counted_and_shown_until_it_is_replaced(mesh: AdsMesh) -> None:
    async with stream(mesh) as client:
        await client.say(CLUSTER, NODE)
        await client.ack(await client.hear())
        mesh.source.change(clusters=bare(a="2"))
        await client.nack(await client.hear(), "no such filter")
        assert await mesh.log.seen("rejected") == ("rejected", NODE.key, CLUSTER, "no such filter", "a")
        assert mesh.metric("weft_xds_nacks_total", type="cds") == 1
        [status] = mesh.server.statuses()
        assert not status.in_sync
        assert status.types[CLUSTER].generation == 1
        rejection = status.types[CLUSTER].rejection
        assert rejection is not None
        assert (rejection.names, rejection.reason) == (("a",), "no such filter")
        mesh.source.change(clusters=bare(a="3"))
        await client.ack(await client.hear())
        await mesh.log.seen("synced", 2)
        [status] = mesh.server.statuses()
        assert status.in_sync
        assert status.types[CLUSTER].rejection is None
        assert status.types[CLUSTER].generation == 3


async def test_the_time_from_change_to_ack_is_measured(mesh: AdsMesh) -> None:
    async with stream(mesh) as client:
        await client.say(CLUSTER, NODE)
        await client.ack(await client.hear())
        await mesh.log.seen("synced")
        assert mesh.metric("weft_xds_push_seconds_count") == 0
        mesh.source.change(clusters=bare(a="2"))
        await client.ack(await client.hear())
        await mesh.log.seen("synced", 2)
        assert mesh.metric("weft_xds_push_seconds_count") == 1
        assert 0.01 < mesh.metric("weft_xds_push_seconds_sum") < 60
        assert mesh.metric("weft_xds_convergence_seconds_count") == 1
        assert 0.01 < mesh.metric("weft_xds_convergence_seconds_sum") < 60
        mesh.source.change(endpoints=bare(a="9"))
        await mesh.log.seen("synced", 3)
        assert mesh.metric("weft_xds_push_seconds_count") == 1


async def test_it_is_settled_while_everybody_has_the_newest_or_refuses_it(mesh: AdsMesh) -> None:
    assert mesh.server.settled
    async with stream(mesh) as client:
        await client.say(CLUSTER, NODE)
        first = await client.hear()
        assert not mesh.server.settled
        await client.ack(first)
        await mesh.log.seen("synced")
        assert mesh.server.settled
        mesh.source.change(clusters=bare(a="2"))
        assert not mesh.server.settled
        second = await client.hear()
        assert not mesh.server.settled
        await client.ack(second)
        await mesh.log.seen("synced", 2)
        assert mesh.server.settled
        mesh.source.change(clusters=bare(a="3"))
        await client.nack(await client.hear(), "no such filter")
        await mesh.log.seen("rejected")
        assert mesh.server.settled
    await mesh.log.seen("disconnected")
    assert mesh.server.settled


async def test_comings_and_goings_are_told(mesh: AdsMesh) -> None:
    async with stream(mesh) as client:
        await client.say(CLUSTER, NODE)
        await mesh.log.seen("connected")
        assert mesh.metric("weft_xds_streams") == 1
        assert [each.node for each in mesh.server.statuses()] == [NODE]
    await mesh.log.seen("disconnected")
    assert mesh.metric("weft_xds_streams") == 0
    assert mesh.server.statuses() == []


async def test_a_client_that_is_no_sidecar_is_told_so(mesh: AdsMesh) -> None:
    async with stream(mesh) as client:
        await client.say(CLUSTER)
        code, details = await client.end()
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "not a Weft sidecar" in details
    assert mesh.log.events == []


BAD_REQUESTS: dict[str, tuple[bytes, grpc.StatusCode]] = {
    "garbage": (b"\xff\xff\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
    "unknown type": (
        DeltaDiscoveryRequest(type_url="type.googleapis.com/x.Y").SerializeToString(),
        grpc.StatusCode.INVALID_ARGUMENT,
    ),
    "too many names": (
        DeltaDiscoveryRequest(
            type_url=ENDPOINTS, resource_names_subscribe=map(str, range(20_001))
        ).SerializeToString(),
        grpc.StatusCode.INVALID_ARGUMENT,
    ),
    "too large": (b"\0" * (MAX_REQUEST_BYTES + 1), grpc.StatusCode.RESOURCE_EXHAUSTED),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
async def test_a_bad_request_ends_its_own_stream_and_no_other(mesh: AdsMesh, name: str) -> None:
    data, expected = BAD_REQUESTS[name]
    async with stream(mesh) as good, stream(mesh) as bad:
        for client in (good, bad):
            await client.say(CLUSTER, NODE)
            await client.ack(await client.hear())
        await mesh.log.seen("synced", 2)
        await bad.call.write(data)
        code, _ = await bad.end()
        assert code is expected
        await mesh.log.seen("disconnected")
        mesh.source.change(clusters=bare(a="2"))
        assert [each.version for each in (await good.hear()).resources] == ["2"]


async def test_a_sidecar_for_which_there_is_no_snapshot_harms_no_other() -> None:
    class Broken(OneSnapshot):
        def snapshot(self, node: Node) -> Any:
            if node.id == "broken":
                raise RuntimeError("cannot be translated")
            return super().snapshot(node)

    mesh = AdsMesh(Broken(snapshot(clusters=bare(a="1"))))
    async with running(mesh), stream(mesh) as good, stream(mesh) as bad:
        await bad.say(CLUSTER, Node("broken", NODE.outbound))
        await bad.end()
        await good.say(CLUSTER, NODE)
        assert [each.name for each in (await good.hear()).resources] == ["a"]


async def test_a_stream_that_does_not_say_who_it_is_ends() -> None:
    async with running(AdsMesh(client_timeout=0.05)) as mesh, stream(mesh) as client:
        code, _ = await client.end()
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_sidecar_that_does_not_read_is_let_go() -> None:
    large = EncodedResource("a", "1", Resource(name="a", version="1" * 50_000_000).SerializeToString())
    mesh = AdsMesh(OneSnapshot(snapshot(clusters={"a": large})), client_timeout=0.2)
    async with running(mesh), stream(mesh) as client:
        await client.say(CLUSTER, NODE)
        await mesh.log.seen("connected")
        await mesh.log.seen("disconnected")


async def test_stopping_ends_streams_so_that_sidecars_try_another_server() -> None:
    mesh = AdsMesh()
    async with running(mesh) as mesh, stream(mesh) as client:
        await client.say(CLUSTER, NODE)
        await client.hear()
        ending = asyncio.create_task(client.end())
        await mesh.server.__aexit__()
        assert await ending == (grpc.StatusCode.UNAVAILABLE, "this control plane is stopping")
    assert mesh.log.count("disconnected") == 1


async def test_a_port_in_use_is_named() -> None:
    async with running(AdsMesh()) as first:
        second = AdsMesh(port=first.server.port)
        with pytest.raises(PortUnavailable, match=rf"127\.0\.0\.1:{first.server.port}.*choose another"):
            await second.server.__aenter__()


async def test_a_server_can_be_started_again_at_its_port() -> None:
    mesh = AdsMesh()
    async with running(mesh), stream(mesh) as client:
        await client.say(CLUSTER, NODE)
        await client.hear()
    async with running(AdsMesh(port=mesh.server.port)) as again, stream(again) as client:
        await client.say(CLUSTER, NODE)
        await client.hear()
