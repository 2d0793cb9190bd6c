"""Where Prometheus finds the metrics of everything that runs in the mesh. Pure.

No target needs a credential, so Prometheus has none to send to an address that a member made up. What a
member may have it read is limited all the same: a loopback address only if the member itself is on this
machine, another one only if it is the one from which its sidecar connected here, or where it takes calls
(its own word, as for calls: Prometheus gets no further with it than every caller does).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address
from itertools import islice

from weft.controlplane.replicas import RunningReplica
from weft.controlplane.sidecars import Sidecar
from weft.model.agent import Instance
from weft.model.node import Address, parse_address

MAX_TARGETS = 50_000
"""More are not told; Prometheus itself has enough to do with so many."""

AGENT_METRICS_PATH = "/agent/metrics"
"""Where a sidecar passes on the metrics of its agent."""


class TargetRole(StrEnum):
    """Whose metrics they are."""

    CONTROL = "control"
    SIDECAR = "sidecar"
    AGENT = "agent"
    """The program's own, by way of its sidecar."""


@dataclass(frozen=True, slots=True)
class ScrapeTarget:
    """One address to be read."""

    address: Address
    role: TargetRole
    instance: str
    """`<type>.<id>`; of a sidecar that only calls `caller.<id>`; of the control plane a replica's name."""
    labels: Mapping[str, str] = field(default_factory=dict)


def scrape_targets(
    replicas: Iterable[RunningReplica],
    sidecars: Iterable[Sidecar],
    instances: Mapping[str, Instance],
) -> list[ScrapeTarget]:
    """Every target, at most MAX_TARGETS; `instances` are those that run, by key."""
    return list(islice(_all(replicas, sidecars, instances), MAX_TARGETS))


def _all(
    replicas: Iterable[RunningReplica], sidecars: Iterable[Sidecar], instances: Mapping[str, Instance]
) -> Iterator[ScrapeTarget]:
    for replica in replicas:
        address = _address(replica.metrics)
        if address is not None:
            yield ScrapeTarget(address, TargetRole.CONTROL, replica.name)
    for sidecar in sidecars:
        yield from _of_sidecar(sidecar, instances.get(sidecar.key))


def _of_sidecar(sidecar: Sidecar, instance: Instance | None) -> Iterator[ScrapeTarget]:
    address = _address(sidecar.metrics)
    if address is None or not _is_its_own(address, sidecar, instance):
        return
    labels = {} if instance is None else {"type": instance.type, "agent_version": instance.version}
    yield ScrapeTarget(address, TargetRole.SIDECAR, sidecar.key, labels)
    if instance is not None:
        yield ScrapeTarget(address, TargetRole.AGENT, sidecar.key, labels)


def _address(text: str) -> Address | None:
    try:
        return parse_address(text)
    except ValueError:
        return None


def _is_its_own(address: Address, sidecar: Sidecar, instance: Instance | None) -> bool:
    """Whether `address` may be one of the machine beside whose `sidecar` it was told."""
    if _is_loopback(address.host):
        return _is_loopback(sidecar.peer)
    endpoint = None if instance is None else _address(instance.endpoint)
    return address.host == sidecar.peer or (endpoint is not None and address.host == endpoint.host)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
