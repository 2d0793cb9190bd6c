"""`weft token`: the tokens by which operators prove themselves to the control plane."""

from __future__ import annotations

import time
from typing import Annotated

from cyclopts import App, Parameter

from weft.cli.api import control_api
from weft.cli.options import ControlPlane, Output, OutputOption
from weft.cli.show import age, duration, print_json, print_table
from weft.errors import InvalidRequest
from weft.model.duration import parse_duration
from weft.model.operator import Scope, parse_lifetime
from weft.sidecar.arguments import parse_label

app = App(name="token", help="Make, list and revoke tokens: of operators, and for agents that join.")

_HERE = ControlPlane()


@app.command
async def create(
    name: Annotated[str, Parameter(help="By which the audit calls its holder.")],
    /,
    *,
    scope: Annotated[
        Scope,
        Parameter(
            help="viewer reads; operator declares resources too; admin manages tokens and identities too."
        ),
    ] = Scope.VIEWER,
    expires: Annotated[str, Parameter(help="How long it is good: 15m, 12h, 30d; up to 365d.")] = "90d",
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """Make a token and print it, this once: it is not kept. Only its hash is."""
    lifetime = parse_lifetime(expires)
    async with control_api(where) as api:
        made = await api.make_token(name, scope, lifetime)
    if output is Output.JSON:
        print_json(made)
    else:
        print(made["token"])


@app.command(name="list")
async def list_all(*, output: OutputOption = Output.TABLE, where: ControlPlane = _HERE) -> None:
    """List the tokens: whose they are, what they allow, until when."""
    async with control_api(where) as api:
        tokens = await api.tokens()
    if output is Output.JSON:
        print_json(tokens)
        return
    rows = (
        (each["name"], each["scope"], age(each["created"]), _left(each["expires"]), each["createdBy"])
        for each in tokens
    )
    print_table(("NAME", "SCOPE", "AGE", "EXPIRES", "MADE BY"), rows, none="there are no tokens")


@app.command
async def revoke(
    name: Annotated[str, Parameter(help="Its name.")], /, *, where: ControlPlane = _HERE
) -> None:
    """Make a token worthless, at once."""
    async with control_api(where) as api:
        await api.revoke_token(name)
    print(f"token/{name} revoked")


@app.command
async def join(
    instance: Annotated[str, Parameter(help="The id of the instance that may join.")],
    /,
    *,
    type_: Annotated[
        str | None,
        Parameter(name="--type", help="Its type; without it, it only calls others, in your name."),
    ] = None,
    label: Annotated[
        tuple[str, ...],
        Parameter(
            help="NAME=VALUE attested of it, for AccessPolicies; may be repeated.",
            negative="",
            show_default=False,
        ),
    ] = (),
    expires: Annotated[str, Parameter(help="How long it can be used: 90s, 15m; up to 24h.")] = "5m",
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """Make a join token and print it: one sidecar gets one identity for it, once. It takes scope operator.

    The sidecar takes it from WEFT_JOIN_TOKEN or WEFT_JOIN_TOKEN_FILE, and the mesh's roots from
    --trust-bundle: `weft identity bundle` prints them.
    """
    labels = dict(parse_label(each) for each in label)
    try:
        lifetime = parse_duration(expires)
    except ValueError as error:
        raise InvalidRequest(f"--expires {expires!r} {error}") from error
    async with control_api(where) as api:
        token = await api.join_token(type_, instance, labels, lifetime)
    if output is Output.JSON:
        print_json({"token": token})
    else:
        print(token)


def _left(expires: float) -> str:
    left = expires - time.time()
    return f"in {duration(left)}" if left > 0 else "expired"
