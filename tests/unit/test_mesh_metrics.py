"""Figures of the control plane: who is in the mesh, how long changes take, what models cost."""

from __future__ import annotations

from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from weft.controlplane import mesh_metrics
from weft.controlplane.ca.authority import AuthorityStatus
from weft.controlplane.llm.budget_figures import BudgetFigures
from weft.controlplane.llm.metrics import LlmMetrics
from weft.controlplane.mesh_metrics import AuthorityMetrics, MemberMetrics
from weft.controlplane.xds.convergence import MAX_ROUNDS, Convergence
from weft.model.agent import Instance, Status
from weft.model.budget import BudgetScope, Period
from weft.model.node import Address, Inbound, Node

NODES = [
    Node(
        f"w-{number}",
        Address("127.0.0.1", 1),
        Inbound("worker", Address("127.0.0.1", 2), Address("127.0.0.1", 3)),
    )
    for number in range(3)
]


def instance(agent_type: str, number: int, status: Status = Status.HEALTHY) -> Instance:
    return Instance(id=f"{agent_type}-{number}", type=agent_type, endpoint="127.0.0.1:1", status=status)


def registry(*collectors: MemberMetrics | AuthorityMetrics) -> CollectorRegistry:
    made = CollectorRegistry()
    for each in collectors:
        made.register(each)
    return made


def test_instances_are_counted_by_type_and_status() -> None:
    running = [instance("a", 1), instance("a", 2), instance("a", 3, Status.DRAINING), instance("b", 1)]
    shown = registry(MemberMetrics(lambda: running, lambda: (4, 1)))
    assert shown.get_sample_value("weft_instances", {"type": "a", "status": "healthy"}) == 2
    assert shown.get_sample_value("weft_instances", {"type": "a", "status": "draining"}) == 1
    assert shown.get_sample_value("weft_instances", {"type": "b", "status": "healthy"}) == 1
    assert shown.get_sample_value("weft_sidecars_connected") == 4
    assert shown.get_sample_value("weft_sidecars_rejecting") == 1


def test_of_too_many_types_those_with_most_instances_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh_metrics, "MAX_TYPES", 2)
    running = [
        instance(name, number)
        for name, count in {"a": 3, "b": 1, "c": 2, "d": 1}.items()
        for number in range(count)
    ]
    shown = registry(MemberMetrics(lambda: running, lambda: (0, 0)))
    counted = {
        name: shown.get_sample_value("weft_instances", {"type": name, "status": "healthy"})
        for name in ("a", "b", "c", "d", "(other)")
    }
    assert counted == {"a": 3, "b": None, "c": 2, "d": None, "(other)": 2}


def test_the_authority_tells_when_its_certificates_end() -> None:
    status = AuthorityStatus("weft.local", "r", 2000.0, "i", 1000.0, None, None, 0, (), 1)
    shown = registry(AuthorityMetrics(lambda: status, lambda: 7, lambda: 2))
    name = "weft_authority_certificate_expiry_timestamp_seconds"
    assert shown.get_sample_value(name, {"certificate": "root"}) == 2000
    assert shown.get_sample_value(name, {"certificate": "issuing"}) == 1000
    assert shown.get_sample_value("weft_identities") == 7
    assert shown.get_sample_value("weft_identities_revoked") == 2


class Observed:
    """What the observer behind was told, a clock, and the times that were measured."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.times: list[float] = []
        self.now = 100.0
        self.convergence = Convergence(self, self.times.append, lambda: self.now)

    def connected(self, node: Node, peer: str = "") -> None:
        self.told.append(f"connected {node.id} {peer}")

    def synced(self, node: Node, generation: int) -> None:
        self.told.append(f"synced {node.id} {generation}")

    def rejected(self, node: Node, type_url: str, reason: str, names: tuple[str, ...]) -> None:
        self.told.append(f"rejected {node.id} {type_url} {reason} {names}")

    def disconnected(self, node: Node) -> None:
        self.told.append(f"disconnected {node.id}")


def test_a_change_has_arrived_once_the_last_sidecar_has_it() -> None:
    scene = Observed()
    scene.convergence.changed(5, 100.0, NODES)
    for seconds, node in enumerate(NODES, 1):
        assert scene.times == []
        scene.now = 100.0 + seconds
        scene.convergence.synced(node, 5)
    assert scene.times == [3.0]
    assert scene.told == [f"synced w-{number} 5" for number in range(3)]


def test_who_leaves_or_refuses_is_not_waited_for() -> None:
    scene = Observed()
    scene.convergence.connected(NODES[0], "10.0.0.1")
    scene.convergence.changed(5, 100.0, NODES)
    scene.convergence.synced(NODES[0], 5)
    scene.convergence.rejected(NODES[1], "t", "no", ("r",))
    assert scene.times == []
    scene.now = 104.0
    scene.convergence.disconnected(NODES[2])
    assert scene.times == [4.0]
    assert scene.told[0] == "connected w-0 10.0.0.1"
    assert scene.told[2:] == ["rejected w-1 t no ('r',)", "disconnected w-2"]


def test_changes_that_overlap_are_measured_each_by_itself() -> None:
    scene = Observed()
    scene.convergence.changed(5, 100.0, NODES[:2])
    scene.convergence.changed(6, 101.0, NODES[:2])
    scene.now = 102.0
    scene.convergence.synced(NODES[0], 6)
    scene.convergence.synced(NODES[1], 5)
    assert scene.times == [2.0]
    scene.now = 105.0
    scene.convergence.synced(NODES[1], 6)
    assert scene.times == [2.0, 4.0]


def test_nobody_to_tell_is_no_measurement_and_a_flood_of_changes_is_bounded() -> None:
    scene = Observed()
    scene.convergence.changed(1, 100.0, [])
    for number in range(10 * MAX_ROUNDS):
        scene.convergence.changed(number + 2, 100.0, NODES)
    for node in NODES:
        scene.convergence.synced(node, 10 * MAX_ROUNDS + 1)
    assert len(scene.times) == MAX_ROUNDS


BUDGET = BudgetFigures("team", BudgetScope.TENANT, "a", Period.DAY, 0.0, 1.0, 100, 10.0, 50, 4.0)


def test_a_budget_is_as_full_as_its_fullest_account_and_goes_with_its_declaration() -> None:
    shown = CollectorRegistry()
    metrics = LlmMetrics(shown)
    other = replace(BUDGET, value="b", spent_tokens=20, spent_usd=9.0)
    labels = {"budget": "team", "scope": "tenant"}
    metrics.show([], [BUDGET, other])
    assert shown.get_sample_value("weft_llm_budget_share", labels) == pytest.approx(0.9)
    assert shown.get_sample_value("weft_llm_budget_spent_usd", labels) == pytest.approx(13.0)
    assert shown.get_sample_value("weft_llm_budget_spent_tokens", labels) == 70
    metrics.show([], [])
    assert shown.get_sample_value("weft_llm_budget_share", labels) is None
    metrics.show([], [BUDGET])
    metrics.lead(False)
    assert shown.get_sample_value("weft_llm_budget_share", labels) is None
