"""Which policy is in force, and what the retry rule becomes in Envoy."""

from __future__ import annotations

from collections.abc import Iterable

from envoy.config.route.v3.route_components_pb2 import Route

from weft.controlplane.translate.destination import Destination, of_capability, of_type
from weft.controlplane.translate.policy import declared_routes, policy_for
from weft.controlplane.translate.routes import route_configuration
from weft.model.manifest import parse_manifest
from weft.model.resource import AnyResource
from weft.model.traffic import BalancingPolicy, TrafficPolicySpec

POLICIES = """
apiVersion: weft.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: everywhere}
spec: {timeout: 45s, loadBalancing: {policy: random}}
---
apiVersion: weft.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: summarizer}
spec: {target: {type: summarizer}, loadBalancing: {policy: weighted}, idleTimeout: 1m}
"""

ROUTE = """
apiVersion: weft.dev/v1alpha1
kind: Route
metadata: {name: summarizer}
spec:
  destination: {type: summarizer}
  rules:
  - match: [{path: {prefix: /slow}}]
    timeout: 2m
"""

SAFE = {"connect-failure", "refused-stream", "reset-before-request", "retriable-headers"}


def routes_of(destination: Destination, resources: Iterable[AnyResource] = ()) -> list[Route]:
    resources = list(resources)
    configuration = route_configuration(
        {destination: policy_for(destination, resources)}, declared_routes(resources)
    )
    [host] = [each for each in configuration.virtual_hosts if each.name == destination.cluster]
    return [each for each in host.routes if each.name not in {"tree", "tunnel"}]


def header_names(route: Route) -> set[str]:
    return {each.name for each in route.match.headers}


def test_a_destination_inherits_what_its_own_policy_leaves_out() -> None:
    resources = parse_manifest(POLICIES)
    policy = policy_for(of_type("summarizer"), resources)
    assert policy.timeout == 45.0
    assert policy.idle_timeout == 60.0
    assert policy.load_balancing.policy is BalancingPolicy.WEIGHTED


def test_the_default_is_for_all_that_have_no_policy() -> None:
    resources = parse_manifest(POLICIES)
    assert policy_for(of_capability("summarize"), resources).load_balancing.policy is BalancingPolicy.RANDOM
    assert policy_for(of_type("summarizer"), []) == TrafficPolicySpec()


def test_a_version_has_the_policy_of_its_type() -> None:
    resources = parse_manifest(POLICIES)
    assert policy_for(of_type("summarizer", "2"), resources) == policy_for(of_type("summarizer"), resources)


def test_without_a_key_only_what_was_not_processed_is_repeated() -> None:
    plain = [each for each in routes_of(of_type("summarizer")) if "idempotency-key" not in header_names(each)]
    assert plain
    for route in plain:
        assert set(route.route.retry_policy.retry_on.split(",")) == SAFE
        assert not route.route.retry_policy.HasField("per_try_timeout")


def test_with_a_key_failures_midway_are_repeated_too() -> None:
    keyed = [each for each in routes_of(of_type("summarizer")) if "idempotency-key" in header_names(each)]
    assert keyed
    for route in keyed:
        assert set(route.route.retry_policy.retry_on.split(",")) == SAFE | {"gateway-error", "reset"}


def test_streams_have_an_idle_timeout_and_no_other() -> None:
    for route in routes_of(of_type("summarizer"), parse_manifest(POLICIES)):
        action = route.route
        if "accept" in header_names(route):
            assert (action.timeout.seconds, action.idle_timeout.seconds) == (0, 60)
        else:
            assert (action.timeout.seconds, action.idle_timeout.seconds) == (45, 0)


def test_a_keyed_stream_is_matched_before_the_less_specific_routes() -> None:
    names = [header_names(each) for each in routes_of(of_type("summarizer"))]
    assert names == [{"accept", "idempotency-key"}, {"accept"}, {"idempotency-key"}, set()]


def test_rules_come_before_the_rest_and_inherit_from_the_policy() -> None:
    resources = [*parse_manifest(POLICIES), *parse_manifest(ROUTE)]
    routes = routes_of(of_type("summarizer"), resources)
    assert [each.match.prefix for each in routes] == ["/slow"] * 4 + ["/"] * 4
    assert routes[3].route.timeout.seconds == 120
    assert routes[7].route.timeout.seconds == 45
    assert routes[0].route.idle_timeout.seconds == 60
