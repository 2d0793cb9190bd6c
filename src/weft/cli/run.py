"""`weft run`: any program as an agent of the mesh."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NoReturn

from cyclopts import Parameter

from weft.cli.api import API_VARIABLE, CA_FILE_VARIABLE, control_api, the_mesh
from weft.cli.options import ControlPlane
from weft.cli.processes import become
from weft.local.server_trust import BUNDLE_FILE
from weft.model.local_state import mesh_directory
from weft.sidecar.arguments import (
    JOIN_TOKEN_FILE_VARIABLE,
    JOIN_TOKEN_VARIABLE,
    NATS_VARIABLE,
    SERVICE_ACCOUNT_VARIABLE,
    TRUST_BUNDLE_VARIABLE,
    XDS_VARIABLE,
    parse_label,
)
from weft.sidecar.settings import draw_id

_HERE = ControlPlane()

_Repeated = Annotated[tuple[str, ...], Parameter(negative="", show_default=False)]


def run(
    *command: Annotated[
        str, Parameter(help="The program and its arguments, after `--`.", allow_leading_hyphen=True)
    ],
    type_: Annotated[
        str | None,
        Parameter(name="--type", help="What kind of agent it is; without it, it only calls others."),
    ] = None,
    id_: Annotated[str | None, Parameter(name="--id", help="Name of the instance (default: drawn).")] = None,
    capability: Annotated[_Repeated, Parameter(help="What it can do; may be repeated.")] = (),
    version: Annotated[str | None, Parameter(help="Its version.")] = None,
    label: Annotated[_Repeated, Parameter(help="NAME=VALUE; may be repeated.")] = (),
    weight: Annotated[
        int | None, Parameter(help="Share of the calls where they are weighted, 1 to 1000.")
    ] = None,
    protocol: Annotated[str | None, Parameter(help="What it speaks: http1 or h2c.")] = None,
    port: Annotated[
        int | None, Parameter(help="Its own port (default: one is chosen and passed as PORT).")
    ] = None,
    health_path: Annotated[
        str | None,
        Parameter(help="Where it says how it is (default: /health); empty: a connection is enough."),
    ] = None,
    health_interval: Annotated[float | None, Parameter(help="Seconds between health checks.")] = None,
    drain_timeout: Annotated[
        float | None, Parameter(help="Seconds that calls in flight have to end.")
    ] = None,
    region: Annotated[str | None, Parameter(help="Where it runs.")] = None,
    zone: Annotated[str | None, Parameter(help="Where in the region.")] = None,
    nats: Annotated[
        str | None, Parameter(help="NATS servers, URL,... (default: $WEFT_NATS, or the mesh's here).")
    ] = None,
    xds: Annotated[
        str | None, Parameter(help="Control planes, HOST:PORT,... (default: $WEFT_XDS, or the mesh's here).")
    ] = None,
    log_level: Annotated[str | None, Parameter(help="debug, info, warning or error.")] = None,
    where: ControlPlane = _HERE,
) -> NoReturn:
    """Run a program as an agent, with a sidecar beside it, and return its exit code.

    `weft run --type summarizer --capability summarize -- python agent.py`

    The program is told its port as PORT and the mesh as HTTP_PROXY, so that it reaches others as
    `http://<type>.mesh/`. Without `--` and a command, `--port` says where an agent listens that runs already.
    `weft sidecar --help` lists further options, for use with `weft sidecar`.
    """
    given = {
        "--type": type_,
        "--id": id_,
        "--version": version,
        "--weight": weight,
        "--protocol": protocol,
        "--port": port,
        "--health-path": health_path,
        "--health-interval": health_interval,
        "--drain-timeout": drain_timeout,
        "--region": region,
        "--zone": zone,
        "--log-level": log_level,
        **_addresses(nats, xds, where),
    }
    environ = dict(os.environ)
    if not _can_join(environ):
        labels = dict(parse_label(each) for each in label)
        instance = given["--id"] = id_ or draw_id(type_)
        environ[JOIN_TOKEN_VARIABLE] = asyncio.run(_join_token(type_, instance, labels, where))
    arguments = [f"{flag}={value}" for flag, value in given.items() if value is not None]
    arguments += [f"--capability={each}" for each in capability] + [f"--label={each}" for each in label]
    become("weft.sidecar", [*arguments, *(["--", *command] if command else [])], environ)


def _can_join(environ: Mapping[str, str]) -> bool:
    """Whether somebody has given what the sidecar is to prove itself with."""
    ways = (JOIN_TOKEN_VARIABLE, JOIN_TOKEN_FILE_VARIABLE, SERVICE_ACCOUNT_VARIABLE)
    return any(environ.get(each) for each in ways)


async def _join_token(
    agent_type: str | None, instance: str, labels: Mapping[str, str], where: ControlPlane
) -> str:
    async with control_api(where) as api:
        return await api.join_token(agent_type, instance, labels)


def _addresses(nats: str | None, xds: str | None, where: ControlPlane) -> dict[str, str | None]:
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


def _path(given: str | None) -> Path | None:
    return Path(given) if given else None
