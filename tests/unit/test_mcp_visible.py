"""What a caller sees of the tools is what the policies let it call: no more, and no less."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from weft.controlplane.mcp.catalogue import catalogue
from weft.controlplane.mcp.visible import Asking, visible
from weft.model.access import AccessPolicySpec, Action
from weft.model.agent import Instance, Status
from weft.model.decision import AccessPolicies, AccessRequest, AccessTarget, RpcCall, TargetKind, decide
from weft.model.offer import McpGeneration, McpOffer, Offer
from weft.model.spiffe import SpiffeId, agent_id, operator_id

CALLERS = [
    agent_id("weft.local", "planner", "p-1"),
    agent_id("weft.local", "coder", "c-1"),
    operator_id("weft.local", "anna", "door"),
]
TOOLS = ("read", "write")
LABELS = {"team": "a"}
TARGETS = {
    "files": [
        AccessTarget(TargetKind.AGENT, "files", "1", frozenset({"fast"})),
        AccessTarget(TargetKind.AGENT, "files", "2"),
    ],
    "web": [AccessTarget(TargetKind.AGENT, "web")],
}
OFFER = Offer(
    mcp=McpOffer(
        McpGeneration.STATELESS,
        tools=tuple({"name": each, "inputSchema": {"type": "object"}} for each in TOOLS),
        prompts=({"name": "ask"},),
        resources=({"uri": "mem://a"},),
        templates=({"uriTemplate": "mem://{id}"},),
    )
)
CATALOGUE = catalogue(
    {name: [(Instance("one", name, "127.0.0.1:1", Status.HEALTHY), OFFER)] for name in TARGETS}
)


def some(*values: Any) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=2)


MCP = some(*TOOLS).map(lambda it: {"tools": it}) | some("tools/call", "prompts/get", "resources/read").map(
    lambda it: {"methods": it}
)
RULES = (
    MCP.map(lambda it: {"mcp": it, "paths": ["/mcp"]})
    | MCP.map(lambda it: {"mcp": it})
    | st.sampled_from([{"paths": ["/mcp"]}, {"paths": ["/rpc"]}, {"methods": ["POST"]}, {"methods": ["GET"]}])
)
POLICIES = st.builds(
    lambda **fields: AccessPolicySpec.model_validate(fields),
    **{
        "from": some({"type": "planner"}, {"type": "coder"}, {"operator": "anna"}, {"labels": LABELS})
        | st.just([]),
        "to": some(
            {"type": "files"}, {"type": "files", "version": "2"}, {"capability": "fast"}, {"type": "web"}
        )
        | st.just([]),
        "effect": st.sampled_from(["allow", "deny"]),
        "mode": st.sampled_from(["enforce", "enforce", "dryRun"]),
        "rules": st.lists(RULES, max_size=2),
    },
)
DEFAULTS = st.sampled_from(["allow", "deny"]).map(lambda it: AccessPolicySpec.model_validate({"default": it}))


@given(
    policies=st.lists(POLICIES, max_size=4),
    default=st.none() | DEFAULTS,
    caller=st.sampled_from(CALLERS),
    labels=st.sampled_from([{}, LABELS]),
    revoked=st.booleans(),
)
def test_what_is_visible_is_what_may_be_called_on_some_instance(
    policies: list[AccessPolicySpec],
    default: AccessPolicySpec | None,
    caller: SpiffeId,
    labels: dict[str, str],
    revoked: bool,
) -> None:
    named = {f"p{index}": each for index, each in enumerate([*policies, *([default] if default else [])])}
    asking = Asking(caller, named, labels, revoked=revoked)

    seen = visible(CATALOGUE, TARGETS, asking)

    def admitted(server: str, method: str, name: str = "") -> bool:
        return any(may(named, asking, target, RpcCall(method, name)) for target in TARGETS[server])

    assert [(each.server.type, each.original) for each in seen.tools] == [
        (server, name) for server in TARGETS for name in TOOLS if admitted(server, "tools/call", name)
    ]
    assert [each.server.type for each in seen.prompts] == [
        server for server in TARGETS if admitted(server, "prompts/get", "ask")
    ]
    # Both have a resource of this URI: the first server's is the one that there is.
    read = ["files"] if admitted("files", "resources/read") else []
    assert [each.server.type for each in seen.resources] == read
    assert [each.server.type for each in seen.templates] == read
    assert seen.notes == {}


def may(policies: AccessPolicies, asking: Asking, target: AccessTarget, call: RpcCall) -> bool:
    request = AccessRequest(Action.CALL, target, "POST", "/mcp", call)
    revoked = [str(asking.caller)] if asking.revoked else []
    return decide(policies, asking.caller, request, labels=asking.labels, revoked=revoked).allowed
