"""What goes over the wire is what the official protos say."""

from __future__ import annotations

import dataclasses

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from tests.xds import NODE

from weft.controlplane.xds.delta import Request, Response
from weft.controlplane.xds.snapshot import CLUSTER, encode
from weft.controlplane.xds.wire import MAX_REASON_LENGTH, node_of, parse_request, request_of, serialise
from weft.errors import InvalidRequest
from weft.model.node import Node


@pytest.mark.parametrize("size", [0, 100, 127, 128, 20_000, 3_000_000])
def test_a_response_parses_as_the_official_message(size: int) -> None:
    clusters = [Cluster(name=name, alt_stat_name="x" * size) for name in ("a", "b")]
    resources = tuple(encode(cluster.name, cluster) for cluster in clusters)
    parsed = DeltaDiscoveryResponse.FromString(serialise(Response(CLUSTER, "7", resources, ("c", "d")), 42))
    assert (parsed.type_url, parsed.nonce, parsed.system_version_info) == (CLUSTER, "7", "42")
    assert list(parsed.removed_resources) == ["c", "d"]
    assert [(each.name, each.version) for each in parsed.resources] == [
        (each.name, each.version) for each in resources
    ]
    for resource, cluster in zip(parsed.resources, clusters, strict=True):
        unpacked = Cluster()
        assert resource.resource.Unpack(unpacked)
        assert unpacked == cluster


def test_a_response_without_resources_parses_too() -> None:
    parsed = DeltaDiscoveryResponse.FromString(serialise(Response(CLUSTER, "1"), 1))
    assert (parsed.type_url, len(parsed.resources)) == (CLUSTER, 0)


def test_a_request_is_read_in_full() -> None:
    message = DeltaDiscoveryRequest(
        type_url=CLUSTER,
        resource_names_subscribe=["a", "*"],
        resource_names_unsubscribe=["b"],
        initial_resource_versions={"a": "1"},
        response_nonce="7",
    )
    message.error_detail.message = "no" * MAX_REASON_LENGTH
    assert request_of(message) == Request(
        CLUSTER, ("a", "*"), ("b",), {"a": "1"}, "7", ("no" * MAX_REASON_LENGTH)[:MAX_REASON_LENGTH]
    )


def test_an_error_without_a_message_is_an_error_all_the_same() -> None:
    message = DeltaDiscoveryRequest(type_url=CLUSTER, response_nonce="7")
    message.error_detail.code = 3
    assert request_of(message).error == ""
    assert request_of(DeltaDiscoveryRequest(type_url=CLUSTER, response_nonce="7")).error is None


def test_a_sidecar_is_known_by_its_metadata() -> None:
    assert node_of(introduction(NODE)) == NODE


@pytest.mark.parametrize("metadata", [None, {}, {"weft": "text"}, {"weft": {}}, {"weft": {"id": 7}}])
def test_a_node_that_is_no_sidecar_is_refused(metadata: dict[str, object] | None) -> None:
    message = DeltaDiscoveryRequest()
    message.node.id = "stranger"
    if metadata is not None:
        message.node.metadata.update(metadata)
    with pytest.raises(InvalidRequest, match="Weft sidecar"):
        node_of(message)


def test_a_node_whose_id_is_not_the_one_it_describes_is_refused() -> None:
    message = introduction(NODE)
    message.node.id = dataclasses.replace(NODE, id="other").key
    with pytest.raises(InvalidRequest, match=r"caller\.other.*caller\.c-1"):
        node_of(message)


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b"\x0a\x7f", b"GET / HTTP/1.1"])
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(InvalidRequest, match="not a DeltaDiscoveryRequest"):
        parse_request(garbage)


def introduction(node: Node) -> DeltaDiscoveryRequest:
    """The first request of `node`."""
    message = DeltaDiscoveryRequest(type_url=CLUSTER)
    message.node.id = node.key
    message.node.metadata.update({"weft": node.metadata()})
    return message
