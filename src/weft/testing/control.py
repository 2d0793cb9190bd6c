"""The part of the control plane's API that agents ask: who is in the mesh, and what they can do."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from weft.model.agent import Instance, Query, Status
from weft.model.inbox import inbox_queue
from weft.sdk.call_budget import TREES_PATH
from weft.sdk.directory import ANY_STATUS, ChangeKind, InstancePage, InstanceRecord
from weft.sdk.sse import encode_event
from weft.sdk.wire import AGENTS_PATH, EVENT_STREAM, INBOXES_PATH, JSON
from weft.testing.cards import card_routes
from weft.testing.members import Members, Step

MAX_PAGE = 1000


def control_app(members: Members) -> Starlette:
    """The API over `members`."""

    async def agents(request: Request) -> Response:
        query = read_query(request.query_params)
        if request.query_params.get("watch") == "true":
            return StreamingResponse(_watch(members, query), media_type=EVENT_STREAM)
        found = [instance for instance in members.instances() if query.matches(instance)]
        return Response(_page(found, request.query_params).model_dump_json(by_alias=True), media_type=JSON)

    async def inbox(request: Request) -> Response:
        return JSONResponse({"queue": inbox_queue(request.path_params["type"])})  # it is there already

    async def tree(_request: Request) -> Response:
        return JSONResponse({"items": []})  # nobody here calls models by way of a scheduler

    return Starlette(
        routes=[
            Route(f"{TREES_PATH}/{{trace}}", tree),
            Route(AGENTS_PATH, agents),
            Route(f"{INBOXES_PATH}/{{type}}", inbox, methods=["PUT"]),
            *card_routes(members),
        ]
    )


def read_query(parameters: QueryParams) -> Query:
    """The query that the parameters of a URL make."""
    statuses = parameters.getlist("status") or [Status.HEALTHY]
    return Query(
        type=parameters.get("type"),
        capabilities=frozenset(parameters.getlist("capability")),
        version=parameters.get("version"),
        labels=dict(label.split("=", 1) for label in parameters.getlist("label")),
        statuses=frozenset() if ANY_STATUS in statuses else frozenset(map(Status, statuses)),
    )


def _page(found: list[Instance], parameters: QueryParams) -> InstancePage:
    limit = min(int(parameters.get("limit", MAX_PAGE)), MAX_PAGE)
    rest = [instance for instance in found if instance.key > parameters.get("after", "")]
    items = [InstanceRecord.of(instance) for instance in rest[:limit]]
    return InstancePage(items=items, next=rest[limit - 1].key if len(rest) > limit else None)


async def _watch(members: Members, query: Query) -> AsyncGenerator[bytes, None]:
    with members.watching() as steps:
        for instance in members.instances():
            if query.matches(instance):
                yield _event(ChangeKind.ADDED, instance)
        yield encode_event(b"{}", "synced")
        while True:
            for kind, instance in _seen(query, await steps.get()):
                yield _event(kind, instance)


def _seen(query: Query, step: Step) -> list[tuple[ChangeKind, Instance]]:
    """What a change looks like to someone who sees only what matches `query`."""
    before, after = (each if each is not None and query.matches(each) else None for each in step)
    if after is None:
        return [] if before is None else [(ChangeKind.REMOVED, before)]
    return [(ChangeKind.ADDED if before is None else ChangeKind.CHANGED, after)]


def _event(kind: ChangeKind, instance: Instance) -> bytes:
    return encode_event(InstanceRecord.of(instance).model_dump_json(by_alias=True).encode(), kind.value)
