"""Who can reach whom: the same as `weft can` says to each pair."""

from __future__ import annotations

from typing import Any

import httpx
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from tests.control_access import admin_access

from weft.controlplane.api.app import create_api
from weft.controlplane.api.context import ApiContext
from weft.controlplane.explanation import ACTIONS, Mesh, Question, explain
from weft.controlplane.reach import ReachCell, ReachMatrix
from weft.controlplane.sidecars import Sidecars
from weft.model.access import AccessPolicySpec, Action
from weft.model.agent import Instance
from weft.model.decision import TargetKind
from weft.model.manifest import parse_documents, parse_manifest
from weft.model.resource import AnyResource, Metadata, Resource
from weft.registry.registry import Registry
from weft.registry.view import View
from weft.resources.store import Resources
from weft.resources.view import ResourceView
from weft.store.memory import MemoryStore

DECLARED = """
{apiVersion: weft.dev/v1alpha1, kind: Agent, metadata: {name: editor}, spec: {}}
---
apiVersion: weft.dev/v1alpha1
kind: Agent
metadata: {name: files}
spec: {version: "1", capabilities: [fast]}
---
{apiVersion: weft.dev/v1alpha1, kind: Topic, metadata: {name: news}, spec: {}}
---
{apiVersion: weft.dev/v1alpha1, kind: Queue, metadata: {name: work}, spec: {}}
"""
EXTERNAL = """
apiVersion: weft.dev/v1alpha1
kind: ExternalAgent
metadata: {name: crm}
spec: {endpoints: ["10.0.0.7:80"]}
"""
INSTANCES = [
    Instance("f-1", "files", "127.0.0.1:1", version="1", capabilities=frozenset({"fast"})),
    Instance("f-2", "files", "127.0.0.1:2", version="2"),
    Instance("w-1", "web", "127.0.0.1:3"),
]
KNOWN: dict[str, dict[str, str]] = {
    "spiffe://weft.local/agent/editor/e-1": {"team": "a"},
    "spiffe://weft.local/agent/editor/e-2": {},
    "spiffe://weft.local/agent/web/w-1": {"team": "b"},
    "spiffe://weft.local/operator/anna/door": {"team": "a"},
}
REVOKED = "spiffe://weft.local/agent/web/w-1"


def some(*values: Any) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), min_size=0, max_size=2)


CALLERS = some(
    {"type": "editor"},
    {"type": "web"},
    {"instance": "editor/e-2"},
    {"labels": {"team": "a"}},
    {"operator": "anna"},
)
TARGETS = some(
    {"type": "files"},
    {"type": "files", "version": "2"},
    {"capability": "fast"},
    {"topic": "news"},
    {"queue": "work"},
)
RULES = some(
    {"paths": ["/read/*"]},
    {"paths": ["/rpc"]},
    {"methods": ["GET"]},
    {"mcp": {"tools": ["read"]}},
    {"actions": ["publish"]},
    {"actions": ["call", "submit"]},
    {"actions": ["call"], "paths": ["/read/*"]},
)
POLICY = st.builds(
    lambda **fields: AccessPolicySpec.model_validate(fields),
    effect=st.sampled_from(["allow", "deny"]),
    mode=st.sampled_from(["enforce", "enforce", "dryRun"]),
    **{"from": CALLERS, "to": TARGETS, "rules": RULES},
)
DEFAULT = st.sampled_from(
    [None, *(AccessPolicySpec.model_validate({"default": each}) for each in ("deny", "allow"))]
)
REQUESTS = [
    {},
    {"method": "GET", "path": "/read/x"},
    {"method": "GET", "path": "/rpc"},
    {"path": "/read/x"},
    {"tool": "read"},
    {"path": "/read/x", "tool": "read"},
]


def mesh(policies: list[AccessPolicySpec], *, revoked: bool = False) -> Mesh:
    resources: list[AnyResource] = [
        *parse_manifest(DECLARED),
        *(
            Resource(
                api_version="weft.dev/v1alpha1",
                kind="AccessPolicy",
                metadata=Metadata(name=f"p-{number}"),
                spec=spec,
            )
            for number, spec in enumerate(policies)
        ),
    ]
    return Mesh(resources, INSTANCES, KNOWN, lambda who: revoked and who == REVOKED)


def cells(of: Mesh) -> dict[tuple[str, str], ReachCell]:
    matrix = ReachMatrix(of)
    return {(each.caller, each.callee): each for caller in matrix.callers for each in matrix.row(caller)}


@settings(max_examples=100, deadline=None)
@given(st.lists(POLICY, max_size=5), DEFAULT, st.booleans())
def test_a_cell_is_what_can_says(
    policies: list[AccessPolicySpec], default: AccessPolicySpec | None, revoked: bool
) -> None:
    asked = mesh([*policies, *([default] if default else [])], revoked=revoked)
    for (caller, callee), cell in cells(asked).items():
        actions = _actions(callee)
        said = {each: explain(Question(caller, each, callee), asked).decision for each in actions}
        assert {each for each in actions if said[each].allowed} == set(cell.actions)
        assert cell.decision.allowed == all(each.allowed for each in said.values())
        assert cell.decision in said.values()
        if not cell.partly:
            assert {each.allowed for each in _all(caller, callee, asked)} == {cell.decision.allowed}


