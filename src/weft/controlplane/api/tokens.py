"""Operators' tokens over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field

from weft.controlplane.api.access import requires
from weft.controlplane.api.authentication import CurrentCaller
from weft.controlplane.api.body import Body
from weft.controlplane.api.context import Audited, CurrentAccess
from weft.model.operator import DEFAULT_LIFETIME, MAX_LIFETIME, MIN_LIFETIME, Scope

router = APIRouter(prefix="/v1/tokens", tags=["tokens"], dependencies=[Depends(requires(Scope.ADMIN))])


class TokenToMake(Body):
    """What is wanted of a token."""

    name: Annotated[str, Field(max_length=63)]
    """A DNS label, by which the audit calls its holder."""
    scope: Scope
    expires_in: Annotated[float, Field(ge=MIN_LIFETIME, le=MAX_LIFETIME)] = DEFAULT_LIFETIME
    """Seconds."""


class TokenOut(Body):
    """What is known of a token."""

    name: str
    scope: Scope
    created: float
    """Seconds since 1970."""
    expires: float
    """Seconds since 1970."""
    created_by: str


class NewToken(TokenOut):
    """A token that was just made."""

    token: str
    """Told here and nowhere again."""


class TokenList(Body):
    """All tokens, by name; some may have expired."""

    items: list[TokenOut]


@router.post("", status_code=201)
async def make(access: CurrentAccess, caller: CurrentCaller, changes: Audited, body: TokenToMake) -> NewToken:
    """Make a token. Only an admin can, so none has a higher scope than who made it."""
    token, record = await access.tokens.create(
        body.name, body.scope, created_by=caller.who, lifetime=body.expires_in
    )
    changes.note("make token", f"token/{record.name}", scope=record.scope)
    return NewToken(token=token, **TokenOut.model_validate(record).model_dump())


@router.get("")
async def list_all(access: CurrentAccess) -> TokenList:
    """All tokens, by name."""
    return TokenList(items=[TokenOut.model_validate(each) for each in access.tokens.records])


@router.delete("/{name}", status_code=204)
async def revoke(access: CurrentAccess, changes: Audited, name: str) -> None:
    """Make a token worthless, at once."""
    await access.tokens.revoke(name)
    changes.note("revoke token", f"token/{name}")
