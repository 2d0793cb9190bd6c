"""What Telemetry resources come to in Envoy's configuration, and what of it a change touches."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.service.discovery.v3.discovery_pb2 import Resource

from weft.controlplane.snapshots import Snapshots
from weft.model.agent import Instance, Status
from weft.model.manifest import parse_manifest
from weft.model.node import Address, Inbound, Node

HOST = "127.0.0.1"
ECHO = Instance("e-1", "echo", f"{HOST}:9001", Status.HEALTHY, frozenset({"say"}), "1")
BESIDE_ECHO = Node("e-1", Address(HOST, 1), Inbound("echo", Address(HOST, 2), Address(HOST, 3)))
FRONT = Inbound("front", Address(HOST, 5), Address(HOST, 6))
BESIDE_FRONT = Node("f-1", Address(HOST, 4), FRONT, outside=Address(HOST, 7))


def telemetry(spec: str, name: str = "default") -> str:
    return (
        f"apiVersion: weft.dev/v1alpha1\nkind: Telemetry\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n"
    )


GATEWAY = "apiVersion: weft.dev/v1alpha1\nkind: Gateway\nmetadata: {name: front}\nspec: {port: 8080}\n---\n"
ROUTE = """
apiVersion: weft.dev/v1alpha1
kind: Route
metadata: {name: echo}
spec:
  destination: {type: echo}
  rules:
  - {name: own, match: [{path: {prefix: /own}}], tracing: {samplingPercent: 7}}
  - {name: usual, match: [{path: {prefix: /usual}}]}
---
"""


def snapshots(*documents: str) -> Snapshots:
    result = Snapshots([Address(HOST, 7400)])
    result.update([ECHO], parse_manifest("".join(documents)) if documents else [])
    return result


def shares(source: Snapshots, host: str) -> dict[str, float | None]:
    """By the names of a virtual host's routes: the percent that they sample, None where they do not say."""
    routes = RouteConfiguration()
    Resource.FromString(source.snapshot(BESIDE_ECHO).routes["outbound"].wire).resource.Unpack(routes)
    [found] = [each for each in routes.virtual_hosts if each.name == host]
    return {each.name: _share(each) for each in found.routes}


def _share(route: Any) -> float | None:
    tracing = route.tracing
    if not route.HasField("tracing"):
        return None
    if tracing.HasField("overall_sampling") and not tracing.overall_sampling.numerator:
        return 0.0
    return float(tracing.random_sampling.numerator) / 100


def test_where_nothing_is_declared_the_callers_sidecar_says_how_many_are_traced() -> None:
    found = shares(snapshots(), "type/echo")
    assert found["default"] is None
    assert shares(snapshots(), "control") == {"tree": 0.0, "control": 0.0, "tunnel": 0.0}


def test_a_rule_counts_before_its_destination_and_that_before_the_mesh() -> None:
    own = telemetry("target: {type: echo}, tracing: {samplingPercent: 25}", "echo")
    source = snapshots(telemetry("tracing: {samplingPercent: 0.5}"), own, ROUTE)
    found = shares(source, "type/echo")
    assert (found["own"], found["usual"], found["default"]) == (7.0, 25.0, 25.0)
    assert shares(source, "instance/echo")["default"] == 25.0
    assert shares(source, "capability/say")["default"] == 0.5
    assert shares(source, "forward")["forward"] == 0.5
    assert shares(source, "control")["control"] == 0.0


@pytest.mark.parametrize("said", ["accessLog: all", "recording: {messages: true}"])
def test_what_a_destinations_own_leaves_out_the_meshs_default_says(said: str) -> None:
    own = telemetry(f"target: {{type: echo}}, {said}", "echo")
    source = snapshots(telemetry("tracing: {samplingPercent: 3}"), own)
    assert shares(source, "type/echo")["default"] == 3.0


def test_a_change_of_telemetry_is_a_change_of_routes_only_so_that_no_connection_ends() -> None:
    source = snapshots()
    generation, before = source.generation, source.snapshot(BESIDE_ECHO)
    changed = telemetry("tracing: {samplingPercent: 3}, accessLog: all, recording: {messages: true}")
    source.update([ECHO], parse_manifest(changed))
    after = source.snapshot(BESIDE_ECHO)
    assert source.generation > generation
    assert (after.listeners, after.clusters) == (before.listeners, before.clusters)
    assert after.routes["outbound"] != before.routes["outbound"]
    assert after.routes["inbound"] != before.routes["inbound"]


def test_the_outside_listener_samples_as_is_declared_for_its_gateway() -> None:
    def outside(*documents: str) -> object:
        return snapshots(GATEWAY, *documents).snapshot(BESIDE_FRONT).listeners["outside"]

    own = telemetry("target: {type: front}, tracing: {samplingPercent: 40}", "front")
    assert outside() == outside(telemetry("target: {type: echo}, tracing: {samplingPercent: 40}", "echo"))
    assert outside() != outside(own)
    assert outside(own) == outside(own, telemetry("tracing: {samplingPercent: 5}"))
