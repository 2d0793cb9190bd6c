"""Gateways over HTTP: the API keys of their callers, and what their processes need to know."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import Field

from weft.controlplane.api.access import requires
from weft.controlplane.api.authentication import CurrentCaller, Peer
from weft.controlplane.api.body import Body
from weft.controlplane.api.context import Audited, Context, CurrentMessaging
from weft.controlplane.gateways import KeyRequest
from weft.errors import Denied, NotFound
from weft.model.access import Action
from weft.model.api_key import ApiKey
from weft.model.decision import AccessRequest, AccessTarget, TargetKind
from weft.model.gateway import GatewaySpec, Rate
from weft.model.names import MAX_NAME_LENGTH
from weft.model.operator import Scope
from weft.model.spiffe import Role, parse_spiffe_id
from weft.model.task import Task, TaskState
from weft.tasks.records import record_fields

router = APIRouter(prefix="/v1/gateways", tags=["gateways"])

_ADMINS = [Depends(requires(Scope.ADMIN))]
_GATEWAYS = [Depends(requires(Scope.ADMIN, peers=[Role.AGENT]))]
"""And of these only the gateway itself: `_own` sees to that."""

MAX_TASKS = 500

MAX_PAGES = 20
"""Pages that are looked through for tasks of one submitter before an answer is given."""

GatewayName = Annotated[str, Path(max_length=MAX_NAME_LENGTH)]
Names = Annotated[tuple[Annotated[str, Field(max_length=MAX_NAME_LENGTH)], ...], Field(max_length=128)]


class KeyIn(Body):
    """What is wanted of an API key."""

    name: Annotated[str, Field(max_length=MAX_NAME_LENGTH)]
    """A DNS label; stands in the key, and in the tasks that it submits."""
    rate: Rate | None = None
    """By default what the gateway says."""
    queues: Names | None = None
    """By default all that the gateway offers; likewise agents and topics."""
    agents: Names | None = None
    topics: Names | None = None
    sees_all: bool = False
    """Whether it sees and cancels the tasks of others too."""
    expires_in: Annotated[float, Field(gt=0, le=10 * 366 * 86400.0)] | None = None
    """Seconds; if omitted, never."""


class KeyOut(Body):
    """What is known of a key: all but the key."""

    name: str
    rate: Rate | None
    queues: list[str] | None
    agents: list[str] | None
    topics: list[str] | None
    sees_all: bool
    created_at: float
    """Seconds since 1970."""
    expires_at: float | None
    """Seconds since 1970."""


class NewKey(KeyOut):
    """A key that was just made."""

    key: str
    """Told here and nowhere again."""


class KeyList(Body):
    """All keys of a gateway, by name; some may have expired."""

    items: list[KeyOut]


class GatewayConfiguration(Body):
    """What a gateway's process works by."""

    spec: dict[str, Any]
    """Of the Gateway, defaults filled in."""
    keys: list[dict[str, Any]]
    """Records of API keys, with their hashes."""
    webhook_secret: str
    """In hexadecimal."""


class RecordList(Body):
    """Records of tasks, as the store has them. There may be more even where there are few."""

    items: list[dict[str, Any]]
    next: str | None
    """Goes into `before` to get the rest; null where there is none."""


class AllowedIn(Body):
    """May somebody of the mesh, who called the gateway, use a queue or topic?"""

    caller: Annotated[str, Field(max_length=2048)]
    """A SPIFFE ID."""
    action: Action
    kind: TargetKind
    name: Annotated[str, Field(max_length=MAX_NAME_LENGTH)]


class AllowedOut(Body):
    """The answer."""

    allowed: bool
    reason: str


@router.get("/{name}/keys", dependencies=_ADMINS)
async def list_keys(context: Context, messaging: CurrentMessaging, name: GatewayName) -> KeyList:
    """The API keys of a gateway's callers."""
    since = _declared_at(context, name)
    return KeyList(items=[_out(each) for each in await messaging.gateways.keys(name, since=since)])


