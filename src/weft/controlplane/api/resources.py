"""Resources over HTTP: apply, compare, read, delete, and the stream of changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response
from pydantic import Field

from weft.controlplane.api.access import requires
from weft.controlplane.api.body import Body
from weft.controlplane.api.context import Admitted, Audited, Context
from weft.controlplane.api.events import event, event_stream
from weft.errors import NotFound, Unavailable
from weft.model.manifest import MAX_MANIFEST_BYTES, parse_documents
from weft.model.operator import Scope
from weft.model.resource import KINDS, AnyResource, canonical_kind
from weft.resources.store import Outcome
from weft.resources.view import ResourceView

router = APIRouter(prefix="/v1", tags=["resources"])

_READERS = [Depends(requires(Scope.VIEWER))]
_WRITERS = [Depends(requires(Scope.OPERATOR))]


class Manifest(Body):
    """Resources as YAML or JSON."""

    manifest: Annotated[str, Field(max_length=MAX_MANIFEST_BYTES)]
    file: Annotated[str, Field(max_length=4096)] = ""
    """What errors call it."""


class ManifestToApply(Manifest):
    """Resources to apply."""

    dry_run: bool = False
    """Check everything, change nothing."""


class AppliedOut(Body):
    """What applying did to one resource."""

    kind: str
    name: str
    outcome: Outcome
    resource_version: str | None
    """The one it has by now; null if it was not written yet, or not at all."""


class ApplyResult(Body):
    """What applying did."""

    results: list[AppliedOut]


class DifferenceOut(Body):
    """What applying would change, as YAML."""

    kind: str
    name: str
    before: str | None
    """Null for a resource that does not exist yet."""
    after: str


class DiffResult(Body):
    """What applying would change; resources that stay as they are do not appear."""

    differences: list[DifferenceOut]


class MeshOut(Body):
    """Which mesh this is."""

    uid: str
    """Made once for a store, and kept in it: with another one nothing is left of the resources there were."""


class ResourceList(Body):
    """All resources of a kind."""

    items: list[dict[str, Any]]


@router.post("/resources", dependencies=_WRITERS)
async def apply(context: Context, changes: Audited, body: ManifestToApply) -> ApplyResult:
    """Apply a manifest: all of it, or nothing if anything in it is wrong."""
    # In a thread: a large manifest takes a good part of a second.
    documents = await asyncio.to_thread(parse_documents, body.manifest, body.file)
    try:
        applied = await context.resources.apply(documents, dry_run=body.dry_run)
    except Unavailable as error:
        if not body.dry_run:
            for document in documents:
                changes.note("apply resource", _target(document.resource), reason=f"perhaps: {error.detail}")
        raise
    for each in applied:
        if not body.dry_run and each.outcome is not Outcome.UNCHANGED:
            changes.note("apply resource", _target(each.resource), outcome=each.outcome)
    return ApplyResult(
        results=[
            AppliedOut(
                kind=each.resource.kind,
                name=each.resource.metadata.name,
                outcome=each.outcome,
                resource_version=None if body.dry_run else each.resource.metadata.resource_version,
            )
            for each in applied
        ]
    )


@router.post("/diff", dependencies=_READERS)
async def diff(context: Context, body: Manifest) -> DiffResult:
    """What applying a manifest would change."""
    documents = await asyncio.to_thread(parse_documents, body.manifest, body.file)
    differences = await context.resources.diff(documents)
    return DiffResult(differences=[DifferenceOut.model_validate(each) for each in differences])


@router.get("/resources", response_model=ResourceList, dependencies=_READERS)
async def list_all(context: Context, admitted: Admitted, *, watch: bool = False) -> ResourceList | Response:
    """All resources. With `watch=true`, as Server-Sent Events.

    The events: `put` with the resource for each that is there, then `synced`, then `put` and `removed` (with
    `kind` and `name`) as they come.
    """
    if watch:
        return event_stream(_changes(context.declared), admitted)
    return ResourceList(items=[each.document() for each in context.declared.resources.values()])


@router.get("/mesh", dependencies=_READERS)
async def mesh(context: Context) -> MeshOut:
    """Which mesh this is."""
    return MeshOut(uid=await context.resources.uid.get())


@router.get("/resources/{kind}", dependencies=_READERS)
async def list_kind(context: Context, kind: str) -> ResourceList:
    """All resources of a kind."""
    return ResourceList(items=[each.document() for each in await context.resources.list(_kind(kind))])


@router.get("/resources/{kind}/{name}", dependencies=_READERS)
async def get(context: Context, kind: str, name: str) -> dict[str, Any]:
    """One resource."""
    return (await context.resources.get(_kind(kind), name)).document()


@router.delete("/resources/{kind}/{name}", status_code=204, dependencies=_WRITERS)
async def delete(
    context: Context,
    changes: Audited,
    kind: str,
    name: str,
    resource_version: Annotated[str | None, Query(alias="resourceVersion")] = None,
) -> None:
    """Delete a resource; with `resourceVersion`, only if that is the current one (else 409)."""
    kind = _kind(kind)
    await context.resources.delete(kind, name, resource_version=resource_version)
    changes.note("delete resource", f"{kind.lower()}/{name}")


def _target(resource: AnyResource) -> str:
    """How the audit calls a resource."""
    return f"{resource.kind.lower()}/{resource.metadata.name}"


def _kind(given: str) -> str:
    kind = canonical_kind(given)
    if kind is None:
        raise NotFound(f"there is no kind {given!r}; the kinds are {', '.join(KINDS)}")
    return kind


async def _changes(view: ResourceView) -> AsyncGenerator[bytes]:
    told: Mapping[str, AnyResource] = {}
    synced = False
    while True:
        generation, current = view.generation, view.resources
        for key, resource in current.items():
            if told.get(key) != resource:
                yield event("put", json.dumps(resource.document()))
        for key in told.keys() - current.keys():
            gone = {"kind": told[key].kind, "name": told[key].metadata.name}
            yield event("removed", json.dumps(gone))
        if not synced:
            yield event("synced", "{}")
        told, synced = current, True
        await view.changed_since(generation)
