"""The `weft` command: which commands there are, and how they end. Each is loaded when it is called."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

from cyclopts import App, CycloptsError, Group

from weft.cli.exit_codes import ExitCode, exit_code
from weft.errors import InvalidRequest, MeshError

HELP = """The agent mesh: agents find and call each other, and their authors write agent logic only.

Begin with `weft check`, then `weft up`.
"""

EPILOGUE = """Exit codes: 0 done, 1 failed, 2 wrong usage or invalid manifest, 3 no mesh can be reached,
4 not found, 5 conflict, 6 no healthy agent, 7 outcome unknown (timed out, connection broke), 8 not allowed
(no token, or none that may do this), 9 the task was cancelled, 130 interrupted.

With `--debug` an error is shown with its traceback. `--output json` gives errors as JSON too, on stderr."""

_MESH = Group("Mesh on this machine", sort_key=1)
_OBSERVING = Group("What goes on", sort_key=2)
_AGENTS = Group("Agents", sort_key=3)
_MESSAGES = Group("Tasks and events", sort_key=4)
_MODELS = Group("Models", sort_key=5)
_RESOURCES = Group("Resources", sort_key=6)
_ACCESS = Group("Access", sort_key=7)
_KUBERNETES = Group("Kubernetes", sort_key=8)
_PROCESSES = Group("Processes", sort_key=9)
_MACHINE = Group("This machine", sort_key=10)


class Command(NamedTuple):
    """One command, by where it is found."""

    name: str
    path: str
    help: str
    group: Group
    options: dict[str, Any] = {}


# Their arguments are for the process they become, `--help` included.
_PASSED_ON: dict[str, Any] = {"help_flags": [], "version_flags": [], "end_of_options_delimiter": ""}

COMMANDS = (
    Command("up", "weft.cli.up:up", "Start a mesh on this machine.", _MESH),
    Command("status", "weft.cli.status:status", "Show the mesh on this machine and its processes.", _MESH),
    Command("down", "weft.cli.down:down", "Stop the mesh on this machine.", _MESH),
    Command("demo", "weft.cli.demo:demo", "Review source code with a crew of agents.", _MESH),
    Command("dashboard", "weft.cli.dashboard:dashboard", "Open the dashboard in a browser.", _OBSERVING),
    Command("top", "weft.cli.top:top", "Show what is called, how often and how well.", _OBSERVING),
    Command("traces", "weft.cli.traces:traces", "Find traces of calls.", _OBSERVING),
    Command("trace", "weft.cli.traces:trace", "Show one trace: what happened, in which order.", _OBSERVING),
    Command("logs", "weft.cli.logs:logs", "Show what the processes of the mesh here write.", _OBSERVING),
    Command("agents", "weft.cli.agents:agents", "List the running agents.", _AGENTS),
    Command(
        "discover", "weft.cli.agents:discover", "Find healthy agents, as agents find each other.", _AGENTS
    ),
    Command("cards", "weft.cli.cards:cards", "List agents by their A2A cards, or search them.", _AGENTS),
    Command("card", "weft.cli.cards:card", "Show an agent's A2A card.", _AGENTS),
    Command("tools", "weft.cli.tools:tools", "List the tools of MCP servers, or search them.", _AGENTS),
    Command("tool", "weft.cli.tool:app", "Show a tool of an MCP server, or call it.", _AGENTS),
    Command("call", "weft.cli.call:call", "Call an agent.", _AGENTS),
    Command("run", "weft.cli.run:run", "Run a program as an agent, with a sidecar beside it.", _AGENTS),
    Command("drain", "weft.cli.drain:drain", "Have an instance finish what it does and stop.", _AGENTS),
    Command("task", "weft.cli.task:app", "Give work to a queue, and see what becomes of it.", _MESSAGES),
    Command("queue", "weft.cli.queue:app", "See how queues stand, and handle what lies in them.", _MESSAGES),
    Command("topic", "weft.cli.topic:app", "See topics, publish to them, read along, replay.", _MESSAGES),
    Command(
        "context", "weft.cli.context:app", "See what is kept of a conversation, and forget it.", _MESSAGES
    ),
    Command("gateway", "weft.cli.gateway:app", "Handle a gateway's API keys, or run an instance.", _MESSAGES),
    Command("llm", "weft.cli.llm:app", "See pools of models, who waits, what was used, budgets.", _MODELS),
    Command("apply", "weft.cli.apply:apply", "Declare resources, all of a manifest or nothing.", _RESOURCES),
    Command("get", "weft.cli.get:get", "Show resources.", _RESOURCES),
    Command("describe", "weft.cli.describe:describe", "Show all about one resource.", _RESOURCES),
    Command("diff", "weft.cli.diff:diff", "Show what applying a manifest would change.", _RESOURCES),
    Command("delete", "weft.cli.delete:delete", "Remove resources.", _RESOURCES),
    Command("can", "weft.cli.can:can", "Tell whether somebody may do something, and why.", _ACCESS),
    Command("token", "weft.cli.token:app", "Make, list and revoke operators' tokens.", _ACCESS),
    Command("audit", "weft.cli.audit:audit", "Show who did, or was refused, what.", _ACCESS),
    Command("identity", "weft.cli.identity:app", "Show, verify, rotate and revoke identities.", _ACCESS),
    Command("kubernetes", "weft.cli.kubernetes:app", "Write manifests for a cluster.", _KUBERNETES),
    Command("inject", "weft.cli.inject:inject", "Put sidecars into Kubernetes manifests.", _KUBERNETES),
    Command("control", "weft.cli.processes:control", "Run a control plane.", _PROCESSES, _PASSED_ON),
    Command("sidecar", "weft.cli.processes:sidecar", "Run a sidecar.", _PROCESSES, _PASSED_ON),
    Command(
        "llm-sim", "weft.cli.llm_sim:llm_sim", "Run a simulated provider of models.", _PROCESSES, _PASSED_ON
    ),
    Command("check", "weft.cli.check:check", "Tell what this machine lacks.", _MACHINE),
    Command("version", "weft.cli.version:version", "Show the versions of Weft and its parts.", _MACHINE),
    Command("completion", "weft.cli.completion:app", "Complete commands in the shell.", _MACHINE),
)


def make_app(chosen: str | None = None) -> App:
    """The command line as a whole; the `chosen` command has its own, longer help."""
    app = App(
        name="weft",
        help=HELP,
        help_epilogue=EPILOGUE,
        help_format="markdown",
        version=lambda: version("weft"),
        version_flags=["--version"],
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
    )
    app["--help"].group = app["--version"].group = _MACHINE
    for each in COMMANDS:
        app.command(each.path, name=each.name, help=_help(each, chosen), group=each.group, **each.options)
    return app


def _help(command: Command, chosen: str | None) -> str | None:
    """The line in the list of commands. Left out of the chosen one, since it would hide its docstring."""
    return None if command.name == chosen else command.help


def run(arguments: Sequence[str]) -> int:
    """Run the command that `arguments` name; return the exit code. Errors go to stderr, as one message."""
    own, passed_on = _split(arguments)
    debug = "--debug" in own
    tokens = [*(each for each in own if each != "--debug"), *passed_on]
    try:
        result = make_app(chosen=next(iter(tokens), None))(tokens)
    except CycloptsError as error:
        return _report(InvalidRequest(str(error)), own, debug=debug)
    except MeshError as error:
        return _report(error, own, debug=debug)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has read enough. Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    return result if isinstance(result, int) else ExitCode.OK


def main() -> None:
    """The program `weft`."""
    sys.exit(run(sys.argv[1:]))


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is meant for `weft`, and what (from `--` on) for a program that it is to run."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return list(arguments[:end]), list(arguments[end:])


def _report(error: MeshError, arguments: Sequence[str], *, debug: bool) -> ExitCode:
    if debug:
        traceback.print_exception(error)
    if _wants_json(arguments):
        print(json.dumps(error.problem(), indent=2), file=sys.stderr)
    else:
        print(f"weft: {error.detail}", file=sys.stderr)
    return exit_code(error)


def _wants_json(arguments: Sequence[str]) -> bool:
    joined = " ".join(arguments)
    return any(f"{option}{sign}json" in joined for option in ("--output", "-o") for sign in (" ", "="))


if __name__ == "__main__":
    main()
