"""What the AccessPolicies come to."""

from __future__ import annotations

import pytest
import yaml

from weft.model.a2a_methods import A2A_METHODS
from weft.model.access import AccessPolicySpec, Action
from weft.model.decision import (
    AMBIGUOUS,
    REVOKED,
    AccessRequest,
    AccessTarget,
    Decision,
    RpcCall,
    TargetKind,
    decide,
)
from weft.model.regex import check_regex
from weft.model.request_path import AMBIGUOUS_PATHS
from weft.model.spiffe import parse_spiffe_id

EDITOR = "spiffe://weft.local/agent/editor/e-1"
OPERATOR = "spiffe://weft.local/operator/alice/laptop"
SUMMARIZER = AccessTarget(TargetKind.AGENT, "summarizer", "2", frozenset({"summarize"}))


def decision(
    policies: str, request: AccessRequest, who: str = EDITOR, labels: dict[str, str] | None = None
) -> Decision:
    specs = {
        name: AccessPolicySpec.model_validate(spec) for name, spec in (yaml.safe_load(policies) or {}).items()
    }
    return decide(specs, parse_spiffe_id(who), request, labels=labels)


def call(path: str = "/rpc", method: str = "POST", body: RpcCall | None = None) -> AccessRequest:
    return AccessRequest(Action.CALL, SUMMARIZER, method, path, body)


def test_without_policies_everything_is_allowed() -> None:
    assert decision("", call()) == Decision(
        allowed=True,
        policy="",
        reason="no policy matches, and without a mesh-wide default everything is allowed",
    )


def test_deny_wins_over_allow_and_allow_over_the_default() -> None:
    policies = "locked: {default: deny}\nopen: {effect: allow, from: [{type: editor}]}\n"
    assert decision(policies, call()).policy == "open"
    assert decision(policies, call(), OPERATOR) == Decision(
        allowed=False,
        policy="locked",
        reason="no policy matches, and the mesh-wide default ('locked') is to deny",
    )
    denied = decision(policies + "shut: {effect: deny}", call())
    assert (denied.allowed, denied.policy) == (False, "shut")


@pytest.mark.parametrize(
    ("principal", "who", "is_meant"),
    [
        ("{type: editor}", EDITOR, True),
        ("{type: edit}", EDITOR, False),
        ("{type: editor}", "spiffe://weft.local/agent/editor2/e-1", False),
        ("{type: editor}", "spiffe://weft.local/operator/editor/x", False),
        ("{type: editor}", "spiffe://partner.example/agent/editor/e-1", False),
        ("{type: editor, trustDomain: partner.example}", "spiffe://partner.example/agent/editor/e-1", True),
        ("{trustDomain: partner.example}", "spiffe://partner.example/anything", True),
        ("{instance: editor/e-1}", EDITOR, True),
        ("{instance: editor/e-1}", "spiffe://weft.local/agent/editor/e-10", False),
        ("{operator: alice}", OPERATOR, True),
        ("{operator: alice}", "spiffe://weft.local/agent/alice/laptop", False),
        ("{labels: {team: press}}", EDITOR, True),
        ("{labels: {team: law}}", EDITOR, False),
        ("{labels: {team: press}, trustDomain: partner.example}", EDITOR, False),
    ],
)
def test_a_principal_is_nobody_but_who_is_meant(principal: str, who: str, is_meant: bool) -> None:
    policies = f"p: {{effect: deny, from: [{principal}]}}"
    assert decision(policies, call(), who, labels={"team": "press"}).allowed is not is_meant


@pytest.mark.parametrize(
    ("destination", "is_meant"),
    [
        ("{type: summarizer}", True),
        ("{type: summarizer, version: '2'}", True),
        ("{type: summarizer, version: '1'}", False),
        ("{capability: summarize}", True),
        ("{capability: summarize, type: other}", False),
        ("{topic: summarizer}", False),
        ("{pool: summarizer}", False),
    ],
)
def test_a_destination_is_all_that_is_said_of_it(destination: str, is_meant: bool) -> None:
    assert decision(f"p: {{effect: deny, to: [{destination}]}}", call()).allowed is not is_meant


def test_topics_queues_and_pools_are_decided_by_action() -> None:
    policies = """
    locked: {default: deny}
    news: {effect: allow, to: [{topic: news}], rules: [{actions: [publish]}]}
    work: {effect: allow, to: [{queue: work}, {pool: chat}]}
    """
    done = {
        (action, str(target)): decision(policies, AccessRequest(action, target)).allowed
        for kind, name in (("topic", "news"), ("queue", "work"), ("pool", "chat"))
        for target in [AccessTarget(TargetKind(kind), name)]
        for action in Action
        if kind != "topic" or action in {Action.PUBLISH, Action.SUBSCRIBE}
    }
    assert done[Action.PUBLISH, "topic/news"]
    assert not done[Action.SUBSCRIBE, "topic/news"]
    assert done[Action.SUBMIT, "queue/work"]
    assert done[Action.CONSUME, "queue/work"]
    assert done[Action.CALL, "pool/chat"]


