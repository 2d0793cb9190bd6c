"""`weft agents` and `weft discover`: who runs."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from weft.cli.api import control_api
from weft.cli.external_agents import external_agents
from weft.cli.options import ControlPlane, Output, OutputOption
from weft.cli.show import age, print_json, print_table
from weft.errors import InvalidRequest

_TYPE = Annotated[str | None, Parameter(help="Only agents of this type.", show_default=False)]
_CAPABILITY = Annotated[
    tuple[str, ...],
    Parameter(
        help="Only agents that can do this; may be repeated: all of them.", negative="", show_default=False
    ),
]
_VERSION = Annotated[str | None, Parameter(help="Only agents of this version.", show_default=False)]
_LABEL = Annotated[
    tuple[str, ...],
    Parameter(help="NAME=VALUE that they must have; may be repeated.", negative="", show_default=False),
]
_LIMIT = Annotated[int | None, Parameter(help="At most so many.", show_default=False)]
_HERE = ControlPlane()


async def agents(
    type_: _TYPE = None,
    /,
    *,
    capability: _CAPABILITY = (),
    version: _VERSION = None,
    label: _LABEL = (),
    status: Annotated[
        tuple[str, ...],
        Parameter(help="Only agents of this status; may be repeated.", negative="", show_default=False),
    ] = (),
    limit: _LIMIT = None,
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """List the running agents, whatever their status, and the addresses of those without a sidecar.

    The latter (ExternalAgents) have no status but `external`, and no labels: with `--status` or `--label`
    they are left out.
    """
    query = _query(type_, capability, version, label) + [("status", each) for each in status or ("any",)]
    found = await _ask(where, query, limit)
    if not status and not label:
        found = [*found, *await external_agents(where, type_, capability, version)][:limit]
    if output is Output.JSON:
        print_json(found)
        return
    columns = (
        "TYPE",
        "INSTANCE",
        "STATUS",
        "IN FLIGHT",
        "VERSION",
        "CAPABILITIES",
        "ENDPOINT",
        "AGE",
        "REASON",
    )
    print_table(columns, (_row(each) for each in found), none="no agents are running")


async def discover(
    type_: _TYPE = None,
    /,
    *,
    capability: _CAPABILITY = (),
    version: _VERSION = None,
    label: _LABEL = (),
    limit: _LIMIT = None,
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """Find healthy agents, as agents find each other: those for which all that is asked holds."""
    found = await _ask(where, _query(type_, capability, version, label), limit)
    if output is Output.JSON:
        print_json(found)
        return
    columns = ("INSTANCE", "CAPABILITIES", "VERSION", "ENDPOINT")
    rows = (
        (_address(each), _words(each["capabilities"]), each["version"], each["endpoint"]) for each in found
    )
    print_table(columns, rows, none="no healthy agent matches")


async def _ask(where: ControlPlane, query: list[tuple[str, str]], limit: int | None) -> list[dict[str, Any]]:
    if limit is not None and limit < 1:
        raise InvalidRequest("--limit must be at least 1")
    async with control_api(where) as api:
        return await api.agents(query, limit=limit)


def _query(
    agent_type: str | None, capabilities: tuple[str, ...], version: str | None, labels: tuple[str, ...]
) -> list[tuple[str, str]]:
    for label in labels:
        if not label.partition("=")[1]:
            raise InvalidRequest(f"label {label!r} is not NAME=VALUE")
    return [
        *([("type", agent_type)] if agent_type else []),
        *(("capability", each) for each in capabilities),
        *([("version", version)] if version else []),
        *(("label", each) for each in labels),
    ]


def _row(agent: dict[str, Any]) -> tuple[str, ...]:
    return (
        agent["type"],
        agent["id"],
        agent["status"],
        str(agent["inFlight"]),
        agent["version"],
        _words(agent["capabilities"]),
        agent["endpoint"],
        age(agent["startedAt"]),
        agent["reason"],
    )


def _address(agent: dict[str, Any]) -> str:
    return f"{agent['id']}.{agent['type']}"


def _words(items: list[str]) -> str:
    return ", ".join(items)
