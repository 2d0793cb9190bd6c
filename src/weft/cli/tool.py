"""`weft tool`: one tool, looked at and called."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.json import JSON

from weft.cli.api import control_api
from weft.cli.call import find_door, print_value, whole_payload
from weft.cli.options import ControlPlane, MeshOption, Output, OutputOption
from weft.cli.payload import argument
from weft.cli.show import console, print_facts, print_json
from weft.errors import InvalidRequest, NotFound
from weft.local.tool_control import ToolApi
from weft.sdk.mesh import DEFAULT_TIMEOUT, Mesh

app = App(name="tool", help="Show a tool of an MCP server, or call it.")

_HERE = ControlPlane()

_Name = Annotated[str, Parameter(help="The tool's name, as `weft tools` lists it, or SERVER_NAME.")]


@app.command
async def show(name: _Name, /, *, output: OutputOption = Output.TABLE, where: ControlPlane = _HERE) -> None:
    """Show what a tool is and what it takes."""
    async with control_api(where) as api:
        found = (await ToolApi(api).tools())["items"]
    tool = next((each for each in found if name in (each["name"], *each["aliases"])), None)
    if tool is None:
        raise NotFound(f"there is no tool {name!r}; see 'weft tools', and 'weft tools --notes'")
    if output is Output.JSON:
        print_json(tool)
        return
    print_facts(_facts(tool))
    console().print(JSON.from_data(tool["inputSchema"]))


@app.command
async def call(
    name: _Name,
    /,
    *arguments: Annotated[str, Parameter(help="NAME=VALUE (text) or NAME:=VALUE (JSON) that it takes.")],
    data: Annotated[
        str | None,
        Parameter(help="All arguments: JSON, @FILE, or - for standard input.", allow_leading_hyphen=True),
    ] = None,
    timeout: Annotated[float, Parameter(help="Seconds the answer may take.")] = DEFAULT_TIMEOUT,
    proxy: Annotated[
        str | None, Parameter(help="Address of a sidecar (default: $WEFT_PROXY, or the mesh's door here).")
    ] = None,
    mesh: MeshOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Call a tool, as an agent does by way of http://tools.mesh/mcp.

    `weft tool call add a:=1 b:=2`
    """
    if timeout <= 0:
        raise InvalidRequest("--timeout must be more than 0 seconds")
    payload = {**whole_payload(data), **dict(argument(each) for each in arguments)}
    async with Mesh(proxy=find_door(proxy, mesh)) as client:
        result = await client.call_tool(name, payload, timeout=timeout)
    if output is Output.JSON:
        print_json(asdict(result))
    else:
        print_value(result.text or result.structured or list(result.content), output)


def _facts(tool: dict[str, Any]) -> list[tuple[str, str]]:
    timeout = f"{tool['timeout']:g} s" if tool["timeout"] is not None else "that of its server"
    return [
        ("Tool", tool["name"]),
        ("Title", tool["title"]),
        ("Server", tool["server"]),
        ("There called", tool["original"] if tool["original"] != tool["name"] else ""),
        ("Called too", ", ".join(tool["aliases"])),
        ("Description", " ".join(tool["description"].split())),
        ("Tried elsewhere", "yes: it is idempotent" if tool["idempotent"] else "no"),
        ("Timeout", timeout),
        ("Arguments", f"at most {tool['maxArguments']} bytes"),
        ("Answer", f"at most {tool['maxResult']} bytes"),
    ]