def test_allowing_is_exact_and_denying_is_not() -> None:
    deny = "p: {effect: deny, rules: [{methods: [POST], paths: [/admin, /keys/*]}]}"
    for path in ("/admin", "/ADMIN", "/admin/", "/keys", "/keys/a", "/Keys/a"):
        assert not decision(deny, call(path)).allowed, path
    assert not decision(deny, call("/admin", "post")).allowed
    for path in ("/admin2", "/admin/x", "/", "/keysa"):
        assert decision(deny, call(path)).allowed, path
    allow = deny.replace("deny", "allow") + "\nlocked: {default: deny}"
    for path in ("/admin", "/keys/a", "/keys/"):
        assert decision(allow, call(path)).allowed, path
    for path in ("/ADMIN", "/admin/", "/keys", "/Keys/a"):
        assert not decision(allow, call(path)).allowed, path
    assert not decision(allow, call("/admin", "post")).allowed


def test_a_path_that_can_be_read_in_two_ways_is_refused_only_where_paths_matter() -> None:
    deny = "p: {effect: deny, to: [{type: summarizer}], rules: [{paths: [/admin]}]}"
    for path in (
        *("//admin", "/x/../admin", "/admin/.", "/x\\..\\admin", "/%2e/admin", "/x%2fadmin", "/%5cadmin"),
        *("/%61dmin", "/admin;x=1", "/%2561dmin", "/admin%00", "/message%3Asend", "/%c0%afadmin", "/admin%"),
    ):
        assert decision(deny, call(path)).policy == AMBIGUOUS, path
        assert decision("p: {effect: deny, from: [{type: other}]}", call(path)).allowed
    for path in ("/", "/a/", "/.well-known/..x", "/caf%C3%A9", "/a%20b", "/a%25", "/100%25/x", "/%7Bid%7D"):
        assert decision(deny, call(path)).allowed, path


def test_tools_are_denied_and_allowed_by_what_the_body_says() -> None:
    deny = "p: {effect: deny, rules: [{mcp: {tools: [delete]}}]}"
    assert not decision(deny, call(body=RpcCall("tools/call", "delete"))).allowed
    assert decision(deny, call(body=RpcCall("tools/call", "search"))).allowed
    assert decision(deny, call(body=RpcCall("prompts/get", "delete"))).allowed
    assert decision(deny, call(body=RpcCall())).allowed
    assert not decision(deny, call()).allowed
    assert decision(deny, call(method="GET")).allowed
    allow = """
    locked: {default: deny}
    p: {effect: allow, rules: [{paths: [/mcp], mcp: {methods: [tools/list, tools/call], tools: [search]}}]}
    """
    assert decision(allow, call("/mcp", body=RpcCall("tools/list"))).allowed
    assert decision(allow, call("/mcp", body=RpcCall("tools/call", "search"))).allowed
    assert not decision(allow, call("/mcp", body=RpcCall("tools/call", "delete"))).allowed
    assert not decision(allow, call("/mcp", body=RpcCall())).allowed
    assert not decision(allow, call("/mcp")).allowed
    assert not decision(allow, call("/other", body=RpcCall("tools/list"))).allowed


@pytest.mark.parametrize(
    ("request_", "denied"),
    [
        (call(body=RpcCall("SendMessage")), True),
        (call(body=RpcCall("message/send")), True),
        (call(body=RpcCall("GetTask")), False),
        (call("/a2a/v1/message:send"), True),
        (call("/lf.a2a.v1.A2AService/SendMessage"), True),
        (call("/a2a/v1/message:stream"), False),
        (call("/tasks/1:cancel"), True),
        (call("/tasks/1", "GET"), False),
    ],
)
def test_methods_of_a2a_are_known_in_every_binding(request_: AccessRequest, denied: bool) -> None:
    policies = "p: {effect: deny, rules: [{a2a: {methods: [SendMessage, CancelTask]}}]}"
    assert decision(policies, request_).allowed is not denied


def test_a_dry_run_reports_only_what_it_would_have_changed() -> None:
    policies = """
    later: {effect: deny, mode: dryRun, from: [{type: editor}]}
    locking: {default: deny, mode: dryRun}
    alice: {effect: allow, mode: dryRun, from: [{operator: alice}]}
    """
    assert decision(policies, call()).allowed
    assert decision(policies, call()).dry_run == ("later",)
    assert decision(policies, call(), OPERATOR).dry_run == ()
    stranger = decision(policies, call(), "spiffe://weft.local/agent/x/1")
    assert (stranger.allowed, stranger.dry_run) == (True, ("locking",))
    locked = policies.replace("deny, mode: dryRun}\n    alice", "deny}\n    alice")
    assert decision(locked, call(), OPERATOR).dry_run == ("alice",)


def test_a_revoked_identity_may_do_nothing() -> None:
    found = decide({}, parse_spiffe_id(EDITOR), call(), revoked={EDITOR})
    assert (found.allowed, found.policy) == (False, REVOKED)


@pytest.mark.parametrize(
    "pattern",
    [*AMBIGUOUS_PATHS, *(f"(?i){form.pattern}" for each in A2A_METHODS.values() for form in each.http)],
)
def test_envoy_is_certain_to_take_our_own_regular_expressions(pattern: str) -> None:
    assert check_regex(pattern) == pattern
