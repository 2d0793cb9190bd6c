"""What `weft can` answers."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from weft.controlplane.explanation import Mesh, Question, explain
from weft.errors import InvalidRequest
from weft.model.access import Action
from weft.model.agent import Instance
from weft.model.manifest import parse_manifest

POLICIES = """
{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, metadata: {name: locked}, spec: {default: deny}}
---
apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: editors}
spec: {effect: allow, from: [{type: editor}], to: [{type: summarizer, version: "1"}, {topic: news}]}
---
apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: press}
spec: {effect: allow, from: [{labels: {team: press}}], to: [{capability: summarize}]}
---
apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: no-deletion}
spec: {effect: deny, to: [{type: summarizer}], rules: [{mcp: {tools: [delete]}}]}
---
apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: later}
spec: {effect: deny, mode: dryRun, from: [{type: editor}], to: [{topic: news}]}
"""

EXTERNAL = """
apiVersion: weft.dev/v1alpha1
kind: ExternalAgent
metadata: {name: crm}
spec: {endpoints: ["10.0.0.7:80"], version: "2", capabilities: [customers]}
---
apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: no-wiping}
spec: {effect: deny, to: [{capability: customers}], rules: [{mcp: {tools: [wipe]}}]}
"""

PRESS = "spiffe://weft.local/agent/reporter/r-1"
MESH = Mesh(
    parse_manifest(POLICIES),
    [Instance("s-1", "summarizer", "127.0.0.1:1", capabilities=frozenset({"summarize"}), version="1")],
    {PRESS: {"team": "press"}},
)


def question(text: str, **details: str) -> Question:
    caller, action, target = text.split()
    return Question(caller, Action(action), target, **details)


def ask(text: str, mesh: Mesh = MESH, **details: str) -> tuple[bool, str, tuple[str, ...]]:
    decision = explain(question(text, **details), mesh).decision
    return decision.allowed, decision.policy, decision.dry_run


def test_the_policy_that_decides_is_named() -> None:
    assert ask("editor call summarizer") == (True, "editors", ())
    assert ask("operator/alice call summarizer") == (False, "locked", ())
    assert ask("editor call summarizer", tool="delete") == (False, "no-deletion", ())
    assert ask("editor publish topic/news") == (True, "editors", ("later",))
    assert ask("editor submit queue/work") == (False, "locked", ())
    assert ask("spiffe://partner.example/agent/editor/e-1 call summarizer") == (False, "locked", ())


def test_labels_are_those_that_were_attested() -> None:
    assert ask("reporter/r-1 call capability/summarize") == (True, "press", ())
    assert ask("reporter/r-2 call capability/summarize") == (False, "locked", ())
    found = explain(Question("reporter", Action.CALL, "summarizer"), MESH)
    assert [(each.caller[-4:], each.decision.policy) for each in found.cases] == [
        ("er/_", "locked"),
        ("/r-1", "press"),
    ]
    assert not found.decision.allowed


def test_versions_that_are_treated_differently_are_told_apart() -> None:
    second = Instance("s-2", "summarizer", "127.0.0.1:2", version="2")
    found = explain(
        Question("editor", Action.CALL, "summarizer"), replace(MESH, instances=[*MESH.instances, second])
    )
    assert [(each.target.version, each.decision.allowed) for each in found.cases] == [
        ("1", True),
        ("2", False),
    ]


def test_a_revoked_identity_is_denied() -> None:
    mesh = replace(MESH, is_revoked=lambda each: each.endswith("/e-1"))
    assert ask("editor/e-1 call summarizer", mesh) == (False, "revoked", ())


def test_it_is_told_which_policies_depend_on_more_than_was_asked() -> None:
    assert explain(Question("editor", Action.CALL, "summarizer"), MESH).open == ("no-deletion",)
    assert explain(Question("editor", Action.CALL, "summarizer", tool="x"), MESH).open == ()


@pytest.mark.parametrize(
    ("text", "details", "said"),
    [
        ("a/b/c call summarizer", {}, "names nobody"),
        ("Editor call summarizer", {}, "not a valid name"),
        ("spiffe://UPPER/x call summarizer", {}, "is not a trust domain"),
        ("editor publish summarizer", {}, "all that one does with it is call"),
        ("editor call topic/news", {}, "publish or subscribe"),
        ("editor call thing/news", {}, "names nothing"),
        ("editor call capability/fly", {}, "no agent offers the capability"),
        ("editor call summarizer", {"path": "rpc"}, "is no path"),
        ("editor publish topic/news", {"tool": "x"}, "are of calls of agents only"),
    ],
)
def test_a_question_without_sense_is_refused(text: str, details: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(said)):
        explain(question(text, **details), MESH)


def test_of_agents_without_a_sidecar_nobody_reads_bodies() -> None:
    declared = parse_manifest(EXTERNAL)
    mesh = Mesh(declared, [], {})
    for text in ("editor call crm", "editor call capability/customers"):
        assert ask(text, mesh, tool="list") == (False, "no-wiping", ())
        assert ask(text, mesh, method="GET") == (True, "", ())
    [case] = explain(question("editor call crm"), mesh).cases
    assert (case.target.version, case.target.capabilities) == ("2", frozenset({"customers"}))
    beside = Instance("c-1", "crm", "127.0.0.1:1", capabilities=frozenset({"customers"}))
    assert ask("editor call crm", replace(mesh, instances=[beside]), tool="list") == (True, "", ())
