"""Instances over HTTP: discovery, one instance, and the stream of changes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from weft.controlplane.api.access import MEMBERS, requires
from weft.controlplane.api.body import Body
from weft.controlplane.api.context import Admitted, Context
from weft.controlplane.api.events import event, event_stream
from weft.controlplane.api.sidecars import SidecarOut, sidecar_out
from weft.errors import InvalidRequest, NotFound
from weft.model import agent as model
from weft.model.operator import Scope
from weft.registry.discovery import discover
from weft.registry.view import ChangeKind, InstanceChange, View

router = APIRouter(
    prefix="/v1/agents",
    tags=["agents"],
    dependencies=[Depends(requires(Scope.VIEWER, peers=MEMBERS))],
)

ANY_STATUS = "any"
MAX_PAGE = 1000
MAX_CONDITIONS = 64


class LocalityOut(Body):
    """Where an instance runs."""

    region: str
    zone: str


class InstanceOut(Body):
    """One running agent."""

    id: str
    type: str
    endpoint: str
    status: model.Status
    capabilities: list[str]
    version: str
    labels: dict[str, str]
    locality: LocalityOut
    weight: int
    in_flight: int
    started_at: float
    """Seconds since 1970."""
    reason: str


class InstanceDetail(InstanceOut):
    """One running agent, with the state of its sidecar's configuration."""

    sync: SidecarOut | None
    """Null while its sidecar is not connected to the control plane."""


class InstancePage(Body):
    """Some of the instances that match, by key."""

    items: list[InstanceOut]
    next: str | None
    """Goes into `after` to get the rest; null where there is none."""


def instance_query(
    type_: Annotated[str | None, Query(alias="type")] = None,
    capability: Annotated[list[str] | None, Query(max_length=MAX_CONDITIONS)] = None,
    version: str | None = None,
    label: Annotated[list[str] | None, Query(max_length=MAX_CONDITIONS)] = None,
    status: Annotated[list[str] | None, Query(max_length=MAX_CONDITIONS)] = None,
) -> model.Query:
    """The conditions in a query string: all must hold. By default only healthy instances match.

    `capability`, `label` (as `key=value`) and `status` may be given repeatedly; `status=any` admits all.
    """
    return model.Query(
        type=type_,
        capabilities=frozenset(capability or ()),
        version=version,
        labels=dict(_label(each) for each in label or ()),
        statuses=_statuses(status),
    )


Conditions = Annotated[model.Query, Depends(instance_query)]


@router.get("", response_model=InstancePage)
async def list_agents(
    context: Context,
    query: Conditions,
    admitted: Admitted,
    *,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
    after: str = "",
    watch: bool = False,
) -> InstancePage | Response:
    """Discover instances. With `watch=true`, as Server-Sent Events.

    The events: `added` for each that is there, then `synced`, then `added`, `changed` and `removed` as they
    come; the data is the instance.
    """
    if watch:
        return event_stream(_changes(context.instances, query), admitted)
    page = discover(context.instances.instances.values(), query, limit=limit, after=after)
    return InstancePage(items=[instance_out(each) for each in page.instances], next=page.next)


@router.get("/{type_}/{id_}")
async def get_agent(context: Context, type_: str, id_: str) -> InstanceDetail:
    """One instance, with the state of its sidecar."""
    key = f"{type_}.{id_}"
    instance = context.instances.instances.get(key)
    if instance is None:
        raise NotFound(f"no instance {id_!r} of type {type_!r} is registered; see 'weft agents'")
    sidecar = await context.sidecars.get(key)
    sync = sidecar_out(sidecar) if sidecar else None
    return InstanceDetail(**instance_out(instance).model_dump(), sync=sync)


def instance_out(instance: model.Instance) -> InstanceOut:
    """`instance` as the API shows it."""
    return InstanceOut(
        id=instance.id,
        type=instance.type,
        endpoint=instance.endpoint,
        status=instance.status,
        capabilities=sorted(instance.capabilities),
        version=instance.version,
        labels=dict(instance.labels),
        locality=LocalityOut.model_validate(instance.locality),
        weight=instance.weight,
        in_flight=instance.in_flight,
        started_at=instance.started_at,
        reason=instance.reason,
    )


async def _changes(instances: View, query: model.Query) -> AsyncGenerator[bytes]:
    """Instances that begin to match are added, those that no longer do are removed."""
    told: set[str] = set()
    async with instances.subscribe() as batches:
        for change in await anext(batches):
            if (name := _told_as(change, query, told)) is not None:
                yield _instance_event(name, change.instance)
        yield event("synced", "{}")
        async for batch in batches:
            for change in batch:
                if (name := _told_as(change, query, told)) is not None:
                    yield _instance_event(name, change.instance)


def _told_as(change: InstanceChange, query: model.Query, told: set[str]) -> str | None:
    """What a change is to a watcher of `query` who was `told` of some keys; None if nothing."""
    key = change.instance.key
    if change.kind is ChangeKind.REMOVED or not query.matches(change.instance):
        if key not in told:
            return None
        told.remove(key)
        return ChangeKind.REMOVED
    if key in told:
        return ChangeKind.CHANGED
    told.add(key)
    return ChangeKind.ADDED


def _instance_event(name: str, instance: model.Instance) -> bytes:
    return event(name, instance_out(instance).model_dump_json(by_alias=True))


def _label(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise InvalidRequest(f"label {text!r} is not of the form key=value")
    return key, value


def _statuses(given: list[str] | None) -> frozenset[model.Status]:
    if given is None:
        return frozenset({model.Status.HEALTHY})
    if ANY_STATUS in given:
        return frozenset()
    try:
        return frozenset(model.Status(each) for each in given)
    except ValueError as error:
        known = ", ".join([*model.Status, ANY_STATUS])
        raise InvalidRequest(f"{error}; the statuses are {known}") from error
