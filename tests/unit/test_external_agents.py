"""Which destinations lead to agents without a sidecar, and what stands between them and each caller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weft.controlplane.external_agents import ExternalAgents
from weft.controlplane.snapshots import Snapshots
from weft.controlplane.translate.destination import Destination, of_capability, of_type
from weft.controlplane.translate.outbound_access import NO_EXTERNAL_CALLS
from weft.model.agent import Instance, Status
from weft.model.manifest import parse_manifest
from weft.model.node import Address, Inbound, Node
from weft.model.resource import AnyResource
from weft.model.spiffe import DEFAULT_TRUST_DOMAIN

HOST = "127.0.0.1"
DOOR = Node("door", Address(HOST, 1))
EDITOR = Node("e-1", Address(HOST, 1), Inbound("editor", Address(HOST, 2), Address(HOST, 3)))
WRITER = Node("w-1", Address(HOST, 1), Inbound("writer", Address(HOST, 2), Address(HOST, 3)))
LABELS: Mapping[str, Mapping[str, str]] = {
    "spiffe://weft.local/agent/editor/e-1": {"team": "press"},
    "spiffe://weft.local/operator/alice/door": {},
}


def resource(kind: str, name: str, spec: str) -> str:
    return f"apiVersion: weft.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n"


CRM = resource("ExternalAgent", "crm", "endpoints: ['10.0.0.7:80'], version: '2', capabilities: [customers]")
ERP = resource("ExternalAgent", "erp", "endpoints: ['10.0.0.8:80'], capabilities: [customers]")


def agents(manifest: str, instances: list[Instance] | None = None, **changes: Any) -> ExternalAgents:
    found = ExternalAgents(DEFAULT_TRUST_DOMAIN)
    found.update(parse_manifest(manifest), instances or [], LABELS, changes.get("revoked", ()))
    return found


def policy(spec: str, name: str = "one") -> str:
    return resource("AccessPolicy", name, spec)


def guards(found: ExternalAgents, node: Node) -> list[tuple[str, tuple[str, ...], bool]]:
    return [(each.target.name, each.policies, each.revoked) for each in found.calls_of(node).guards]


def addresses(found: ExternalAgents, destination: Destination) -> set[str]:
    return {each.address for each in found.endpoints(destination)}


def test_a_capability_leads_to_all_that_offer_it_and_a_version_to_its_own() -> None:
    found = agents(CRM + ERP)
    assert addresses(found, of_capability("customers")) == {"10.0.0.7:80", "10.0.0.8:80"}
    assert addresses(found, of_type("crm", "2")) == {"10.0.0.7:80"}
    assert addresses(found, of_type("crm", "1")) == set()
    assert of_type("crm", "1") in found.forms([of_type("crm", "1")])
    assert not found.forms([of_type("editor"), of_capability("other")])


def test_agents_with_sidecars_are_in_the_way_whatever_their_status() -> None:
    there = Instance("c-1", "crm", "127.0.0.1:1", Status.UNHEALTHY)
    found = agents(CRM + ERP, [there])
    assert not found.forms([of_type("crm")])
    assert addresses(found, of_capability("customers")) == {"10.0.0.8:80"}
    offering = Instance("x-1", "x", "127.0.0.1:1", Status.UNHEALTHY, frozenset({"customers"}))
    found = agents(CRM + ERP, [offering])
    assert not found.forms([of_capability("customers")])
    assert addresses(found, of_type("crm")) == {"10.0.0.7:80"}


def test_only_policies_about_the_caller_and_the_agent_stand_between_them() -> None:
    manifest = (
        CRM
        + ERP
        + policy("effect: deny, from: [{labels: {team: press}}], to: [{type: crm}]", "press")
        + policy("effect: deny, from: [{operator: alice}], to: [{capability: customers}]", "alice")
        + policy("effect: deny, mode: dryRun, to: [{type: crm}]", "trial")
        + policy("effect: deny, to: [{type: summarizer}]", "another")
    )
    found = agents(manifest)
    assert guards(found, EDITOR) == [("crm", ("press",), False)]
    assert guards(found, DOOR) == [("crm", ("alice",), False), ("erp", ("alice",), False)]
    assert guards(found, WRITER) == []
    assert found.calls_of(WRITER) is found.calls_of(Node("w-2", WRITER.outbound, WRITER.inbound)), (
        "who is treated alike shares all routes"
    )


def test_nobody_in_particular_is_covered_by_the_default() -> None:
    found = agents(CRM + policy("default: deny") + policy("effect: allow, from: [{operator: bob}]", "two"))
    unknown = Node("unheard-of", Address(HOST, 1))
    assert guards(found, unknown) == [("crm", ("one",), False)]


def test_whose_identity_is_revoked_is_held_back() -> None:
    found = agents(CRM, revoked=["spiffe://weft.local/agent/editor/e-1"])
    assert guards(found, EDITOR) == [("crm", (), True)]
    assert guards(found, WRITER) == []


def test_without_such_agents_policies_cost_nothing() -> None:
    found = agents(policy("default: deny"))
    assert found.calls_of(EDITOR) is NO_EXTERNAL_CALLS


def test_addresses_that_change_are_told_without_routes_and_clusters() -> None:
    snapshots = Snapshots([Address(HOST, 9)])
    snapshots.update([], parse_manifest(CRM))
    before, generation = snapshots.snapshot(EDITOR), snapshots.generation
    snapshots.update([], parse_manifest(CRM.replace("10.0.0.7", "10.0.0.9")))
    after = snapshots.snapshot(EDITOR)
    assert snapshots.generation > generation
    assert after.routes is before.routes
    assert after.clusters == before.clusters
    assert after.endpoints["type/crm"] != before.endpoints["type/crm"]


def test_where_one_is_taken_away_its_calls_go_nowhere() -> None:
    snapshots = Snapshots([Address(HOST, 9)])
    declared: list[AnyResource] = parse_manifest(CRM)
    snapshots.update([], declared)
    plain = snapshots.snapshot(EDITOR).clusters["type/crm"]
    snapshots.update([], [])
    assert snapshots.snapshot(EDITOR).clusters["type/crm"] != plain, "a call by mutual TLS, to nobody"
