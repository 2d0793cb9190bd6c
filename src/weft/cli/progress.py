"""How a mesh starts and what its processes say, on the terminal."""

from __future__ import annotations

import time
from collections import Counter
from zlib import crc32

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from weft.cli.show import STATUS_STYLES, console, print_json
from weft.errors import MeshError
from weft.local.commands import DOOR
from weft.local.default_models import SIMULATOR
from weft.model.local_state import ChildState, MeshState

_COLOURS = ("cyan", "magenta", "blue", "green", "yellow", "bright_cyan", "bright_magenta", "bright_blue")
_CORE = {"nats", "control", DOOR, SIMULATOR}
_BUSY = {"starting", "restarting", "stopping"}


class StartProgress:
    """A line for every process, while the mesh starts. Where there is no terminal, one per step."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._states: dict[str, ChildState] = {}
        self._since: dict[str, float] = {}
        self._took: dict[str, float] = {}
        self._spinner = Spinner("dots")
        self._live: Live | None = None

    def update(self, state: ChildState) -> None:
        """Show a process's new state."""
        name = state.name
        self._since.setdefault(name, time.monotonic())
        self._states[name] = state
        if state.phase == "ready":
            self._took.setdefault(name, time.monotonic() - self._since[name])
        if self._out.is_terminal:
            self._show()
        elif state.phase != "waiting":
            self._out.print(self._line(state))

    def close(self) -> None:
        """Leave the lines as they are, and draw no more."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __rich__(self) -> Table:
        grid = Table.grid(padding=(0, 1))
        for state in self._states.values():
            grid.add_row(self._mark(state), self._line(state))
        return grid

    def _show(self) -> None:
        if self._live is None:
            self._live = Live(self, console=self._out, refresh_per_second=8)
            self._live.start()

    def _mark(self, state: ChildState) -> Spinner | Text:
        if state.phase in _BUSY:
            return self._spinner
        return Text("✓", style="green") if state.phase == "ready" else Text("·", style="dim")

    def _line(self, state: ChildState) -> Text:
        line = Text(f"{state.name:20} ").append(state.phase, style=STATUS_STYLES.get(state.phase, ""))
        if state.phase == "ready":
            line.append(f"  {self._took[state.name]:.1f} s", style="dim")
        if state.detail:
            line.append(f"  {state.detail}")
        return line


class TerminalReporter:
    """Progress while the mesh starts, one summary, then what the processes write."""

    insists = False  # whoever watches can mend an agent while the mesh runs

    def __init__(self, *, as_json: bool) -> None:
        """`as_json`: the summary on standard output is JSON, and all else goes to standard error."""
        self._as_json = as_json
        self._out = console(stderr=as_json)
        self._progress: StartProgress | None = StartProgress(console(stderr=True))

    def child(self, state: ChildState) -> None:
        """A process took a step."""
        if self._progress is not None:
            self._progress.update(state)
        elif state.phase in {"restarting", "ready", "stopped"}:
            self._out.print(prefixed(state.name, f"[{state.phase}] {state.detail}".rstrip()))

    def line(self, name: str, line: str) -> None:
        """A process wrote a line; those of the start are in its log only."""
        if self._progress is None:
            self._out.print(prefixed(name, line))

    def ready(self, state: MeshState, problem: str, /) -> None:
        """The mesh is up."""
        self._end_progress()
        print_summary(state, as_json=self._as_json)
        if problem:
            console(stderr=True).print(Text(f"warning: {problem}", style="yellow"))
        console(stderr=True).print(Text("Ctrl-C stops everything.", style="dim"))

    def failed(self, _error: MeshError, /) -> None:
        """The mesh did not start; why is told by whoever catches the error."""
        self._end_progress()

    def stopping(self) -> None:
        """A signal asked to stop."""
        self._end_progress()
        self._out.print("stopping: agents finish what they have in flight (once more to hurry)")

    def _end_progress(self) -> None:
        if self._progress is not None:
            self._progress.close()
            self._progress = None


def print_summary(state: MeshState, *, as_json: bool) -> None:
    """Tell on standard output what runs, where, and what to try next."""
    if as_json:
        print_json(state.model_dump(by_alias=True))
        return
    gateways = {each.name for each in state.gateways}
    types = [each.name.rpartition("-")[0] for each in state.children if each.name not in _CORE]
    agents = Counter(each for each in types if each not in gateways)
    running = ", ".join(f"{count} {name}" for name, count in sorted(agents.items())) or "none declared yet"
    first = next(iter(sorted(agents)), None)
    out = console()
    out.print(f"\nmesh [bold]{state.name}[/bold] is up: {len(state.children)} processes; agents: {running}")
    out.print(f"  control plane  {state.api_url}  (its operators have tokens: weft token list)")
    out.print(f"  door           {state.proxy_url}  (HTTP proxy: export http_proxy={state.proxy_url})")
    out.print(f"  dashboard      {state.dashboard_url}  (signed in: weft dashboard)")
    if state.models:
        out.print(f"  models         {state.models}", markup=False)
    for each in state.gateways:
        name = f"gateway {each.name}"
        out.print(
            f"  {name:14} {each.url}  (its callers have keys: weft gateway create-key {each.name} NAME)"
        )
    out.print()
    out.print("Try next:")
    for command, purpose in (
        ("weft agents", "who runs, and how they are"),
        (f"weft describe agent {first}", "all about one of them")
        if first
        else ("weft run --type hello --port 8001 -- python agent.py", "a program as an agent"),
        ("weft apply -f FILE", "declare agents, routes and policies"),
    ):
        out.print(f"  {command:40} {purpose}", markup=False)


def prefixed(name: str, line: str | Text, width: int = 16) -> Text:
    """`line` after the name of who said it, which takes `width` characters at least."""
    # The same colour for the same name in every run.
    colour = _COLOURS[crc32(name.encode()) % len(_COLOURS)]
    return Text(f"{name:{width}} ", style=colour).append(
        line if isinstance(line, Text) else Text(line, style="default")
    )
