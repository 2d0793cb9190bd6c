"""Whether somebody may do something, over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field

from weft.controlplane.api.access import requires
from weft.controlplane.api.body import Body
from weft.controlplane.api.context import ApiContext, Context
from weft.controlplane.explanation import Case, Mesh, Question, explain
from weft.model.access import Action
from weft.model.operator import Scope

router = APIRouter(prefix="/v1", tags=["access"], dependencies=[Depends(requires(Scope.VIEWER))])

_Text = Annotated[str, Field(max_length=2048)]
_Short = Annotated[str, Field(max_length=128)]


class CanIn(Body):
    """May the caller do the action to the target?"""

    caller: Annotated[_Text, Field(min_length=1)]
    """`<type>`, `<type>/<id>`, `operator/<name>`, or a SPIFFE ID."""
    action: Action
    target: Annotated[_Text, Field(min_length=1)]
    """`<type>`, `capability/<name>`, `topic/<name>`, `queue/<name>` or `pool/<name>`."""
    method: _Short = ""
    """Of HTTP, for calls of agents; POST if empty."""
    path: _Text = ""
    """Likewise; `/rpc` if empty, `/mcp` for a tool."""
    rpc: _Short = ""
    """The method of MCP or A2A, for calls of agents."""
    tool: _Short = ""
    """Of MCP, likewise."""


class CaseOut(Body):
    """What holds for one of those that may be meant."""

    caller: str
    """A SPIFFE ID; one that ends in `_` is of an instance of which nothing is known."""
    target: str
    version: str
    allowed: bool
    policy: str
    """The AccessPolicy that decided; empty: there is none, and what no policy forbids is allowed."""
    reason: str
    dry_run: list[str]
    """Policies in dry-run mode that would have changed it."""


class CanOut(Body):
    """The answer."""

    allowed: bool
    """Whether all that may be meant is allowed."""
    policy: str
    reason: str
    dry_run: list[str]
    request: str
    """The HTTP request that was looked at; empty for topics, queues and pools."""
    cases: list[CaseOut]
    """All different answers, where caller or target may mean several."""
    depends: list[str]
    """Policies whose rules depend on a method, a path or a body that was not asked about."""


@router.post("/can")
async def can(context: Context, body: CanIn) -> CanOut:
    """Whether somebody may do something, and which AccessPolicy says so."""
    found = explain(Question(**body.model_dump()), mesh_of(context))
    decision = found.decision
    return CanOut(
        allowed=decision.allowed,
        policy=decision.policy,
        reason=decision.reason,
        dry_run=list(decision.dry_run),
        request=found.request,
        cases=[_case(each) for each in found.cases],
        depends=list(found.open),
    )


def mesh_of(context: ApiContext) -> Mesh:
    """What answers about access depend on, as this replica knows it now."""
    resources, instances = context.declared.resources.values(), context.instances.instances.values()
    membership = context.membership
    if membership is None:
        return Mesh(resources, instances, {})
    identities = membership.identities
    return Mesh(
        resources, instances, identities.labels, identities.is_revoked, membership.authority.trust_domain
    )


def _case(case: Case) -> CaseOut:
    return CaseOut(
        caller=case.caller,
        target=str(case.target),
        version=case.target.version,
        allowed=case.decision.allowed,
        policy=case.decision.policy,
        reason=case.decision.reason,
        dry_run=list(case.decision.dry_run),
    )
