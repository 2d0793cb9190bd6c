"""`weft gateway`: the API keys of callers from outside, and instances run by hand."""

from __future__ import annotations

import asyncio
import os
import re
import time
from typing import Annotated, Any, NoReturn

from cyclopts import App, Parameter

from weft.cli.api import control_api
from weft.cli.joining import addresses, can_join, join_token
from weft.cli.options import (
    ControlPlane,
    InstanceOption,
    LogLevelOption,
    NatsOption,
    Output,
    OutputOption,
    XdsOption,
)
from weft.cli.processes import become
from weft.cli.resources import read_resource
from weft.cli.show import age, duration, print_json, print_table
from weft.cli.times import seconds
from weft.errors import InvalidRequest
from weft.local.gateway_run import GATEWAY_COMMAND, gateway_arguments
from weft.local.messaging_control import MessagingApi
from weft.model.duration import format_duration
from weft.model.gateway import GatewaySpec
from weft.sidecar.arguments import JOIN_TOKEN_VARIABLE
from weft.sidecar.settings import draw_id

app = App(name="gateway", help="Handle the API keys of a gateway's callers, or run an instance of it.")

_HERE = ControlPlane()

_Gateway = Annotated[str, Parameter(help="The gateway's name.")]
_Key = Annotated[str, Parameter(help="The key's name.")]
_Names = Annotated[tuple[str, ...], Parameter(negative="", show_default=False)]

_RATE = re.compile(r"([0-9]{1,9})/([0-9.]*[a-z]+)")


@app.command
async def keys(
    gateway: _Gateway, /, *, output: OutputOption = Output.TABLE, where: ControlPlane = _HERE
) -> None:
    """List the API keys of a gateway's callers: what each may use, how much, until when."""
    async with control_api(where) as api:
        found = await MessagingApi(api).keys(gateway)
    if output is Output.JSON:
        print_json(found)
        return
    columns = ("NAME", "RATE", "QUEUES", "AGENTS", "TOPICS", "SEES ALL", "AGE", "EXPIRES")
    print_table(columns, (_row(each) for each in found), none=f"gateway {gateway} has no API keys")


@app.command
async def create_key(
    gateway: _Gateway,
    name: Annotated[str, Parameter(help="Who calls: stands in the key, and in the tasks that it submits.")],
    /,
    *,
    rate: Annotated[
        str | None, Parameter(help="How much it may ask for: 100/s, 5000/h, 10/30s (default: the gateway's).")
    ] = None,
    queue: Annotated[
        _Names, Parameter(help="A queue that it may use; may be repeated (default: all of the gateway's).")
    ] = (),
    agent: Annotated[
        _Names,
        Parameter(help="An agent type that it may call; may be repeated (default: all of the gateway's)."),
    ] = (),
    topic: Annotated[
        _Names, Parameter(help="A topic to which it may publish; may be repeated (default: all).")
    ] = (),
    sees_all: Annotated[
        bool, Parameter(help="It sees and cancels others' tasks too.", negative="", show_default=False)
    ] = False,
    expires_in: Annotated[
        str | None, Parameter(help="How long it is good: 15m, 12h, 90d (default: for ever).")
    ] = None,
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """Make an API key and print it, this once: it is not kept. Only its hash is.

    `weft gateway create-key public shop --queue orders --rate 100/s --expires-in 90d`
    """
    wanted: dict[str, Any] = {
        "name": name,
        "rate": None if rate is None else _rate(rate),
        # Named none: all that the gateway offers, as the API has it.
        "queues": list(queue) or None,
        "agents": list(agent) or None,
        "topics": list(topic) or None,
        "seesAll": sees_all,
        "expiresIn": None if expires_in is None else seconds(expires_in, "--expires-in"),
    }
    async with control_api(where) as api:
        made = await MessagingApi(api).create_key(gateway, wanted)
    if output is Output.JSON:
        print_json(made)
    else:
        print(made["key"])


@app.command
async def delete_key(gateway: _Gateway, name: _Key, /, *, where: ControlPlane = _HERE) -> None:
    """Make an API key worthless; instances of the gateway know it within seconds."""
    async with control_api(where) as api:
        await MessagingApi(api).delete_key(gateway, name)
    print(f"key/{name} of gateway/{gateway} deleted")


@app.command
def run(
    name: Annotated[str, Parameter(help="Of a Gateway that is declared.")],
    /,
    *,
    host: Annotated[str | None, Parameter(help="Address where it listens (default: as declared).")] = None,
    port: Annotated[int | None, Parameter(help="Port where it listens (default: as declared).")] = None,
    id_: InstanceOption = None,
    nats: NatsOption = None,
    xds: XdsOption = None,
    log_level: LogLevelOption = None,
    where: ControlPlane = _HERE,
) -> NoReturn:
    """Run an instance of a declared Gateway, with its sidecar, until Ctrl-C.

    `weft gateway run public --port 8081`

    `weft up` runs as many as the Gateway's `replicas` say by itself; with 0 all are run by hand.
    """
    instance = id_ or draw_id(name)
    environ = dict(os.environ)
    spec = asyncio.run(_declared(name, where))
    if not can_join(environ):
        environ[JOIN_TOKEN_VARIABLE] = asyncio.run(join_token(name, instance, {}, where))
    given = {"--id": instance, "--log-level": log_level, **addresses(nats, xds, where)}
    arguments = [f"{flag}={value}" for flag, value in given.items() if value is not None]
    arguments += gateway_arguments(name, host or spec.host, port or spec.port)
    become("weft.sidecar", [*arguments, "--", *GATEWAY_COMMAND], environ)


async def _declared(name: str, where: ControlPlane) -> GatewaySpec:
    async with control_api(where) as api:
        resource = read_resource(await api.resource("gateways", name))
    assert isinstance(resource.spec, GatewaySpec)  # noqa: S101 -- its kind says so
    return resource.spec


def _rate(text: str) -> dict[str, Any]:
    """The rate in `100/s` or `10/30s`, as the API takes it. Raises InvalidRequest."""
    match = _RATE.fullmatch(text)
    if match is None:
        raise InvalidRequest(f"--rate {text[:50]!r} is no rate: use 100/s, 5000/h, 10/30s")
    requests, per = match.groups()
    length = seconds(per if per[0].isdigit() else f"1{per}", "--rate")
    return {"requests": int(requests), "per": format_duration(length)}


def _row(key: dict[str, Any]) -> tuple[str, ...]:
    rate = key["rate"]
    return (
        key["name"],
        _rate_text(rate) if rate else "",
        *(_scope(key[each]) for each in ("queues", "agents", "topics")),
        "yes" if key["seesAll"] else "",
        age(key["createdAt"]),
        _left(key["expiresAt"]),
    )


def _rate_text(rate: dict[str, Any]) -> str:
    per = str(rate["per"])
    return f"{rate['requests']}/{per[1:] if per in {'1s', '1m', '1h'} else per}"


def _scope(names: list[str] | None) -> str:
    return "all" if names is None else ", ".join(names) or "none"


def _left(expires: float | None) -> str:
    if expires is None:
        return "never"
    left = expires - time.time()
    return f"in {duration(left)}" if left > 0 else "expired"