@router.post("/{name}/keys", status_code=201, dependencies=_ADMINS)
async def make_key(
    context: Context,
    messaging: CurrentMessaging,
    changes: Audited,
    response: Response,
    name: GatewayName,
    body: KeyIn,
) -> NewKey:
    """A new API key."""
    since = _declared_at(context, name)
    key, record = await messaging.gateways.create(name, KeyRequest(**dict(body)), since=since)
    changes.note("create api-key", f"gateway/{name}/{record.name}")
    response.headers["cache-control"] = "no-store"
    return NewKey(**_out(record).model_dump(), key=key)


@router.delete("/{name}/keys/{key}", status_code=204, dependencies=_ADMINS)
async def delete_key(
    messaging: CurrentMessaging, changes: Audited, name: GatewayName, key: GatewayName
) -> None:
    """Make an API key worthless; gateways hear of it within seconds."""
    await messaging.gateways.delete(name, key)
    changes.note("delete api-key", f"gateway/{name}/{key}")


@router.get("/{name}/configuration", dependencies=_GATEWAYS)
async def configuration(
    context: Context,
    messaging: CurrentMessaging,
    caller: CurrentCaller,
    response: Response,
    name: GatewayName,
) -> GatewayConfiguration:
    """What a gateway's process works by; for that gateway only."""
    _own(caller, name)
    secret = await messaging.gateways.webhook_secret()
    keys = await messaging.gateways.keys(name, since=_declared_at(context, name))
    response.headers["cache-control"] = "no-store"
    return GatewayConfiguration(
        spec=_spec(context, name).model_dump(mode="json", by_alias=True),
        keys=[each.model_dump(mode="json", by_alias=True) for each in keys],
        webhook_secret=secret.value.hex(),
    )


@router.post("/{name}/allowed", dependencies=_GATEWAYS)
async def allowed(
    messaging: CurrentMessaging, caller: CurrentCaller, name: GatewayName, body: AllowedIn
) -> AllowedOut:
    """Whether the policies let a member of the mesh do through a gateway what it asks of it."""
    _own(caller, name)
    target = AccessTarget(body.kind, body.name)
    decision = messaging.decide(parse_spiffe_id(body.caller), AccessRequest(body.action, target))
    return AllowedOut(allowed=decision.allowed, reason=decision.reason)


@router.get("/{name}/tasks", dependencies=_GATEWAYS)
async def list_tasks(
    messaging: CurrentMessaging,
    caller: CurrentCaller,
    name: GatewayName,
    queue: Annotated[str, Query(max_length=MAX_NAME_LENGTH)],
    state: TaskState | None = None,
    submitter: Annotated[str, Query(max_length=1024)] = "",
    limit: Annotated[int, Query(ge=1, le=MAX_TASKS)] = 100,
    before: Annotated[str | None, Query(max_length=64)] = None,
) -> RecordList:
    """The records of a queue's tasks that changed last; for the gateway that lists them.

    `submitter`: only those of whom it names; with `/` at its end, of all whose names begin so.
    """
    _own(caller, name)
    found: list[Task] = []
    for _ in range(MAX_PAGES):
        page = await messaging.tasks.list(queue, state=state, limit=limit, before=before)
        found += [each for each in page.tasks if _is_by(submitter, each)]
        before = page.next
        if before is None or len(found) >= limit:
            break
    return RecordList(items=[record_fields(each) for each in found], next=before)


def _is_by(submitter: str, task: Task) -> bool:
    if not submitter or submitter.endswith("/"):
        return task.submitter.startswith(submitter)
    return task.submitter == submitter


def _own(caller: object, gateway: str) -> None:
    if isinstance(caller, Peer) and caller.id.segments[1:2] == (gateway,):
        return
    raise Denied(f"this is for instances of gateway {gateway!r}, which show their certificate")


def _spec(context: Context, name: str) -> GatewaySpec:
    resource = context.declared.resources.get(f"gateway.{name}")
    if resource is None or not isinstance(resource.spec, GatewaySpec):
        raise NotFound(f"there is no Gateway {name[:100]!r}; see `weft get gateways`")
    return resource.spec


def _declared_at(context: Context, name: str) -> float:
    """When a Gateway was declared, in seconds since 1970. Raises NotFound."""
    _spec(context, name)
    created = context.declared.resources[f"gateway.{name}"].metadata.creation_timestamp
    return datetime.fromisoformat(created).timestamp() if created else 0.0


def _out(record: ApiKey) -> KeyOut:
    return KeyOut.model_validate(record)
