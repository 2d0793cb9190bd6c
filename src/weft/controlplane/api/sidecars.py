"""Sidecars over HTTP: who is connected, and whether they took their configuration."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from weft.controlplane import sidecars as records
from weft.controlplane.api.access import requires
from weft.controlplane.api.body import Body
from weft.controlplane.api.context import Context
from weft.model.operator import Scope

router = APIRouter(prefix="/v1/sidecars", tags=["sidecars"], dependencies=[Depends(requires(Scope.VIEWER))])


class RejectionOut(Body):
    """A configuration that a sidecar's Envoy refused; it goes on with the one it had."""

    type_url: str
    reason: str
    resources: list[str]
    at: float
    """Seconds since 1970."""


class SidecarOut(Body):
    """One connected sidecar."""

    key: str
    """Its xDS node id: `<type>.<instance>` or `caller.<id>`."""
    connected_since: float
    """Seconds since 1970."""
    in_sync: bool
    rejected: list[RejectionOut]


class SidecarList(Body):
    """All connected sidecars."""

    items: list[SidecarOut]
    settled: bool
    """Whether those connected to the replica that answers have taken over all that it knows, but for what
    they refuse: what runs now can be called from there."""


@router.get("")
async def list_sidecars(context: Context) -> SidecarList:
    """All sidecars that are connected to the control plane, by key."""
    items = [sidecar_out(each) for each in await context.sidecars.list()]
    return SidecarList(items=items, settled=context.settled())


def sidecar_out(sidecar: records.Sidecar) -> SidecarOut:
    """`sidecar` as the API shows it."""
    return SidecarOut(
        key=sidecar.key,
        connected_since=sidecar.connected_since,
        in_sync=sidecar.in_sync,
        rejected=[RejectionOut.model_validate(each) for each in sidecar.rejected.values()],
    )
