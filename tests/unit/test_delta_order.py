"""Make before break, over the types of one aggregated stream."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.xds import bare, snapshot

from weft.controlplane.xds.aggregated import AggregatedStream
from weft.controlplane.xds.delta import Request, Response
from weft.controlplane.xds.snapshot import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, Snapshot
from weft.errors import InvalidRequest

SHORT = {CLUSTER: "cds", ENDPOINTS: "eds", LISTENER: "lds", ROUTES: "rds", SECRET: "sds"}

OLD = snapshot(
    clusters=bare(old="1"), endpoints=bare(old="1"), listeners=bare(door="1"), routes=bare(all="old")
)
NEW = snapshot(
    clusters=bare(new="1"), endpoints=bare(new="1"), listeners=bare(door="2"), routes=bare(all="new")
)


def subscribed(served: Snapshot) -> AggregatedStream:
    """The stream of a client that asked for all of `served` and has accepted it."""
    stream = AggregatedStream()
    stream.receive(Request(CLUSTER))
    stream.receive(Request(ENDPOINTS, tuple(served.endpoints)))
    stream.receive(Request(LISTENER))
    stream.receive(Request(ROUTES, tuple(served.routes)))
    while responses := stream.responses(served):
        for response in responses:
            ack(stream, response)
    assert stream.in_sync(served)
    return stream


def ack(stream: AggregatedStream, response: Response) -> None:
    stream.receive(Request(response.type_url, nonce=response.nonce))


def nack(stream: AggregatedStream, response: Response) -> None:
    stream.receive(Request(response.type_url, nonce=response.nonce, error="no"))


def outline(responses: list[Response]) -> list[str]:
    """What is sent, shortly: `cds +new -old`."""
    return [
        " ".join(
            [SHORT[response.type_url]]
            + [f"+{each.name}" for each in response.resources]
            + [f"-{name}" for name in response.removed]
        )
        for response in responses
    ]


def test_clusters_endpoints_listeners_and_routes_follow_each_other_and_removals_come_last() -> None:
    stream = subscribed(OLD)
    clusters = stream.responses(NEW)
    assert outline(clusters) == ["cds +new"]
    stream.receive(Request(ENDPOINTS, ("new",)))
    endpoints = stream.responses(NEW)
    assert outline(endpoints) == ["eds +new"]
    ack(stream, endpoints[0])
    assert stream.responses(NEW) == []
    ack(stream, clusters[0])
    listeners = stream.responses(NEW)
    assert outline(listeners) == ["lds +door"]
    ack(stream, listeners[0])
    routes = stream.responses(NEW)
    assert outline(routes) == ["rds +all"]
    ack(stream, routes[0])
    assert outline(stream.responses(NEW)) == ["cds -old", "eds -old"]


def test_secrets_come_with_the_clusters_that_wait_for_them_and_go_after_the_routes_that_led_there() -> None:
    with_secret = replace(NEW, secrets=bare(key="1"))
    stream = subscribed(OLD)
    [clusters] = stream.responses(with_secret)
    stream.receive(Request(ENDPOINTS, ("new",)))
    stream.receive(Request(SECRET, ("key",)))
    needed = stream.responses(with_secret)
    assert outline(needed) == ["eds +new", "sds +key"]
    ack(stream, needed[0])
    ack(stream, needed[1])
    assert stream.responses(with_secret) == []
    ack(stream, clusters)
    while responses := stream.responses(with_secret):
        for response in responses:
            ack(stream, response)
    without = replace(with_secret, routes=bare(all="newer"), secrets=bare())
    [routes] = stream.responses(without)
    assert outline([routes]) == ["rds +all"]
    ack(stream, routes)
    assert outline(stream.responses(without)) == ["sds -key"]


def test_endpoints_do_not_wait_for_the_ack_of_clusters_which_envoy_holds_back_until_it_has_them() -> None:
    stream = subscribed(OLD)
    stream.responses(NEW)
    stream.receive(Request(ENDPOINTS, ("new",)))
    assert outline(stream.responses(NEW)) == ["eds +new"]


def test_the_endpoints_of_a_changed_cluster_are_sent_again_since_envoy_waits_for_them() -> None:
    stream = subscribed(OLD)
    changed = Snapshot(bare(old="2"), OLD.endpoints, OLD.listeners, OLD.routes)
    assert outline(stream.responses(changed)) == ["cds +old", "eds +old"]


def test_a_client_that_comes_back_gets_the_endpoints_of_changed_clusters_again() -> None:
    changed = snapshot(clusters=bare(old="2"), endpoints=OLD.endpoints)
    stream = AggregatedStream()
    stream.receive(Request(CLUSTER, initial_versions={"old": "1"}))
    assert outline(stream.responses(changed)) == ["cds +old"]
    stream.receive(Request(ENDPOINTS, ("old",), initial_versions={"old": "1"}))
    assert outline(stream.responses(changed)) == ["eds +old"]


def test_a_change_of_endpoints_alone_sends_endpoints_alone() -> None:
    stream = subscribed(OLD)
    changed = Snapshot(OLD.clusters, bare(old="2"), OLD.listeners, OLD.routes)
    assert outline(stream.responses(changed)) == ["eds +old"]


def test_endpoints_without_resource_are_answered() -> None:
    stream = AggregatedStream()
    stream.receive(Request(CLUSTER))
    stream.receive(Request(ENDPOINTS, ("ghost",)))
    assert outline(stream.responses(snapshot(clusters=bare(ghost="1")))) == ["cds +ghost", "eds -ghost"]


def test_routes_go_ahead_when_clusters_are_rejected() -> None:
    stream = subscribed(OLD)
    nack(stream, stream.responses(NEW)[0])
    assert outline(stream.responses(NEW)) == ["lds +door"]


@pytest.mark.parametrize("refused", [LISTENER, ROUTES])
def test_clusters_stay_while_routes_or_listeners_that_do_without_them_are_rejected(refused: str) -> None:
    stream = subscribed(OLD)
    while responses := stream.responses(NEW):
        for response in responses:
            assert not response.removed
            (nack if response.type_url == refused else ack)(stream, response)
    assert not stream.in_sync(NEW)


def test_clusters_are_removed_at_once_where_no_route_changes() -> None:
    stream = subscribed(OLD)
    fewer = Snapshot({}, OLD.endpoints, OLD.listeners, OLD.routes)
    assert outline(stream.responses(fewer)) == ["cds -old"]


def test_a_client_that_comes_back_keeps_its_clusters_until_it_has_told_of_its_routes() -> None:
    stream = AggregatedStream()
    stream.receive(Request(CLUSTER, initial_versions={"old": "1", "new": "1"}))
    assert stream.responses(NEW) == []
    stream.receive(Request(LISTENER, initial_versions={"door": "2"}))
    assert stream.responses(NEW) == []
    stream.receive(Request(ROUTES, ("all",), initial_versions={"all": "old"}))
    routes = stream.responses(NEW)
    assert outline(routes) == ["rds +all"]
    ack(stream, routes[0])
    assert outline(stream.responses(NEW)) == ["cds -old"]


def test_a_client_without_routes_is_told_of_removed_clusters() -> None:
    stream = AggregatedStream()
    stream.receive(Request(CLUSTER))
    ack(stream, stream.responses(OLD)[0])
    fewer = Snapshot({}, {}, OLD.listeners, OLD.routes)
    assert outline(stream.responses(fewer)) == ["cds -old"]


def test_every_response_has_a_nonce_of_its_own() -> None:
    stream = AggregatedStream()
    for type_url in SHORT:
        stream.receive(Request(type_url, ("*",)))
    nonces = []
    while responses := stream.responses(OLD):
        for response in responses:
            nonces.append(response.nonce)
            ack(stream, response)
    assert len(set(nonces)) == len(nonces) == len(SHORT)


def test_a_type_that_is_not_served_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="are not served"):
        AggregatedStream().receive(Request("type.googleapis.com/envoy.Something"))
