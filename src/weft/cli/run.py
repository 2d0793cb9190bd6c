"""`weft run`: any program as an agent of the mesh."""

from __future__ import annotations

import os
from typing import Annotated, NoReturn

from cyclopts import Parameter

from weft.cli.api import the_mesh
from weft.cli.options import MeshOption
from weft.cli.processes import become

NATS_VARIABLE = "WEFT_NATS"
XDS_VARIABLE = "WEFT_XDS"

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
    mesh: MeshOption = None,
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
        **_addresses(nats, xds, mesh),
    }
    arguments = [f"{flag}={value}" for flag, value in given.items() if value is not None]
    arguments += [f"--capability={each}" for each in capability] + [f"--label={each}" for each in label]
    become("weft.sidecar", [*arguments, *(["--", *command] if command else [])])


def _addresses(nats: str | None, xds: str | None, mesh: str | None) -> dict[str, str | None]:
    """Where the mesh is: as given, as the environment says, or else the one that runs here."""
    nats = nats or (None if mesh else os.environ.get(NATS_VARIABLE))
    xds = xds or (None if mesh else os.environ.get(XDS_VARIABLE))
    if nats is None or xds is None:
        here = the_mesh(mesh)
        nats, xds = nats or here.nats_url, xds or here.xds_address
    return {"--nats": nats, "--xds": xds}
