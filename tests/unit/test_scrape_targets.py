"""Where Prometheus finds the metrics of a mesh."""

from __future__ import annotations

import pytest

from weft.controlplane.replicas import ReplicaCodec, Replicas, RunningReplica
from weft.controlplane.scrape_targets import MAX_TARGETS, ScrapeTarget, scrape_targets
from weft.controlplane.sidecars import Sidecar, SidecarCodec
from weft.controlplane.xds.peer import peer_address
from weft.model.agent import Instance, Status
from weft.store.memory import MemoryStore


def _instance(endpoint: str) -> Instance:
    return Instance(
        id="s-1",
        type="summarizer",
        endpoint=endpoint,
        status=Status.HEALTHY,
        version="2",
        started_at=1.0,
        incarnation="one",
    )


def _sidecar(metrics: str, peer: str, key: str = "summarizer.s-1") -> Sidecar:
    return Sidecar(key, 1.0, metrics=metrics, peer=peer)


def _found(sidecar: Sidecar, endpoint: str | None = None) -> list[ScrapeTarget]:
    instances = {} if endpoint is None else {"summarizer.s-1": _instance(endpoint)}
    return scrape_targets([], [sidecar], instances)


def test_a_replica_is_told_with_its_name_and_one_without_a_port_is_not() -> None:
    replicas = [RunningReplica("control", "10.0.0.1:7405", "1"), RunningReplica("other", "", "1")]
    (target,) = scrape_targets(replicas, [], {})
    assert (str(target.address), target.role, target.instance, target.labels) == (
        "10.0.0.1:7405",
        "control",
        "control",
        {},
    )


def test_an_agent_is_read_by_way_of_its_sidecar_which_is_read_too() -> None:
    own, program = _found(_sidecar("10.0.0.2:9000", "10.0.0.2"), "10.0.0.2:15006")
    assert (own.role, program.role) == ("sidecar", "agent")
    assert own.address == program.address
    assert own.labels == program.labels == {"type": "summarizer", "agent_version": "2"}


def test_a_sidecar_that_only_calls_has_no_agent_to_be_read() -> None:
    (target,) = _found(_sidecar("127.0.0.1:9000", "127.0.0.1", "caller.door"))
    assert (target.role, target.instance, target.labels) == ("sidecar", "caller.door", {})


@pytest.mark.parametrize(
    ("metrics", "peer", "endpoint"),
    [
        ("127.0.0.1:22", "10.0.0.2", "127.0.0.1:15006"),  # that would be Prometheus's own machine
        ("[::1]:22", "10.0.0.2", "[::1]:15006"),
        ("127.0.0.1:22", "", None),
        ("10.0.0.9:80", "10.0.0.2", "10.0.0.2:15006"),
        ("10.0.0.9:80", "10.0.0.2", None),
        ("metadata.internal:80", "10.0.0.2", "10.0.0.2:15006"),
        ("http://10.0.0.2:80/", "10.0.0.2", None),
        ("", "10.0.0.2", None),
    ],
)
def test_an_address_that_is_not_the_sidecar_s_own_is_not_told(
    metrics: str, peer: str, endpoint: str | None
) -> None:
    assert _found(_sidecar(metrics, peer), endpoint) == []


@pytest.mark.parametrize(
    ("metrics", "peer", "endpoint"),
    [
        ("10.0.0.2:9000", "192.168.0.1", "10.0.0.2:15006"),  # address translation stands between
        ("10.0.0.2:9000", "10.0.0.2", "10.0.0.3:15006"),
        ("127.0.0.1:9000", "127.0.0.1", "127.0.0.1:15006"),
    ],
)
def test_an_address_where_it_takes_calls_or_from_which_it_connected_is_told(
    metrics: str, peer: str, endpoint: str
) -> None:
    assert len(_found(_sidecar(metrics, peer), endpoint)) == 2


def test_there_is_a_limit_to_what_is_told() -> None:
    sidecars = [
        _sidecar("127.0.0.1:9000", "127.0.0.1", f"caller.c-{number}") for number in range(MAX_TARGETS + 5)
    ]
    assert len(scrape_targets([], sidecars, {})) == MAX_TARGETS


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.1:4711", "10.0.0.1"),
        ("ipv6:%5B::1%5D:4711", "::1"),
        ("ipv6:[::ffff:10.0.0.1]:4711", "10.0.0.1"),
        ("unix:/tmp/socket", ""),
        ("", ""),
    ],
)
def test_the_address_of_a_peer_is_what_grpc_says(peer: str, address: str) -> None:
    assert peer_address(peer) == address


def test_the_record_of_a_sidecar_keeps_its_addresses() -> None:
    sidecar = _sidecar("127.0.0.1:9000", "127.0.0.1")
    assert SidecarCodec().decode(SidecarCodec().encode(sidecar)) == sidecar


@pytest.mark.parametrize("garbage", [b"", b"[]", b"{}", b'"x"', b"\xff"])
def test_what_is_no_record_of_a_replica_is_refused(garbage: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- whichever way it is none
        ReplicaCodec().decode(garbage)


async def test_replicas_of_one_name_are_all_told_and_one_that_came_back_once() -> None:
    store = MemoryStore()
    one, other = RunningReplica("control", "10.0.0.1:1", "1"), RunningReplica("control", "10.0.0.2:1", "1")
    records = [await Replicas.open(store, each) for each in (one, one, other)]
    for each in records:
        await each.write()
    assert await records[0].list() == [one, other]
    await records[2].withdraw()
    assert await records[0].list() == [one]
    await store.close()
