"""`weft tools`: the tools of all MCP servers, and what is the matter with servers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from cyclopts import Parameter

from weft.cli.api import control_api
from weft.cli.options import ControlPlane, Output, OutputOption
from weft.cli.show import console, print_json, print_table, shortened
from weft.local.tool_control import ToolApi

TOOLS = ("NAME", "SERVER", "DESCRIPTION")
SERVERS = ("SERVER", "TITLE", "MCP", "TOOLS", "PROMPTS", "RESOURCES", "TEMPLATES")
NOTES = ("SERVER", "NOTE")

_HERE = ControlPlane()


async def tools(
    text: Annotated[
        str | None, Parameter(help="Only tools that have it in their name, title or description.")
    ] = None,
    /,
    *,
    server: Annotated[str | None, Parameter(help="Only those of this agent type.")] = None,
    notes: Annotated[
        bool,
        Parameter(
            help="Show the servers instead, and what of them was left out or could not be read.",
            negative="",
            show_default=False,
        ),
    ] = False,
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """List the tools that agents find at http://tools.mesh/mcp."""
    async with control_api(where) as api:
        found = await ToolApi(api).tools(server=server, text=text)
    if output is Output.JSON:
        print_json(found["servers"] if notes else found["items"])
        return
    if notes:
        _print_servers(found["servers"])
        return
    rows = ((each["name"], each["server"], _described(each)) for each in found["items"])
    print_table(TOOLS, rows, none="there are no tools" if text is None else f"no tool has {text!r} in it")
    _print_hint(found["servers"])


def _described(tool: dict[str, Any]) -> str:
    return shortened(tool["description"] or tool["title"], 80)


def _print_servers(servers: list[dict[str, Any]]) -> None:
    rows = (
        (
            each["type"],
            each["title"],
            each["generation"] or "not read yet",
            *(str(each[name]) for name in ("tools", "prompts", "resources", "templates")),
        )
        for each in servers
    )
    print_table(SERVERS, rows, none="there are no MCP servers")
    noted = [(each["type"], note) for each in servers for note in each["notes"]]
    if noted:
        console().print()
        print_table(NOTES, noted, none="")


def _print_hint(servers: Iterable[dict[str, Any]]) -> None:
    noted = [each for each in servers if each["notes"]]
    if noted:
        count = sum(len(each["notes"]) for each in noted)
        about = ", ".join(each["type"] for each in noted[:3]) + (", …" if len(noted) > 3 else "")
        plural = "note" if count == 1 else "notes"
        console(stderr=True).print(f"{count} {plural} about {about}: see `weft tools --notes`")
