"""What is kept of conversations, for operators; and for members, whose conversations they see."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query

from weft.contexts.contexts import TENANT_PATH
from weft.contexts.conversation import ConversationStore
from weft.contexts.records import ArtifactInfo, Message
from weft.controlplane.api.access import MEMBERS, requires
from weft.controlplane.api.authentication import CurrentCaller, Peer
from weft.controlplane.api.body import Body
from weft.controlplane.api.context import Audited, Context
from weft.controlplane.contexts import TenantContexts
from weft.errors import Unavailable
from weft.model.context_keys import MAX_ID_LENGTH
from weft.model.operator import Scope
from weft.model.tenant import DEFAULT_TENANT, MAX_TENANT_LENGTH, tenant_of

router = APIRouter(tags=["contexts"])

MAX_PAGE = 100
"""Messages in one answer."""

# Conversations hold what people said: whoever may only look at how the mesh is doing does not read them.
_OPERATORS = [Depends(requires(Scope.OPERATOR))]

ContextId = Annotated[str, Path(max_length=MAX_ID_LENGTH)]
Tenant = Annotated[str, Query(min_length=1, max_length=MAX_TENANT_LENGTH)]


class TenantOut(Body):
    """Whose contexts the caller uses."""

    tenant: str


class ContextMessage(Body):
    """One message. Times are in seconds since 1970."""

    number: int
    role: str
    content: Any
    at: float
    author: str
    """Who says that it appended it: a SPIFFE ID."""
    metadata: dict[str, Any]


class ContextArtifact(Body):
    """What is known of an artifact."""

    name: str
    media_type: str
    size: int
    """Bytes."""
    sha256: str
    at: float


class ContextOut(Body):
    """What is kept of a conversation. Times are in seconds since 1970."""

    id: str
    tenant: str
    created_at: float
    expires_at: float
    message_count: int
    messages: list[ContextMessage]
    """Some of them, oldest first."""
    state: Any
    state_revision: int
    """0 where none was written yet."""
    artifacts: list[ContextArtifact]


def _contexts(context: Context) -> TenantContexts:
    if context.contexts is None:
        raise Unavailable("this control plane was started without contexts")
    return context.contexts


CurrentContexts = Annotated[TenantContexts, Depends(_contexts)]
"""An endpoint's parameter of this type gets the TenantContexts."""


@router.get(TENANT_PATH, dependencies=[Depends(requires(Scope.VIEWER, peers=MEMBERS))])
async def get_tenant(context: Context, caller: CurrentCaller) -> TenantOut:
    """The tenant of who asks: the attested label `tenant` of its identity, else `default`."""
    if not isinstance(caller, Peer) or context.membership is None:
        return TenantOut(tenant=DEFAULT_TENANT)
    identities = context.membership.identities
    labels = identities.attested(str(caller.id))
    if labels is None:
        known = await identities.identity(caller.id)
        labels = known.labels if known is not None else {}
    return TenantOut(tenant=tenant_of(labels))


@router.get("/v1/contexts/{context_id:path}", dependencies=_OPERATORS)
async def get_context(
    contexts: CurrentContexts,
    changes: Audited,
    context_id: ContextId,
    tenant: Tenant = DEFAULT_TENANT,
    after: Annotated[int, Query(ge=-MAX_PAGE, le=2**31)] = -MAX_PAGE,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = MAX_PAGE,
) -> ContextOut:
    """What is kept of a conversation, with the messages behind number `after`; negative: the last so many."""
    conversation = contexts.of(tenant).conversation(context_id)
    document = await _document(conversation, tenant, after, limit)
    changes.note("read context", f"context/{context_id[:128]}", tenant=tenant)
    return document


@router.delete("/v1/contexts/{context_id:path}", status_code=204, dependencies=_OPERATORS)
async def delete_context(
    contexts: CurrentContexts, changes: Audited, context_id: ContextId, tenant: Tenant = DEFAULT_TENANT
) -> None:
    """Forget a conversation, all of it."""
    await contexts.of(tenant).conversation(context_id).delete()
    changes.note("delete context", f"context/{context_id[:128]}", tenant=tenant)


async def _document(conversation: ConversationStore, tenant: str, after: int, limit: int) -> ContextOut:
    facts = await conversation.about()
    state = await conversation.state()
    return ContextOut(
        id=conversation.id,
        tenant=tenant,
        created_at=facts.created_at,
        expires_at=facts.expires_at,
        message_count=await conversation.count(),
        messages=[_message(each) for each in await conversation.messages(after, limit)],
        state=state.value,
        state_revision=state.revision,
        artifacts=[_artifact(each) for each in await conversation.artifacts()],
    )


def _message(message: Message) -> ContextMessage:
    return ContextMessage(
        number=message.number,
        role=message.role,
        content=message.content,
        at=message.at,
        author=message.author,
        metadata=dict(message.metadata),
    )


def _artifact(info: ArtifactInfo) -> ContextArtifact:
    return ContextArtifact(
        name=info.name, media_type=info.media_type, size=info.size, sha256=info.sha256, at=info.at
    )