def _actions(callee: str) -> frozenset[Action]:
    kind, slash, _ = callee.partition("/")
    return ACTIONS[TargetKind(kind) if slash else TargetKind.AGENT]


def _all(caller: str, callee: str, asked: Mesh) -> list[Any]:
    """What is decided for whatever could be asked."""
    requests = [{}] if "/" in callee else REQUESTS
    return [
        case.decision
        for action in _actions(callee)
        for request in requests
        for case in explain(Question(caller, action, callee, **request), asked).cases
    ]


def _policy(**fields: Any) -> AccessPolicySpec:
    return AccessPolicySpec.model_validate(fields)


def test_everybody_reaches_everything_where_nobody_says_otherwise() -> None:
    found = cells(mesh([]))
    assert {caller for caller, _ in found} == {"editor", "files", "web"}
    assert [callee for caller, callee in found if caller == "web"] == [
        "editor",
        "files",
        "web",
        "queue/work",
        "topic/news",
    ]
    assert all(each.decision.allowed and not each.partly for each in found.values())


def test_what_depends_on_the_request_the_action_the_version_or_the_instance_is_partly() -> None:
    denied = _policy(default="deny")
    reads = _policy(
        effect="allow", **{"from": [{"type": "editor"}], "to": [{"type": "files"}]}, rules=[{"paths": ["/r"]}]
    )
    assert cells(mesh([denied, reads]))["editor", "files"].partly
    assert not cells(mesh([denied, reads]))["web", "files"].partly
    publishes = _policy(effect="allow", to=[{"topic": "news"}], rules=[{"actions": ["publish"]}])
    cell = cells(mesh([denied, publishes]))["web", "topic/news"]
    assert (cell.partly, cell.actions, cell.decision.allowed) == (True, (Action.PUBLISH,), False)
    second = _policy(effect="allow", to=[{"type": "files", "version": "2"}])
    assert cells(mesh([denied, second]))["web", "files"].partly
    one = _policy(effect="allow", **{"from": [{"instance": "editor/e-2"}]})
    assert cells(mesh([denied, one]))["editor", "web"].partly
    assert cells(mesh([], revoked=True))["web", "editor"].partly


def test_a_condition_that_changes_nothing_is_no_reason_to_say_partly() -> None:
    never = _policy(effect="deny", to=[{"type": "files"}])
    some_paths = _policy(effect="allow", to=[{"type": "files"}], rules=[{"paths": ["/r"]}])
    assert not cells(mesh([never, some_paths]))["web", "files"].partly
    assert not cells(mesh([some_paths]))["web", "files"].partly
    tried = _policy(effect="deny", mode="dryRun", to=[{"type": "files"}])
    cell = cells(mesh([tried]))["web", "files"]
    assert (cell.partly, cell.decision.dry_run) == (False, ("p-0",))


async def test_the_matrix_comes_in_pages_of_callers() -> None:
    store = MemoryStore()
    resources = await Resources.open(store)
    await resources.apply(parse_documents(DECLARED, "mesh.yaml"))
    registry, sidecars = await Registry.open(store), await Sidecars.open(store)
    async with (
        View(registry) as view,
        ResourceView.follow(resources) as declared,
        admin_access(store) as admin,
    ):
        app = create_api(ApiContext(view, resources, declared, sidecars, admin.access), CollectorRegistry())
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://control", headers=admin.headers
        ) as http:
            first = (await http.get("/v1/reach?limit=1")).json()
            second = (await http.get("/v1/reach", params={"limit": 1, "after": first["next"]})).json()
            refused = await http.get("/v1/reach?limit=0")
    await store.close()
    assert (first["callers"], first["next"], second["callers"], second["next"]) == (
        ["editor"],
        "editor",
        ["files"],
        None,
    )
    assert first["callees"] == second["callees"] == ["editor", "files", "queue/work", "topic/news"]
    assert first["cells"][3] == {
        "caller": "editor",
        "callee": "topic/news",
        "allowed": True,
        "actions": ["publish", "subscribe"],
        "policy": "",
        "reason": "no policy matches, and without a mesh-wide default everything is allowed",
        "partly": False,
        "dryRun": [],
    }
    assert refused.status_code == 422


def test_agents_without_a_sidecar_are_reached_and_reach_nobody() -> None:
    denied = """
    apiVersion: weft.dev/v1alpha1
    kind: AccessPolicy
    metadata: {name: not-web}
    spec: {effect: deny, from: [{type: web}], to: [{type: crm}]}
    """
    matrix = ReachMatrix(Mesh(parse_manifest(f"{DECLARED}---{EXTERNAL}---{denied}"), INSTANCES, KNOWN))
    assert "crm" in matrix.callees
    assert "crm" not in matrix.callers
    [web] = [each for each in matrix.row("web") if each.callee == "crm"]
    [editor] = [each for each in matrix.row("editor") if each.callee == "crm"]
    assert (web.decision.allowed, web.decision.policy, editor.decision.allowed) == (False, "not-web", True)
