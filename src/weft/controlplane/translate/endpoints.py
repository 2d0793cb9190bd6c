"""Endpoints (EDS): which instances a caller's Envoy balances over, in the order of their nearness."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from envoy.config.endpoint.v3.endpoint_components_pb2 import LbEndpoint, LocalityLbEndpoints
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment

from weft.model.agent import Instance, Locality, Status
from weft.model.node import parse_address
from weft.model.telemetry_wire import VERSION_KEY

INSTANCE_KEY = "instance"
"""Key of the endpoint metadata (namespace `envoy.lb`) by which one instance is addressed."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What Envoy is told of an instance. Equal endpoints need no push, whatever else changed."""

    id: str
    address: str
    weight: int
    locality: Locality
    version: str = ""


def endpoint(instance: Instance) -> Endpoint | None:
    """The endpoint of `instance`; None while it is not to get calls."""
    if instance.status is not Status.HEALTHY:
        return None
    return Endpoint(instance.id, instance.endpoint, instance.weight, instance.locality, instance.version)


def load_assignment(
    cluster: str,
    endpoints: Iterable[Endpoint],
    caller: Locality,
    *,
    weighted: bool = False,
    failover: bool = True,
) -> ClusterLoadAssignment:
    """The endpoints of `cluster` as a caller at `caller` is to use them.

    With `failover`, nearer ones come first: same zone, same region, anywhere. Envoy wants priorities without
    gaps, so they are numbered by the distances that occur.
    """
    groups: defaultdict[tuple[int, Locality], list[Endpoint]] = defaultdict(list)
    for each in endpoints:
        groups[_distance(caller, each.locality) if failover else 0, each.locality].append(each)
    distances = sorted({distance for distance, _ in groups})
    ordered = sorted(groups.items(), key=lambda item: (item[0][0], item[0][1].region, item[0][1].zone))
    assignment = ClusterLoadAssignment(cluster_name=cluster)
    for (distance, locality), members in ordered:
        assignment.endpoints.append(_group(locality, distances.index(distance), members, weighted=weighted))
    return assignment


def _distance(caller: Locality, locality: Locality) -> int:
    if caller == locality:
        return 0
    return 1 if caller.region == locality.region else 2


def _group(
    locality: Locality, priority: int, members: list[Endpoint], *, weighted: bool
) -> LocalityLbEndpoints:
    group = LocalityLbEndpoints(priority=priority)
    group.locality.region = locality.region
    group.locality.zone = locality.zone
    group.lb_endpoints.extend(
        _lb_endpoint(each, weighted=weighted) for each in sorted(members, key=lambda each: each.id)
    )
    return group


def _lb_endpoint(each: Endpoint, *, weighted: bool) -> LbEndpoint:
    result = LbEndpoint()
    address = parse_address(each.address)
    socket = result.endpoint.address.socket_address
    socket.address = address.host
    socket.port_value = address.port
    told = {INSTANCE_KEY: each.id, **({VERSION_KEY: each.version} if each.version else {})}
    result.metadata.filter_metadata["envoy.lb"].update(told)
    if weighted:
        result.load_balancing_weight.value = each.weight
    return result
