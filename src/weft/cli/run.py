"""`weft run`: any program as an agent of the mesh."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated, NoReturn

from cyclopts import Parameter

from weft.cli.joining import addresses, can_join, join_token, usual_sampling
from weft.cli.options import ControlPlane, InstanceOption, LogLevelOption, NatsOption, XdsOption
from weft.cli.processes import become
from weft.model.event_format import EventFormat
from weft.sidecar.arguments import JOIN_TOKEN_VARIABLE, parse_label
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
    id_: InstanceOption = None,
    capability: Annotated[_Repeated, Parameter(help="What it can do; may be repeated.")] = (),
    version: Annotated[str | None, Parameter(help="Its version.")] = None,
    label: Annotated[_Repeated, Parameter(help="NAME=VALUE; may be repeated.")] = (),
    weight: Annotated[
        int | None, Parameter(help="Share of the calls where they are weighted, 1 to 1000.")
    ] = None,
    protocol: Annotated[
        str | None, Parameter(help="What it speaks: http1, h2c, a2a, mcp or mcp-stdio.")
    ] = None,
    mcp_path: Annotated[
        str | None, Parameter(help="Where an agent that speaks mcp takes requests (default: /mcp).")
    ] = None,
    port: Annotated[
        int | None, Parameter(help="Its own port (default: one is chosen and passed as PORT).")
    ] = None,
    consume: Annotated[
        _Repeated,
        Parameter(help="QUEUE[=CONCURRENCY] whose tasks it gets at POST /tasks; may be repeated."),
    ] = (),
    subscribe: Annotated[
        _Repeated,
        Parameter(help="TOPIC, or pattern, whose events it gets at POST /events; may be repeated."),
    ] = (),
    subscribe_each: Annotated[
        _Repeated,
        Parameter(help="The same, but every instance gets each event; may be repeated."),
    ] = (),
    event_format: Annotated[
        EventFormat | None,
        Parameter(help="How events are posted: CloudEvents (binary, structured), or {topic, event} (mesh)."),
    ] = None,
    health_path: Annotated[
        str | None,
        Parameter(
            help="Where it says how it is (default: /health; a2a: its card; mcp: a connection is enough); "
            "empty: a connection is enough."
        ),
    ] = None,
    health_interval: Annotated[float | None, Parameter(help="Seconds between health checks.")] = None,
    drain_timeout: Annotated[
        float | None, Parameter(help="Seconds that calls in flight have to end.")
    ] = None,
    region: Annotated[str | None, Parameter(help="Where it runs.")] = None,
    zone: Annotated[str | None, Parameter(help="Where in the region.")] = None,
    trace_sampling: Annotated[
        float | None,
        Parameter(
            help="Percent of the calls that begin a trace, of which spans are kept (default: 1; in a mesh "
            "that runs here: 100)."
        ),
    ] = None,
    nats: NatsOption = None,
    xds: XdsOption = None,
    log_level: LogLevelOption = None,
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
        "--mcp-path": mcp_path,
        "--port": port,
        "--event-format": event_format,
        "--health-path": health_path,
        "--health-interval": health_interval,
        "--drain-timeout": drain_timeout,
        "--region": region,
        "--zone": zone,
        "--trace-sampling": usual_sampling(nats, xds, where) if trace_sampling is None else trace_sampling,
        "--log-level": log_level,
        **addresses(nats, xds, where),
    }
    environ = dict(os.environ)
    if not can_join(environ):
        labels = dict(parse_label(each) for each in label)
        instance = given["--id"] = id_ or draw_id(type_)
        environ[JOIN_TOKEN_VARIABLE] = asyncio.run(join_token(type_, instance, labels, where))
    arguments = [f"{flag}={value}" for flag, value in given.items() if value is not None]
    repeated = {
        "--capability": capability,
        "--label": label,
        "--consume": consume,
        "--subscribe": subscribe,
        "--subscribe-each": subscribe_each,
    }
    arguments += [f"{flag}={value}" for flag, values in repeated.items() for value in values]
    become("weft.sidecar", [*arguments, *(["--", *command] if command else [])], environ)
