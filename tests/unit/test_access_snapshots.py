"""AccessPolicies reach the sidecars that they concern, and cost no connection."""

from __future__ import annotations

from dataclasses import replace

from weft.controlplane.snapshots import Snapshots
from weft.controlplane.translate.inbound_routes import INBOUND_ROUTES
from weft.model.agent import Instance, Status
from weft.model.manifest import parse_manifest
from weft.model.node import Address, Inbound, Node
from weft.model.resource import AnyResource

LOOPBACK = "127.0.0.1"
EDITOR = "spiffe://weft.local/agent/editor/e-1"


def node(agent_type: str, instance: str = "a-1", version: str = "") -> Node:
    listening = Inbound(agent_type, Address(LOOPBACK, 20002), Address(LOOPBACK, 20003), version=version)
    return Node(instance, Address(LOOPBACK, 20001), listening)


SUMMARIZER, SECOND, TRANSLATOR = node("summarizer"), node("summarizer", version="2"), node("translator")


def policies(spec: str) -> list[AnyResource]:
    return list(
        parse_manifest(
            f"{{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, metadata: {{name: p}}, spec: {spec}}}"
        )
    )


def version(snapshots: Snapshots, of: Node) -> str:
    return snapshots.snapshot(of).routes[INBOUND_ROUTES].version


def test_a_policy_changes_the_routes_of_those_it_concerns_and_no_listener() -> None:
    snapshots = Snapshots([Address(LOOPBACK, 7400)])
    snapshots.update([], [])
    generation = snapshots.generation
    listeners = snapshots.snapshot(SUMMARIZER).listeners
    before = {each.inbound: version(snapshots, each) for each in (SUMMARIZER, SECOND, TRANSLATOR)}
    snapshots.update([], policies("{effect: deny, to: [{type: summarizer, version: '2'}]}"))
    assert snapshots.generation > generation
    changed = [
        each for each in (SUMMARIZER, SECOND, TRANSLATOR) if version(snapshots, each) != before[each.inbound]
    ]
    assert changed == [SECOND]
    assert snapshots.snapshot(SUMMARIZER).listeners == listeners
    assert INBOUND_ROUTES not in snapshots.snapshot(Node("door", Address(LOOPBACK, 20001))).routes


def test_sidecars_of_like_agents_share_their_routes() -> None:
    snapshots = Snapshots([Address(LOOPBACK, 7400)])
    snapshots.update([], policies("{effect: deny}"))
    first, second = (snapshots.snapshot(node("summarizer", each)) for each in ("a-1", "a-2"))
    assert first.routes is second.routes


def test_attested_labels_matter_only_where_a_policy_goes_by_them() -> None:
    snapshots = Snapshots([Address(LOOPBACK, 7400)])
    by_type, by_label = (
        policies(f"{{effect: deny, from: [{{{each}}}]}}")
        for each in ("type: editor", "labels: {team: press}")
    )
    labels = {EDITOR: {"team": "press"}}
    snapshots.update([], by_type)
    generation = snapshots.generation
    snapshots.update([], by_type, labels_of=labels)
    assert snapshots.generation == generation
    snapshots.update([], by_label)
    nobody = version(snapshots, SUMMARIZER)
    snapshots.update([], by_label, labels_of=labels)
    assert version(snapshots, SUMMARIZER) != nobody


def test_a_revocation_reaches_every_sidecar_with_an_agent() -> None:
    snapshots = Snapshots([Address(LOOPBACK, 7400)])
    snapshots.update([], [])
    before = version(snapshots, TRANSLATOR)
    snapshots.update([], [], revoked={EDITOR})
    assert version(snapshots, TRANSLATOR) != before


def test_a_policy_about_a_capability_holds_for_an_agent_whose_skill_it_turns_out_to_be() -> None:
    snapshots = Snapshots([Address(LOOPBACK, 7400)])
    rules = policies("{effect: deny, to: [{capability: say}]}")
    plain = Instance("a-1", "summarizer", f"{LOOPBACK}:20002", Status.HEALTHY)
    skilled = replace(plain, capabilities=frozenset({"say"}))
    snapshots.update([plain], rules)
    generation, before = snapshots.generation, version(snapshots, SUMMARIZER)
    snapshots.update([skilled], rules)
    assert snapshots.generation > generation
    assert version(snapshots, SUMMARIZER) != before
    assert version(snapshots, TRANSLATOR) == before
