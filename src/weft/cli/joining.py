"""How a process that a command becomes gets into the mesh: where that is, and what proves who it is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from weft.cli.api import API_VARIABLE, CA_FILE_VARIABLE, control_api, the_mesh
from weft.cli.options import ControlPlane
from weft.local.commands import LOCAL_SAMPLING
from weft.local.server_trust import BUNDLE_FILE
from weft.model.local_state import mesh_directory
from weft.sidecar.arguments import (
    JOIN_TOKEN_FILE_VARIABLE,
    JOIN_TOKEN_VARIABLE,
    NATS_VARIABLE,
    SERVICE_ACCOUNT_VARIABLE,
    TRUST_BUNDLE_VARIABLE,
    XDS_VARIABLE,
)


def can_join(environ: Mapping[str, str]) -> bool:
    """Whether somebody has given what the sidecar is to prove itself with."""
    ways = (JOIN_TOKEN_VARIABLE, JOIN_TOKEN_FILE_VARIABLE, SERVICE_ACCOUNT_VARIABLE)
    return any(environ.get(each) for each in ways)


async def join_token(
    agent_type: str | None, instance: str, labels: Mapping[str, str], where: ControlPlane
) -> str:
    async with control_api(where) as api:
        return await api.join_token(agent_type, instance, labels)


def addresses(nats: str | None, xds: str | None, where: ControlPlane) -> dict[str, str | None]:
    """Where the mesh is: as given, as the environment says, or else the one that runs here."""
    named = {} if where.mesh else os.environ
    nats, xds = nats or named.get(NATS_VARIABLE), xds or named.get(XDS_VARIABLE)
    api = where.api or named.get(API_VARIABLE)
    roots = where.ca_file or _path(named.get(TRUST_BUNDLE_VARIABLE) or named.get(CA_FILE_VARIABLE))
    if nats is None or xds is None or api is None or roots is None:
        here = the_mesh(where.mesh)
        nats, xds, api = nats or here.nats_url, xds or here.xds_address, api or here.api_url
        roots = roots or mesh_directory(os.environ, here.name) / BUNDLE_FILE
    return {"--nats": nats, "--xds": xds, "--api": api, "--trust-bundle": str(roots)}


def usual_sampling(nats: str | None, xds: str | None, where: ControlPlane) -> float | None:
    """Percent of calls that are traced in a mesh that `weft up` runs here; None: as sidecars do elsewhere."""
    elsewhere = (nats, xds, os.environ.get(NATS_VARIABLE), os.environ.get(XDS_VARIABLE))
    return LOCAL_SAMPLING if where.mesh or not any(elsewhere) else None


def _path(given: str | None) -> Path | None:
    return Path(given) if given else None
