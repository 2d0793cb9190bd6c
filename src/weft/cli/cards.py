"""`weft cards` and `weft card`: the catalogue of A2A agents."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from weft.cli.api import control_api
from weft.cli.options import ControlPlane, Output, OutputOption
from weft.cli.show import console, print_json, print_table, printable

_HERE = ControlPlane()


async def cards(
    *text: Annotated[str, Parameter(help="Words that must all be found in a card.", show_default=False)],
    skill: Annotated[
        tuple[str, ...],
        Parameter(
            help="Only agents with this skill; may be repeated: all of them.", negative="", show_default=False
        ),
    ] = (),
    tag: Annotated[
        tuple[str, ...],
        Parameter(
            help="Only agents with a skill of this tag; may be repeated: all of them.",
            negative="",
            show_default=False,
        ),
    ] = (),
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """List the agents that have an A2A card, or search among them."""
    query = [
        *([("q", " ".join(text))] if text else []),
        *(("skill", each) for each in skill),
        *(("tag", each) for each in tag),
    ]
    async with control_api(where) as api:
        found, unread = await api.cards(query)
    if output is Output.JSON:
        print_json(found)
        return
    columns = ("TYPE", "NAME", "SKILLS", "HEALTHY", "A2A", "DESCRIPTION")
    print_table(columns, (_row(each) for each in found), none="no agent has a card that matches")
    for agent_type, notes in unread.items():
        _warn(f"{agent_type}: {'; '.join(notes)}")


async def card(
    type_: Annotated[str, Parameter(help="The agent's type.")],
    /,
    *,
    where: ControlPlane = _HERE,
) -> None:
    """Show an agent's A2A card as others get it, as JSON. What is wrong with it goes to standard error."""
    async with control_api(where) as api:
        found = await api.card(type_)
    print_json(found["card"])
    for note in found.get("notes", ()):
        _warn(str(note))


def _warn(text: str) -> None:
    console(stderr=True).print(printable(text), style="yellow", markup=False)


def _row(listed: dict[str, Any]) -> tuple[str, ...]:
    shown = listed["card"]
    versions = {str(each.get("protocolVersion", "")) for each in shown.get("supportedInterfaces") or ()}
    if "url" in shown:
        versions.add(str(shown.get("protocolVersion", "0.3")))
    return (
        listed["type"],
        str(shown.get("name", "")),
        ", ".join(str(each.get("id", "")) for each in shown.get("skills") or ()),
        f"{listed['healthy']}/{listed['instances']}",
        ", ".join(sorted(versions - {""})),
        str(shown.get("description") or ""),
    )
