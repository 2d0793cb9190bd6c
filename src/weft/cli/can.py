"""`weft can`: whether somebody may do something, and which policy says so."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from weft.cli.api import control_api
from weft.cli.exit_codes import ExitCode
from weft.cli.options import ControlPlane, Output, OutputOption
from weft.cli.show import print_json
from weft.model.access import Action

_HERE = ControlPlane()


async def can(
    caller: Annotated[str, Parameter(help="A type, TYPE/INSTANCE, operator/NAME, or a SPIFFE ID.")],
    action: Annotated[Action, Parameter(help="What is to be done.")],
    target: Annotated[str, Parameter(help="A type, capability/NAME, topic/NAME, queue/NAME or pool/NAME.")],
    /,
    *,
    method: Annotated[str, Parameter(help="Of the HTTP request; POST by default.")] = "",
    path: Annotated[str, Parameter(help="Of the HTTP request; /rpc by default, /mcp for a tool.")] = "",
    rpc: Annotated[str, Parameter(help="The method of MCP or A2A that is called.")] = "",
    tool: Annotated[str, Parameter(help="The tool that is called by MCP.")] = "",
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> ExitCode:
    """Tell whether somebody may do something, and which AccessPolicy says so.

    Exit code 0 if it is allowed, 1 if it is denied: `weft can editor call summarizer --path /admin`.
    """
    details = {"method": method, "path": path, "rpc": rpc, "tool": tool}
    question = {"caller": caller, "action": action.value, "target": target}
    async with control_api(where) as api:
        answer = await api.can({**question, **details})
    if output is Output.JSON:
        print_json(answer)
    else:
        _print(f"{caller} {action.value} {target}", answer)
    return ExitCode.OK if answer["allowed"] else ExitCode.FAILED


def _print(question: str, answer: dict[str, Any]) -> None:
    request = f" ({answer['request']})" if answer["request"] else ""
    print(f"{_word(answer)}: {question}{request}")
    print(f"  {answer['reason']}")
    _print_dry_run(answer)
    if len(answer["cases"]) > 1:
        print("It depends on which is meant:")
        for case in answer["cases"]:
            version = f" version {case['version']}" if case["version"] else ""
            print(f"  {_word(case)}: {case['caller']} to {case['target']}{version}: {case['reason']}")
            _print_dry_run(case)
    if answer["depends"]:
        print(f"Other requests may be answered otherwise, by {', '.join(answer['depends'])}:")
        print("  ask with --method, --path, --rpc or --tool")


def _print_dry_run(decision: dict[str, Any]) -> None:
    for name in decision["dryRun"]:
        print(f"  policy {name!r} would have {'denied' if decision['allowed'] else 'allowed'} it (dry run)")


def _word(decision: dict[str, Any]) -> str:
    return "allowed" if decision["allowed"] else "denied"
